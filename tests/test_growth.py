"""Growing a U-Net: a larger one starts as the smaller one's function, and what it adds can learn."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mri_score import experiment
from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.networks.unet import Attention, UNet, place_of
from mri_score.priors.store import build_prior, load_prior, save_prior

OLD = {"name": "unet", "widths": (6, 8), "blocks": 1, "embedding": 8}
LARGER = {
    "a level": {"widths": (6, 8, 8)},
    "two levels": {"widths": (6, 8, 4, 10)},
    "blocks": {"blocks": 3},
    "position": {"position": True},
    "attention": {"attention": True},
    "everything": {"widths": (6, 8, 10), "blocks": 2, "position": True, "attention": True},
}


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """No weight at zero."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype) / fan**0.5
    return module


def new_prior(seed: int = 1, **changes) -> NetworkPrior:
    """As training makes it, with the weights of a run of that seed."""
    torch.manual_seed(seed)
    return build_prior({**OLD, **changes}, sd=0.4)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """The file of a trained prior."""
    prior = random_weights(new_prior()).eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("old") / "prior.safetensors"
    save_prior(path, prior, {**OLD, "widths": list(OLD["widths"])}, {})
    return path


def grown(path, **changes) -> NetworkPrior:
    prior = new_prior(**changes)
    experiment._start_from(prior, path)
    return prior


def noisy(*size: int) -> Tensor:
    return torch.randn(2, *size, generator=torch.Generator().manual_seed(5), dtype=torch.complex64)


SIGMA = torch.tensor([0.05, 2.0])


# Growing.


@pytest.mark.parametrize("changes", LARGER.values(), ids=LARGER)
def test_a_grown_denoiser_is_the_old_one(old, changes):
    before, after = load_prior(old), grown(old, **changes)
    x = noisy(32, 48)  # the divisor of four levels divides it
    expected = before.denoise(x, SIGMA)
    assert torch.allclose(after.denoise(x, SIGMA), expected, rtol=1e-5, atol=1e-6)
    assert float((expected - x).abs().max()) > 0.1
    added = sum(p.numel() for p in after.parameters()) - sum(p.numel() for p in before.parameters())
    assert added > 0


def test_at_other_sizes_they_differ_near_the_padded_border_only(old):
    """The larger divisor pads 27 columns to 32 and not to 28."""
    x = noisy(8, 123)
    before, after = load_prior(old).denoise(x, SIGMA), grown(old, widths=(6, 8, 8)).denoise(x, SIGMA)
    assert torch.allclose(after[..., :60], before[..., :60], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after[..., -4:], before[..., -4:], rtol=1e-3)


@pytest.mark.parametrize("changes", LARGER.values(), ids=LARGER)
def test_what_is_added_learns(old, changes):
    """Its zeros do not lock it: after a few steps every new parameter has a gradient."""
    prior = grown(old, **changes)
    x, optimizer = noisy(16, 16), torch.optim.Adam(prior.parameters(), lr=1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        prior.denoise(x, SIGMA).abs().square().sum().backward()
        optimizer.step()
    assert not [name for name, p in prior.named_parameters() if not bool(p.grad.abs().max() > 0)]


def test_the_same_network_keeps_its_weights(old):
    weights = load_prior(old).network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in grown(old).network.state_dict().items())


def test_a_run_grows_its_network_and_can_be_grown_from(old, tmp_path):
    """From the config to prior.safetensors, which `--from` takes again."""
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["image"] = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    config = {
        "dataset": "grown",
        "data": {"name": "images", "paths": [str(tmp_path / "images.h5")], "augment": False},
        "network": {**OLD, "widths": [6, 8, 8], "position": True},
        "training": {"steps": 1, "batch_size": 2, "workers": 0, "learning_rate": 1e-12},
    }
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "parameters.txt").write_text("sd 0.4\nsigma_min 0.01\nsigma_max 10\n")
    experiment.run(config, folder, start=old, device="cpu", quiet=True)
    x = noisy(16, 16)
    torch.testing.assert_close(load_prior(folder).denoise(x, SIGMA), load_prior(old).denoise(x, SIGMA))
    assert grown(folder, widths=(6, 8, 8, 8), position=True).network.divisor == 16


# What is refused.


@pytest.mark.parametrize(
    "changes", [{"widths": (6, 10, 8)}, {"widths": (6,)}, {"embedding": 10}, {"unshuffle": 1}, {"channels": 1}]
)
def test_another_network_is_refused(old, changes):
    with pytest.raises(InputError, match="prior.safetensors: its network is not the one of the config, nor one"):
        grown(old, **changes)


def test_attention_of_another_level_is_refused(tmp_path, old):
    """At the new coarsest level the same weights would be another function."""
    path = tmp_path / "prior.safetensors"
    save_prior(path, new_prior(attention=True), {**OLD, "attention": True}, {})
    with pytest.raises(InputError, match=r"it has no place for attention\.1"):
        grown(path, widths=(6, 8, 8), attention=True)


def test_a_network_of_another_kind_is_refused(old):
    prior = build_prior({"name": "ncsnv2", "width": 4}, sd=0.4)
    with pytest.raises(InputError, match="its network is not the one of the config"):
        experiment._start_from(prior, old)


@pytest.mark.parametrize("section", ["data", "validation"])
@pytest.mark.parametrize("key", ["patch", "band"])
def test_position_wants_whole_images(section, key):
    config = {"network": {**OLD, "position": True}, section: {"name": "images", key: 64}}
    parameters = experiment.Parameters(sd=0.4, sigma_min=0.01, sigma_max=10.0)
    with pytest.raises(InputError, match=rf"network.position needs whole images, but {section}.{key} cuts"):
        experiment.make_prior(config, parameters)


# Position and attention.


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 9), (5, 2)])
@pytest.mark.parametrize("spacing", [1, 2])
def test_places_have_one_unit_and_their_zero_at_the_centre(height, width, spacing):
    """The mean over the original pixels of a coarse one, by numpy; those outside count as if they were there."""
    rows, columns = -(-height // spacing), -(-width // spacing)
    half = max(height, width) / 2
    y, x = ((np.arange(n * spacing) + 0.5 - side / 2) / half for n, side in ((rows, height), (columns, width)))
    y, x = (axis.reshape(-1, spacing).mean(1) for axis in (y, x))
    expected = np.broadcast_to(y[:, None], (rows, columns)), np.broadcast_to(x, (rows, columns))
    place = place_of(height, width, spacing).numpy()
    np.testing.assert_allclose(place[:2], expected, atol=1e-6)
    for start, f in ((2, 1), (6, 2)):
        waves = [turn(np.pi * f * axis) for turn in (np.sin, np.cos) for axis in expected]
        np.testing.assert_allclose(place[start : start + 4], waves, atol=1e-5)
    assert len(place) == 10


def test_position_tells_equal_surroundings_apart():
    """Far from every border a flat image gives a flat output, unless the network knows where it is."""
    x, level = torch.ones(1, 2, 200, 200), torch.zeros(1)
    for position, spread in ((False, 0.0), (True, 0.01)):
        net = random_weights(UNet((4, 4), blocks=1, embedding=8, position=position)).requires_grad_(False)
        middle = net(x, level)[..., 60:140:4, 60:140:4]  # one of the pixels that enter together
        found = float((middle - middle.mean((-2, -1), keepdim=True)).abs().max())
        assert found == pytest.approx(0, abs=1e-5) if not spread else found > spread


def test_position_of_an_odd_image_is_that_of_its_size():
    """Padding adds no place: with the weights of place alone, 7 columns see what `place_of` says of 7."""
    net = random_weights(UNet((4,), blocks=0, unshuffle=1, embedding=4, position=True)).requires_grad_(False)
    shown = net(torch.zeros(1, 2, 5, 7), torch.zeros(1))
    expected = net.leave(net.enter(torch.zeros(1, 2, 5, 7)) + net.place(place_of(5, 7, 1)[None]))
    torch.testing.assert_close(shown, expected)


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_attention_is_torchs_own(size):
    """torch.nn.MultiheadAttention of one head, with q and k normed before."""
    layer = random_weights(Attention(6)).double().requires_grad_(False)
    x = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = x.flatten(2).transpose(1, 2)
    q, k, v = (pixels @ part.T for part in layer.enter.weight.chunk(3))
    q, k = (part / part.square().mean(-1, keepdim=True).sqrt() for part in (q, k))
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, v) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x), x + seen.transpose(1, 2).reshape(x.shape), rtol=1e-5, atol=1e-6)


def test_attention_sees_the_whole_image():
    net = random_weights(UNet((4, 4), blocks=1, embedding=8, attention=True)).requires_grad_(False)
    x = torch.randn(1, 2, 8, 240, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[..., -4:] += 10
    level = torch.zeros(1)
    assert not torch.allclose(net(x, level)[..., :4], net(changed, level)[..., :4], atol=1e-4)
    net.attention = nn.ModuleDict()
    assert torch.equal(net(x, level)[..., :4], net(changed, level)[..., :4])


def test_attention_can_be_derived_twice():
    """Sliced score matching and posteriors with a Jacobian need it."""
    layer, x = random_weights(Attention(3)).double(), torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)


def test_networks_without_the_new_parts_have_the_old_names():
    """So that files of before fit: the same seed makes the same weights too."""
    torch.manual_seed(0)
    plain = UNet((6, 8), blocks=1, embedding=8)
    torch.manual_seed(0)
    full = UNet((6, 8), blocks=1, embedding=8, position=True, attention=True).state_dict()
    assert all(torch.equal(value, full[name]) for name, value in plain.state_dict().items())
    assert {name.split(".")[0] for name in full.keys() - plain.state_dict().keys()} == {"place", "attention"}
