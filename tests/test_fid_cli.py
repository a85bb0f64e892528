"""mri-score fid: samples, priors and checkpoints against real images, by any network's features."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from command import mri_score, refused
from PIL import Image
from torch import nn

from mri_score.data.scale import percentile
from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.networks import NCSNv2
from mri_score.priors.store import build_prior, save_prior
from mri_score.sample_quality.features import SIGMA, FileFeatures, OwnFeatures, extract, load_extractor
from mri_score.sample_quality.frechet import Gaussian, frechet_distance
from mri_score.sample_quality.images import RealImages, prepare, read_samples
from mri_score.sources.magnitude_images import ImageStacks
from mri_score.training import checkpoint

NETWORK = {"name": "unet", "widths": [4, 8], "blocks": 1, "embedding": 8}
TINY = ["--steps", 2, "--threads", 1, "-n", 4, "--sampler", "euler"]


class Moments(nn.Module):
    """Mean and standard deviation of each channel: what the input is can be read off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


def pictures(count, shape, seed):
    """Smooth random blobs, uint16."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, 5, 5))
    rows, cols = (np.linspace(0, 4, side).astype(int) for side in shape)
    return (1000 * coarse[:, rows][:, :, cols] + 50 * random.random((count, *shape))).astype(np.uint16)


def random_prior(seed):
    prior = build_prior(NETWORK, precondition="edm", sd=0.3, sigma_min=0.01, sigma_max=10.0)
    random = torch.Generator().manual_seed(seed)
    for parameter in prior.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / max(parameter[0].numel(), 4) ** 0.5
    return prior.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Held-out and training stacks, samples of which one is a training image, a prior, a run, two feature files."""
    folder = tmp_path_factory.mktemp("quality")
    training = pictures(24, (18, 20), seed=0)
    for name, stack in (("training", training), ("held_out", pictures(20, (18, 20), seed=1))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["image"] = stack
    new = pictures(5, (18, 20), seed=2)
    samples = np.concatenate([new, training[7:8, ::-1]]).astype(np.complex64) * 1j
    with h5py.File(folder / "samples.h5", "w") as file:
        file["samples"] = samples
    (folder / "run").mkdir()
    for step in (10, 20):
        state = {name: random_prior(step + shift).state_dict() for name, shift in (("model", 1), ("ema", 0))}
        checkpoint.save(folder / "run", {"step": step, "optimizer": {}, **state})
    save_prior(folder / "run" / "prior.safetensors", random_prior(20), NETWORK, {})
    torch.jit.save(torch.jit.script(Moments()), folder / "moments.ts")
    return folder


# ---- Images.


def test_real_images_are_cropped_about_their_centre_with_their_percentile_at_one(place):
    images = RealImages([place / "training.h5", place / "held_out.h5"], (12, 13), most=11)
    assert len(images) == 11
    assert images.name(0) == "training.h5:0" and images.name(10) == "held_out.h5:16"  # 44 images, every fourth
    for number in (0, 10):
        assert float(percentile(images[number])) == pytest.approx(1) and not images[number].is_complex()
    whole = ImageStacks([place / "held_out.h5"]).image(16).real
    cropped = whole[3:15, 3:16]
    torch.testing.assert_close(images[10], cropped / percentile(cropped))


def test_images_are_named_by_their_slice_in_the_file(tmp_path):
    """ImageStacks numbers them contrast by contrast and leaves empty ones out."""
    stack = pictures(6, (9, 9), seed=0)
    stack[2] = 0
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["image"], file["contrast"] = stack, ["T1", "T2", "T2", "T1", "T2", "T1"]
    images = RealImages([tmp_path / "stack.h5"])
    names = [images.name(number) for number in range(len(images))]
    assert names == [f"stack.h5:{number}" for number in (0, 3, 5, 1, 4)]
    expected = torch.from_numpy(stack[3].astype(np.float32))
    torch.testing.assert_close(images[1], expected / percentile(expected))
    assert RealImages([tmp_path]).name(1) == f"{tmp_path.name}/0:3"


def test_samples_are_read_by_either_name_and_others_refused(place, tmp_path):
    samples = read_samples(place / "samples.h5")
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = samples.numpy()
    assert torch.equal(read_samples(tmp_path / "image.h5"), samples)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kspace"] = samples.numpy()
    with pytest.raises(InputError, match=r"has \['kspace'\]; it needs `samples`"):
        read_samples(tmp_path / "other.h5")


# ---- Features.


def test_own_features_are_the_last_deepest_activations_averaged(place):
    prior = random_prior(0)
    images = torch.stack(list(RealImages([place / "held_out.h5"], most=4)))
    kept = []
    handle = prior.network.down[-1].register_forward_hook(lambda module, given, output: kept.append(output))
    prior.denoise(images.to(torch.complex64), SIGMA)
    handle.remove()
    extractor = OwnFeatures(prior)
    torch.testing.assert_close(extract(extractor, images, 3), kept[0].mean((2, 3)))
    assert extractor.title == "Fréchet distance (own features)"
    assert not any(module._forward_hooks for module in prior.network.modules())


def test_own_features_of_another_network_come_from_its_lowest_resolution():
    torch.manual_seed(0)
    extractor = OwnFeatures(NetworkPrior(NCSNv2("large", width=4), "ncsn"))
    assert extract(extractor, torch.rand(3, 24, 16)).shape == (3, 16)


def test_a_file_sees_three_equal_channels_in_zero_to_one(place):
    extractor = load_extractor(str(place / "moments.ts"))
    constant = torch.stack([torch.full((40, 50), value) for value in (0.25, 3.0)])
    features = extract(extractor, constant, 1)
    torch.testing.assert_close(features[:, :3], torch.tensor([[0.25] * 3, [1.0] * 3]))
    torch.testing.assert_close(features[:, 3:], torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert extractor.title == "Fréchet distance (features of moments.ts)"


def test_a_file_gets_299_pixels_and_may_give_maps():
    seen = []

    def network(images):
        seen.append(images.shape)
        return images[:, :2]

    features = FileFeatures(Path("net.ts"), network)(torch.rand(2, 30, 31))
    assert seen == [(2, 3, 299, 299)] and features.shape == (2, 2)


@pytest.mark.parametrize("output", [None, torch.zeros(()), torch.zeros(3, 4)])
def test_a_file_that_gives_no_features_is_refused(output):
    with pytest.raises(InputError, match="features are one tensor"):
        FileFeatures(Path("net.ts"), lambda images: output)(torch.rand(2, 30, 31))


def test_onnx_without_its_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mri_score.sample_quality.features.find_spec", lambda name: None)
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    with pytest.raises(InputError, match=r"pip install 'mri-score\[onnx\]'"):
        load_extractor(str(tmp_path / "net.onnx"))


def test_onnx_is_asked_by_its_own_input_name(place, tmp_path, monkeypatch):
    class Session:
        def __init__(self, path, providers):
            self.path = path

        def get_inputs(self):
            return [type("Input", (), {"name": "pixels"})]

        def run(self, outputs, given):
            return [given["pixels"].mean((2, 3))]

    monkeypatch.setattr("mri_score.sample_quality.features.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    sys.modules["onnxruntime"].InferenceSession = Session
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    extractor = load_extractor(str(tmp_path / "net.onnx"))
    torch.testing.assert_close(extractor(torch.full((2, 9, 9), 0.5)), torch.full((2, 3), 0.5))


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.ts", "does not exist"), ("bad.pt", "is not TorchScript"), ("nobody", "no bundled or installed prior")],
)
def test_features_that_cannot_be_had_are_refused(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2)}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=words):
        load_extractor(name)


# ---- The command.


def test_samples_are_judged_by_the_features_of_a_file(place, tmp_path):
    output = mri_score(
        "fid", "--samples", place / "samples.h5", "--against", place / "held_out.h5", "--features",
        place / "moments.ts", "--out", tmp_path,
    )  # fmt: skip
    extractor = load_extractor(str(place / "moments.ts"))
    real = RealImages([place / "held_out.h5"])
    samples = [prepare(one, (18, 20)) for one in read_samples(place / "samples.h5")]
    fits = [Gaussian.fit(extract(extractor, images)) for images in (real, torch.stack(samples))]
    with open(tmp_path / "frechet.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["value"]) == pytest.approx(frechet_distance(*fits), rel=1e-4)
    assert (row["name"], row["samples"], row["reference"], row["features"]) == ("samples.h5", "6", "20", "6")
    assert "Fréchet distance (features of moments.ts)" in output
    assert "note: 6 samples and 20 images are few for 6 features" in output


def test_a_copy_is_found_and_named(place, tmp_path):
    output = mri_score(
        "fid", "--samples", place / "samples.h5", "--against", place / "held_out.h5", "--neighbours",
        place / "training.h5", "--features", place / "moments.ts", "--out", tmp_path,
    )  # fmt: skip
    assert "1 of 6 samples are nearer than every held-out image" in output
    with open(tmp_path / "neighbours.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[5]["nearest"] == "training.h5:7" and float(rows[5]["ratio"]) < 0.01
    assert all(float(row["ratio"]) > 0.5 for row in rows[:5])
    assert (tmp_path / "neighbours.png").read_bytes()[:4] == b"\x89PNG"


def test_training_images_are_not_held_out(place, tmp_path):
    stack = place / "training.h5"
    assert "use images of subjects that the prior was not trained on" in refused(
        "fid", "--samples", place / "samples.h5", "--against", stack, "--neighbours", stack, "--features",
        place / "moments.ts", "--out", tmp_path,
    )  # fmt: skip


def test_checkpoints_are_compared_by_their_averaged_weights(place, tmp_path):
    """The last checkpoint's averaged weights are those of prior.safetensors, whose distance must be the same."""
    common = ["--against", place / "held_out.h5", "--features", place / "moments.ts", *TINY]
    output = mri_score("fid", "--run", place / "run", *common, "--out", tmp_path / "run")
    mri_score("fid", "--prior", place / "run", *common, "--out", tmp_path / "prior")
    with open(tmp_path / "run" / "frechet.csv") as run, open(tmp_path / "prior" / "frechet.csv") as prior:
        rows, (alone,) = list(csv.DictReader(run)), csv.DictReader(prior)
    assert [row["name"] for row in rows] == ["step 10", "step 20"]
    assert float(rows[1]["value"]) == pytest.approx(float(alone["value"]), rel=1e-6)
    assert float(rows[0]["value"]) != pytest.approx(float(alone["value"]), rel=1e-3)
    least = min(rows, key=lambda row: float(row["value"]))["name"]
    assert f"best       {least}" in output
    assert (tmp_path / "run" / "frechet.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "prior" / "frechet.png").exists()


def test_own_features_are_never_called_fid(place, tmp_path):
    output = mri_score("fid", "--samples", place / "samples.h5", "--against", place / "held_out.h5", "--features",
                       place / "run", "--size", 16, "--images", 8, "--out", tmp_path)  # fmt: skip
    assert "Fréchet distance (own features)" in output and "FID" not in output
    assert "8 images of 16 x 16" in output


def test_one_source_of_samples_is_needed(place, tmp_path):
    common = ["--against", place / "held_out.h5", "--out", tmp_path]
    assert "got none" in refused("fid", *common)
    assert "got --prior and --run" in refused("fid", "--prior", "brain", "--run", place / "run", *common)


def test_a_run_without_checkpoints_says_what_to_give(place, tmp_path):
    save_prior(tmp_path / "prior.safetensors", random_prior(0), NETWORK, {})
    assert f"--prior {tmp_path}" in "".join(
        refused("fid", "--run", tmp_path, "--against", place / "held_out.h5", "--features", place / "moments.ts",
                "--out", tmp_path).splitlines()
    )  # fmt: skip


# ---- Colours, and files that FID tools exchange.


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Real RGB images as an array, samples as pictures and as a file, and statistics of the real ones."""
    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (24, 6, 8, 3), np.uint8)
    np.save(folder / "real.npy", images[:12])
    (folder / "drawn").mkdir()
    for number, image in enumerate(images[12:]):
        Image.fromarray(image // 2).save(folder / "drawn" / f"{number:02}.png")
    with h5py.File(folder / "samples.h5", "w") as file:
        file["samples"] = (images[12:] // 2).transpose(0, 3, 1, 2) / np.float32(255)
    torch.jit.save(torch.jit.script(Moments()), folder / "moments.ts")
    return folder


def test_colour_images_are_compared_as_they_are_by_files_and_by_statistics(colours, tmp_path):
    shared = ["--features", colours / "moments.ts", "--threads", 1]
    real, drawn = (torch.from_numpy(np.load(colours / "real.npy")), read_samples(colours / "drawn"))
    assert torch.equal(drawn, read_samples(colours / "samples.h5"))
    extractor = load_extractor(str(colours / "moments.ts"))
    features = [extract(extractor, one) for one in (drawn, real.movedim(-1, 1) / 255)]
    expected = frechet_distance(*map(Gaussian.fit, features))
    for name, more in {"drawn": ["--neighbours", colours / "drawn"], "samples.h5": []}.items():
        mri_score("fid", "--samples", colours / name, "--against", colours / "real.npy", *shared, "-o", tmp_path / name,
                  "--statistics", tmp_path / "real.npz", *more)  # fmt: skip
        with open(tmp_path / name / "frechet.csv") as file:
            assert float(next(csv.DictReader(file))["value"]) == pytest.approx(expected, rel=1e-5)
    with open(tmp_path / "drawn" / "neighbours.csv") as file:  # each is its own neighbour
        assert max(float(row["distance"]) for row in csv.DictReader(file)) < 1e-3
    with np.load(tmp_path / "real.npz") as found:
        assert np.allclose(found["mu"], features[1].double().mean(0))
        assert np.allclose(found["sigma"], np.cov(features[1].double().numpy().T))
    mri_score("fid", "--samples", colours / "drawn", "--against", tmp_path / "real.npz", *shared, "-o", tmp_path)
    with open(tmp_path / "frechet.csv") as file:
        row = next(csv.DictReader(file))
    assert float(row["value"]) == pytest.approx(expected, rel=1e-5) and row["reference"] == ""


def test_statistics_that_are_none_are_refused(colours, tmp_path):
    np.savez(tmp_path / "odd.npz", mu=np.zeros(6), sigma=np.zeros((5, 5)))
    np.savez(tmp_path / "objects.npz", mu=np.array([{}], dtype=object), sigma=np.zeros((1, 1)))
    given = ["fid", "--samples", colours / "drawn", "--features", colours / "moments.ts", "--against"]
    assert "finite (D,) and (D, D) are needed" in refused(*given, tmp_path / "odd.npz")
    assert "as statistics of features" in refused(*given, tmp_path / "objects.npz")
    assert "need real images" in refused(*given, tmp_path / "odd.npz", "--neighbours", colours / "real.npy")
