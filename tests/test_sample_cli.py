"""mri-score sample: what it writes, and one clear message for everything that can be wrong."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mri_score import generation
from mri_score.cli import main
from mri_score.operators.averages import BlockMeans, Grey
from mri_score.priors.store import build_prior, load_prior, save_prior

NETWORK = {"name": "unet", "widths": [4, 6], "blocks": 1, "embedding": 8}


def sample(*arguments, code=0):
    result = CliRunner().invoke(main, ["sample", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A tiny prior of complex images."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    save_prior(path, build_prior(NETWORK, sigma_min=0.01, sigma_max=20.0), NETWORK, {})
    return path


@pytest.fixture
def picture(tmp_path):
    """A head of 30 x 26 pixels, 8 bits, and a mask that hides 48 of them."""
    row, column = np.mgrid[:30, :26]
    image = (200 * np.exp(-((row - 15) ** 2 + (column - 13) ** 2) / 60)).astype(np.uint8)
    keep = np.ones((30, 26), np.uint8)
    keep[12:18, 8:16] = 0
    Image.fromarray(image).save(tmp_path / "head.png")
    np.save(tmp_path / "keep.npy", keep)
    return image, keep


def test_help_names_the_walks_and_their_defaults():
    words = " ".join(sample("--help").split()).replace("- ", "-")  # lines break at hyphens
    assert f"{', '.join(generation.WALKS)}; with --inpaint: {', '.join(generation.INPAINTING)}." in words
    defaults = generation.DEFAULT_WALK, generation.DEFAULT_FLOW, generation.DEFAULT_INPAINTING
    assert "[default: {}; with --interpolate {}, with --inpaint {}]".format(*defaults) in words
    assert f"[default: {generation.NOISE_STD}]" in words


def test_samples_are_those_of_the_library(tmp_path, prior):
    output = sample("-p", prior, "-n", 5, "--size", "24x20", "--steps", 4, "--seed", 3, "--out", tmp_path / "out",
                    "--batch-size", 2, "--sampler", "ddim", "--set", "zeta=0.5")  # fmt: skip
    written = ["samples.h5", "samples.png", "samples_phase.png"]
    assert output.split() == [str(tmp_path / "out" / name) for name in written]
    expected = generation.sample_prior(
        load_prior(prior), 5, (24, 20), sampler="ddim", steps=4, seed=3, options={"zeta": 0.5}
    )
    with h5py.File(tmp_path / "out" / "samples.h5") as file:
        assert torch.allclose(torch.from_numpy(file["samples"][()]), expected, atol=1e-5)
        assert file.attrs["prior_sha256"] == generation.read_record(prior)["sha256"]
        assert (file.attrs["sampler"], file.attrs["steps"], file.attrs["seed"], file.attrs["mean"]) == ("ddim", 4, 3, 0)
    with Image.open(tmp_path / "out" / "samples.png") as sheet, Image.open(tmp_path / "out" / written[2]) as phases:
        assert sheet.size == phases.size == (3 * 22 - 2, 2 * 26 - 2)  # 3 columns and 2 rows, 2 pixels between
        assert sheet.mode == "L" and phases.mode == "RGB"
        last = expected[4].abs() / np.percentile(expected.abs(), 99.5)
        shown = torch.from_numpy(np.asarray(sheet).copy())[26:50, 22:42] / 255
        assert torch.allclose(shown, last.clamp(0, 1), atol=0.01)


def test_a_prior_of_real_images_starts_about_their_mean(tmp_path):
    network = {**NETWORK, "channels": 1}
    save_prior(tmp_path / "real.safetensors", build_prior(network, sigma_max=20.0), network, {"mean": 0.47})
    sample("-p", tmp_path / "real.safetensors", "-n", 1, "--size", 16, "--steps", 2, "-o", tmp_path)
    with h5py.File(tmp_path / "samples.h5") as file:
        assert file.attrs["mean"] == 0.47 and file["samples"].dtype == np.float32
    assert not (tmp_path / "samples_phase.png").exists()
    sample("-p", tmp_path / "real.safetensors", "-n", 1, "--size", 16, "--steps", 2, "-o", tmp_path, "--mean", 0.1)
    with h5py.File(tmp_path / "samples.h5") as file:
        assert file.attrs["mean"] == 0.1


def test_interpolation_begins_and_ends_with_samples(tmp_path, prior):
    shared = ["-p", prior, "--size", 16, "--steps", 3, "-o", tmp_path]
    sample(*shared, "-n", 2, "--sampler", "heun")
    sample(*shared, "--interpolate", 4)
    with h5py.File(tmp_path / "samples.h5") as plain, h5py.File(tmp_path / "interpolation.h5") as way:
        assert len(way["samples"]) == 4
        assert np.allclose(way["samples"][[0, 3]], plain["samples"], atol=1e-4)
    assert (tmp_path / "interpolation.png").exists()


def test_inpainting_keeps_what_is_known_in_its_own_units(tmp_path, prior, picture):
    image, keep = picture
    sample("-p", prior, "-n", 2, "--steps", 6, "--sampler", "adaptive-draw", "--inpaint", tmp_path / "head.png",
           "--keep", tmp_path / "keep.npy", "--noise-std", 0.02, "-o", tmp_path)  # fmt: skip
    with h5py.File(tmp_path / "inpainting.h5") as file:
        draws, known = file["samples"][()], keep > 0
        assert np.array_equal(file["image"], image.astype(np.complex64)) and np.array_equal(file["keep"], known)
        assert 100 < file.attrs["scale"] < 200 and file.attrs["noise_std"] == pytest.approx(0.02 * file.attrs["scale"])
        assert np.abs(draws - image)[:, known].max() < 6 * file.attrs["noise_std"]
        assert np.abs(draws[0] - draws[1])[~known].min() > 0
        assert np.allclose(file["mean"], draws.mean(0), rtol=1e-5)
        assert np.allclose(file["std"], np.abs(draws[0] - draws[1]) / 2, rtol=1e-3, atol=1e-3)  # of two draws
    assert (tmp_path / "inpainting.png").read_bytes()[:4] == b"\x89PNG"


def test_images_may_be_stacks_and_hidden_pixels_anything(tmp_path, prior, picture):
    image, keep = picture
    np.save(tmp_path / "stack.npy", np.stack([0 * image, image]).astype(float) / np.where(keep, 1, 0 * keep + np.nan))
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["image"] = np.stack([0 * image, image])
    results = []
    for name in ("stack.npy", "stack.h5"):
        sample("-p", prior, "-n", 1, "--steps", 2, "--inpaint", tmp_path / name, "--slice", 1, "--keep",
               tmp_path / "keep.npy", "-o", tmp_path, "--sampler", "exact-draw")  # fmt: skip
        with h5py.File(tmp_path / "inpainting.h5") as file:
            results.append(file["samples"][()])
    assert np.allclose(*results, atol=1e-3) and np.isfinite(results[0]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "hoin"], "the method is 'hoin'; known names: adaptive-draw, ancestral"),
        (["--size", "big"], "--size 'big' should be a number of pixels such as 256"),
        (["--set", "chrun=1"], "the option of --set KEY=VALUE is 'chrun'; known names: churn"),
        (["--set", "churn=much"], "--set.churn is 'much'"),
        (["--set", "churn"], "is 'churn without a value'"),
        (["--precision", "half"], "the precision is 'half'; known names: auto, bfloat16, float32"),
        (["--interpolate", "3", "--sampler", "ancestral"], "ancestral draws noise on its way"),
        (["--interpolate", "3", "-n", "4"], "leave out --number"),
        (["--inpaint", "head.png"], "--inpaint IMAGE and --keep MASK must be given together"),
        (["--factor", "3"], "--factor: for --super-resolve only"),
        (["--super-resolve", "head.png", "--colourise", "head.png"], "are different tasks"),
        (["--colourise", "head.png"], "is a prior of 2 channels; --colourise needs one of 3"),
        (["--noise-std", "0.1"], "--noise-std: for --inpaint, --super-resolve and --colourise only"),
        (["--inpaint", "head.png", "--keep", "keep.npy", "--size", "8"], "--inpaint cannot be combined with --size"),
        (["--inpaint", "head.png", "--keep", "small.npy"], "has shape (3, 4), --inpaint head.png has (30, 26)"),
        (["--inpaint", "head.png", "--keep", "none.npy"], "none.npy is 0 at all pixels"),
        (["--inpaint", "absent.png", "--keep", "keep.npy"], "cannot read absent.png"),
        (["--inpaint", "text.npy", "--keep", "keep.npy"], "cannot read text.npy"),
        (["--inpaint", "stack.npy", "--keep", "keep.npy", "--slice", "2"], "--slice 2: stack.npy has slices 0 to 1"),
        (["--inpaint", "head.png", "--keep", "keep.npy", "--sampler", "heun"], "known names: adaptive-draw"),
    ],
)
def test_bad_input_ends_with_one_message(tmp_path, prior, picture, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("small.npy", np.ones((3, 4)))
    np.save("none.npy", np.zeros((30, 26)))
    np.save("stack.npy", np.ones((2, 30, 26)))
    (tmp_path / "text.npy").write_text("no array")
    output = sample("-p", prior, *arguments, code=2)
    assert output.count("Error:") == 1 and message in " ".join(output.split()), output


def test_a_prior_of_colour_images(tmp_path):
    network = {**NETWORK, "channels": 3}
    path = tmp_path / "rgb.safetensors"
    save_prior(path, build_prior(network, sigma_max=20.0), network, {})
    sample("-p", path, "-n", 2, "--size", "16x12", "--steps", 2, "-o", tmp_path)
    with h5py.File(tmp_path / "samples.h5") as file:
        images = file["samples"][()]
        assert images.shape == (2, 3, 16, 12) and file.attrs["mean"] == 0.5
    with Image.open(tmp_path / "samples.png") as sheet:
        shown = np.asarray(sheet)[:, 14:] / 255
    assert np.allclose(shown, images[1].transpose(1, 2, 0).clip(0, 1), atol=0.003)


def test_other_numbers_of_channels_are_refused(tmp_path):
    network = {**NETWORK, "channels": 5}
    save_prior(tmp_path / "five.safetensors", build_prior(network), network, {})
    assert "is a prior of 5 channels; images have 1, 2 (complex) or 3 (RGB)" in " ".join(
        sample("-p", tmp_path / "five.safetensors", code=2).split()
    )


@pytest.fixture
def colours(tmp_path):
    """A tiny prior of colour images that sees 2 x - 1, and a picture of 12 x 10 pixels."""
    network = {**NETWORK, "channels": 3}
    about = {"mean": [0.1, 0.0, -0.1], "pixels": {"channels": 3, "centred": True, "scale": "bits", "size": [8, 12]}}
    save_prior(tmp_path / "rgb.safetensors", build_prior(network, sigma_min=0.01, sigma_max=5.0), network, about)
    row, column = np.mgrid[:12, :10]
    image = np.stack([20 * row, 25 * column, 240 - 20 * row], -1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "colours.png")
    return tmp_path / "rgb.safetensors", image


def test_a_prior_of_colour_images_draws_in_pixels_about_the_mean_of_each_channel(tmp_path, colours):
    path, _ = colours
    out = tmp_path / "out"
    output = sample("-p", path, "-n", 3, "--steps", 3, "--method", "heun", "--png", "-o", out)
    assert output.split() == [str(out / name) for name in ("samples.h5", "samples.png", "images")]
    expected = generation.sample_prior(
        load_prior(path), 3, (3, 8, 12), steps=3, method="heun", mean=[0.1, 0.0, -0.1], dtype=torch.float32
    )
    with h5py.File(out / "samples.h5") as file:
        found = torch.from_numpy(file["samples"][()])
    assert torch.allclose(found, (expected + 1) / 2, atol=1e-5)
    with Image.open(out / "images" / "00002.png") as picture:
        shown = torch.from_numpy(np.asarray(picture).copy()).movedim(-1, 0) / 255
    assert torch.allclose(shown, found[2].clamp(0, 1), atol=0.003)


@pytest.mark.parametrize("task", ["inpaint", "super-resolve", "colourise"])
def test_colour_images_are_completed_in_their_own_units(tmp_path, colours, task):
    path, image = colours
    Image.fromarray(image).convert("L").save(tmp_path / "grey.png")
    np.save(tmp_path / "keep.npy", np.arange(120).reshape(12, 10) % 3 > 0)
    source = tmp_path / ("grey.png" if task == "colourise" else "colours.png")
    more = {"inpaint": ["--keep", tmp_path / "keep.npy"], "super-resolve": ["--factor", 2], "colourise": []}[task]
    sample("-p", path, "-n", 2, "--steps", 10, "--method", "exact-draw", f"--{task}", source, *more, "-o", tmp_path)
    name = {"inpaint": "inpainting", "super-resolve": "super_resolution", "colourise": "colourisation"}[task]
    with h5py.File(tmp_path / f"{name}.h5") as file:
        draws = torch.from_numpy(file["samples"][()])
    known = torch.from_numpy(image.copy()).movedim(-1, 0).float()
    if task == "super-resolve":
        found, wanted = BlockMeans(2)(draws), known
    elif task == "colourise":
        found, wanted = Grey()(draws), torch.from_numpy(np.asarray(Image.open(source)).copy()).float()
    else:
        keep = torch.from_numpy(np.load(tmp_path / "keep.npy"))
        found, wanted = draws[..., keep], known[..., keep]
    assert float((found - wanted).square().mean().sqrt()) < 6  # grey values; the noise of known pixels is 2.55
    with Image.open(tmp_path / f"{name}.png") as sheet:
        assert sheet.mode == "RGB"
