"""Real images, grey and RGB: every format gives the same values, the map of pixels has its density, priors train."""

from __future__ import annotations

import pickle
import struct

import h5py
import numpy as np
import pytest
import torch
from command import mri_score, refused
from PIL import Image

from mri_score.data.pixel_values import PixelValues
from mri_score.errors import InputError
from mri_score.experiment import calibrate, image_facts, make_loss, make_prior, make_source, read_config
from mri_score.noise.ncsnv2_levels import PUBLISHED_OVERLAP, level_count, level_ratio, step_size
from mri_score.noise.parameters import measure, read_parameters, write_parameters
from mri_score.numerics.noise import generators
from mri_score.priors.store import load_prior
from mri_score.sources.plain_images import PlainImages
from mri_score.training.batches import Batches


def drawn(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Coloured discs on coloured ground: (count, side, side, 3), uint8."""
    random = np.random.default_rng(seed)
    place = np.arange(side)
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        centre, radius = random.uniform(0.3, 0.7, 2) * side, random.uniform(0.15, 0.3) * side
        inside = (place[:, None] - centre[0]) ** 2 + (place - centre[1]) ** 2 < radius**2
        ground, disc = random.integers(0, 256, (2, 3))
        image[:] = np.where(inside[..., None], disc, ground)
    return images


def cifar(images: np.ndarray) -> dict:
    return {b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1).copy(), b"labels": [0] * len(images)}


def python2_cifar(images: np.ndarray) -> bytes:
    """A batch as Python 2 wrote it, in the order and with the opcodes of the published files."""
    rows = images.transpose(0, 3, 1, 2).tobytes()

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    dtype = (
        b"cnumpy\ndtype\n("
        + short(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"J" + struct.pack("<i", len(images)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + short(b"b") + b"tR"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(rows)) + rows + b"tb"
    return b"\x80\x02}q\x01(" + short(b"data") + array + state + short(b"labels") + b"](K\x00eu."


def test_every_format_gives_the_same_values(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    images = drawn(6)
    grey = images[..., 0]
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / ("more" if number > 3 else "") / f"{number}.png")
    np.save(tmp_path / "colour.npy", images)
    np.save(tmp_path / "first.npy", images.transpose(0, 3, 1, 2))
    np.save(tmp_path / "grey.npy", grey)
    with h5py.File(tmp_path / "colour.h5", "w") as file:
        file["image"] = images
    with h5py.File(tmp_path / "grey.h5", "w") as file:
        file["image"] = grey
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(grey, 0, 2).astype(np.float32), np.eye(4)), tmp_path / "grey.nii.gz")
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for number, (name, part) in enumerate({"data_batch_1": images[:4], "data_batch_2": images[4:]}.items()):
        (batches / name).write_bytes(pickle.dumps(cifar(part), protocol=2 + 2 * number))
    (batches / "test_batch").write_bytes(python2_cifar(images))

    colours = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    stored = ["colour.npy", "first.npy", "colour.h5", "cifar-10-batches-py", "cifar-10-batches-py/test_batch"]
    for name in ["pictures", *stored]:
        source = PlainImages([tmp_path / name], channels=3)
        found = torch.stack([source.image(number) for number in range(len(source))])
        if name == "pictures":  # the subfolder comes last
            assert [source.name(number) for number in range(6)] == [f"{number}.png" for number in range(6)]
        assert torch.equal(found, colours), name
    for name in ("grey.npy", "grey.h5", "grey.nii.gz"):
        source = PlainImages([tmp_path / name], scale=255)
        assert torch.equal(torch.stack([source.image(n) for n in range(6)]), colours[:, 0]), name
    assert torch.equal(PlainImages([tmp_path / "grey.npy"], channels=3).image(2), colours[2, :1].expand(3, 32, 32))
    assert float(PlainImages([tmp_path / "grey.npy"], scale="maximum").image(0).max()) == 1


@pytest.mark.parametrize(
    "content", [b"cos\nsystem\n(S'touch gone'\ntR.", b"\x80\x02}(U\x04dataK\x05u.", b"", b"\x80\x02]"]
)
def test_other_pickles_are_refused_and_run_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match="no python file of CIFAR"):
        PlainImages(["data_batch_1"], channels=3)
    assert [one.name for one in tmp_path.iterdir()] == ["data_batch_1"]


def test_size_and_crop_keep_the_centre(tmp_path):
    image = np.zeros((40, 60), np.uint8)
    image[:, 20:40] = 200
    image[:, :20] = image[:, 40:] = 100
    np.save(tmp_path / "wide.npy", image[None])
    source = PlainImages([tmp_path / "wide.npy"], size=20)  # the central 40 x 40, by two
    assert source.image(0).shape == (20, 20)
    assert torch.allclose(source.image(0)[:, [0, 3, 10, 16, 19]] * 255, torch.tensor([100.0, 100, 200, 100, 100]))
    assert torch.equal(PlainImages([tmp_path / "wide.npy"], crop=20).image(0), torch.full((20, 20), 200 / 255))
    with pytest.raises(InputError, match="lower data.crop"):
        PlainImages([tmp_path / "wide.npy"], crop=50).image(0)


def test_dequantised_values_are_uniform_within_their_step_and_flips_are_half(tmp_path):
    images = np.zeros((1, 64, 64), np.uint8)
    images[..., :32] = 7
    np.save(tmp_path / "two.npy", images)
    source = PlainImages([tmp_path / "two.npy"], flip=True, dequantisation="uniform")
    items = [source.sample(one).image[0] for one in generators(0, "test", 0, 200)]
    flipped = [bool(image[0, 0] * 256 < 7) for image in items]
    assert 70 < sum(flipped) < 130
    values = torch.stack([image.flip(-1) if turned else image for image, turned in zip(items, flipped, strict=True)])
    assert (values[..., :32] * 256).floor().unique().tolist() == [7]
    steps = 256 * values[..., 32:]
    assert float(steps.min()) >= 0 and float(steps.max()) < 1
    assert abs(float(steps.mean()) - 0.5) < 0.002 and abs(float(steps.var()) - 1 / 12) < 5e-4


@pytest.mark.parametrize("values", [PixelValues(), PixelValues(centred=True), PixelValues(logit=True)])
def test_the_map_of_pixels_is_undone_and_has_its_slope(values):
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    v = values.forward(x)
    assert torch.allclose(values.inverse(v), x, atol=1e-9)
    (slope,) = torch.autograd.grad(v.sum(), x)
    assert torch.allclose(values.log_slope(x.detach()), slope.log().flatten(1).sum(1))


def test_numbers_of_colour_images_have_a_mean_for_each_channel(tmp_path):
    images = [torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(n)) * torch.tensor([1.0, 2, 3])[:, None, None]
              for n in range(20)]  # fmt: skip
    found = measure(images)
    stack = torch.stack(images).double()
    assert found.channel_means == pytest.approx(stack.mean((0, 2, 3)).tolist(), rel=1e-5)
    distances = torch.cdist(stack.flatten(1), stack.flatten(1))
    assert found.sigma_max == pytest.approx(float(distances.max()), rel=1e-5) and found.dimension == 144
    write_parameters(tmp_path / "numbers.txt", found)
    assert read_parameters(tmp_path / "numbers.txt") == found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A few hundred drawn pictures, as an array."""
    place = tmp_path_factory.mktemp("drawn")
    np.save(place / "images.npy", drawn(300))
    return place


SMALL = {
    "cifar10_ncsnpp": {"network.width": 8, "network.blocks": 1, "network.multipliers": "[1, 1]"},
    "cifar10_ddpm": {"network.width": 8, "network.blocks": 1, "network.multipliers": "[1, 1]"},
    "cifar10_ncsnv2": {"network.width": 4},
    "celeba_ncsnv2": {"network.width": 4, "data.crop": 30},
    "bedroom_ncsnv2": {"network.width": 4},
    "cifar10_ncsn": {"network.width": 4},
    "cifar10_single_sigma": {"network.width": 4},
}
PUBLISHED = {  # sigma_max, sigma_min, levels, batch, iterations, learning rate
    "cifar10_ncsnpp": (50, 0.01, None, 128, 782_000, 2e-4),
    "cifar10_ncsnv2": (50, 0.01, 232, 128, 300_000, 1e-4),
    "celeba_ncsnv2": (90, 0.01, 500, 128, 210_000, 1e-4),
    "bedroom_ncsnv2": (190, 0.01, 1086, 128, 150_000, 1e-4),
    "cifar10_ncsn": (1, 0.01, 10, 128, 200_000, 1e-3),
    "cifar10_single_sigma": (0.01, 0.01, None, 128, 200_000, 1e-3),
}


def small(name: str, folder, *changes: str) -> dict:
    """A bundled config with a narrow network, on drawn images."""
    changed = [f"{key}={value}" for key, value in (SMALL[name] | {"data.size": 12}).items()]
    return read_config(f"{name}.yml", [f"data.paths=[{folder / 'images.npy'}]", *changed, *changes])


SLICED = [
    pytest.param(name, "sliced", marks=pytest.mark.slow)
    for name in ("cifar10_ncsnpp", "cifar10_ncsnv2", "cifar10_ncsn")
]


@pytest.mark.parametrize(("name", "loss"), [*((name, "denoising") for name in SMALL), *SLICED])
def test_the_networks_of_the_bundled_configs_learn_by_both_losses(folder, name, loss):
    changes = [] if loss == "denoising" else ["loss.name=sliced", "loss.projections=2"]
    config = small(name, folder, *changes)
    source = make_source(config)
    parameters = measure([source.sample(one).image[0] for one in generators(0, "measure", 0, 20)])
    prior, loss_of = make_prior(config, parameters), make_loss(config, parameters)
    if name in PUBLISHED:
        sigma_max, sigma_min, levels, batch, steps, rate = PUBLISHED[name]
        schedule, training = loss_of.schedule, config["training"]
        assert (schedule.sigma_max, schedule.sigma_min) == (prior.sigma_max, prior.sigma_min) == (sigma_max, sigma_min)
        assert getattr(schedule, "count", None) == levels
        assert (training["batch_size"], training["steps"], training["learning_rate"]) == (batch, steps, rate)
    batch = Batches(source, 2, seed=0)[0]
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-3)
    values = []
    for _ in range(4):  # the same batch and noise each time: the loss must fall
        value = loss_of(prior.eval(), batch, generators(0, "loss", 0, 2), 0).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    facts = image_facts(source, parameters)
    assert facts["pixels"]["channels"] == 3 and len(facts["mean"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_ncsnpp", "celeba_ncsnv2"])
def test_a_dry_run_tells_the_published_network(folder, name):
    crop = ["--set", "data.crop=null"] if name == "celeba_ncsnv2" else []
    output = mri_score("train", "--config", f"{name}.yml", "--data", folder / "images.npy", "--dry-run", *crop)
    count = {"cifar10_ncsnpp": "62,758,787", "celeba_ncsnv2": "29,694,083"}[name]
    assert f"{count} parameters" in output and "images         300" in output


def test_a_prior_of_colour_images_is_trained_and_remembers_its_pixels(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["network={name: unet, widths: [8, 16], blocks: 1, channels: 3}", "prior={precondition: edm}",
                "schedule={name: lognormal, centre: 0.3}", "loss={name: denoising}", "data.centred=true",
                "dataset=drawn", "training.steps=4", "training.batch_size=4", "training.workers=0",
                "training.save_every=4", f"validation.paths=[{folder / 'images.npy'}]", "data.size=[16, 12]",
                "validation.size=[16, 12]"]  # fmt: skip
    changes = [part for one in settings for part in ("--set", one)]
    mri_score("train", "--config", "cifar10_ncsnv2.yml", "--data", folder / "images.npy", "--out", "run", *changes)
    about = load_prior("run").about
    assert about["pixels"] == {"channels": 3, "centred": True, "logit": False, "scale": "bits", "size": [16, 12]}
    assert about["mean"] == list(read_parameters("run/parameters.txt").channel_means)
    with Image.open("run/figures/step-00000004.png") as figure:
        assert figure.mode == "RGB"
    message = refused("train", "--config", "cifar10_ncsnv2.yml", "--data", folder / "images.npy", "--out", "other",
                      *changes, "--set", "network.channels=1")  # fmt: skip
    assert "takes 1 channels, the images have 3" in message


def test_images_with_channels_are_plain_images_and_two_channels_the_complex_ones(folder):
    config = {"data": {"name": "images", "paths": [str(folder / "images.npy")], "channels": 3}}
    assert isinstance(make_source(config), PlainImages)
    with pytest.raises(InputError, match="data.channels is 4"):
        make_source({"data": {**config["data"], "channels": 4}})


@pytest.mark.parametrize("distance", ["pairwise", "phase-free"])
def test_technique_1_has_both_definitions_and_2_and_4_the_published_numbers(folder, distance):
    """The largest distance of two images, or the sum of the two largest norms; levels and step follow from it."""
    config = {"data": {"name": "plain_images", "paths": [str(folder / "images.npy")], "channels": 3},
              "calibration": {"distance": distance, "overlap": PUBLISHED_OVERLAP, "repeats": 5, "sigma_min": 0.01,
                              "count": 12}}  # fmt: skip
    source = make_source(config)
    found = calibrate(config, source)
    rows = torch.stack([source.sample(one).image.flatten() for one in generators(0, "calibrate", 0, 12)]).double()
    norms = rows.norm(dim=1).sort(descending=True).values
    expected = torch.cdist(rows, rows).max() if distance == "pairwise" else norms[0] + norms[1]
    assert found.sigma_max == pytest.approx(float(expected), rel=1e-5) and found.count == 12
    assert found.levels == level_count(found.sigma_max, 0.01, level_ratio(3072, PUBLISHED_OVERLAP))
    ratio = (found.sigma_max / 0.01) ** (1 / (found.levels - 1))
    assert found.step_size == pytest.approx(step_size(ratio, 0.01, 5), rel=1e-5)
    assert level_count(50, 0.01, level_ratio(3072, PUBLISHED_OVERLAP)) == 232  # CIFAR-10's published ladder
    with pytest.raises(InputError, match="calibration.distance"):
        calibrate({**config, "calibration": {"distance": "longest"}}, source)
