"""NCSN: the published function and its size, its ladder of noise levels, any image size, and derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, elu

from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.networks.layers import InstanceNormPlus
from mri_score.networks.ncsn import NCSN, ChainedPooling, ConditionalNorm, ResidualConvolutions, from_published

COUNTS = {(10, 64, 1): 7_638_657, (10, 128, 3): 30_117_635}
"""Levels, width, channels: published trainable parameters."""


def double(module: torch.nn.Module) -> torch.nn.Module:
    """The module in float64, with biases and norms away from the values at which a slip would not show."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1 or "embed" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


@pytest.fixture
def network() -> NCSN:
    return double(NCSN(levels=5, width=4))


@pytest.mark.parametrize("key", COUNTS)
def test_parameter_counts_are_the_published_ones(key):
    levels, width, channels = key
    network = NCSN(levels, width=width, channels=channels)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == COUNTS[key]


def test_published_weights_give_the_published_score(shared):
    folder = shared / "fixtures/checkpoints"
    saved = torch.load(folder / "ncsn.pth", weights_only=True)
    known = torch.load(folder / "ncsn_io.pt", weights_only=True)
    arguments, weights = from_published({key.removeprefix("module."): value for key, value in saved[0].items()})
    assert arguments.pop("name") == "ncsn"
    network = NCSN(**arguments)
    network.load_state_dict({"sigmas": network.sigmas, **weights})
    with torch.no_grad():
        score = network(known["x"], network.sigmas[known["label"]].log())
    for item, expected in zip(score, known["score"], strict=True):
        torch.testing.assert_close(item, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_ladder_is_geometric_and_the_nearest_level_in_the_logarithm_is_taken():
    network = NCSN(levels=3, sigma_max=4.0, sigma_min=0.25, width=2)
    torch.testing.assert_close(network.sigmas, torch.tensor([4.0, 1.0, 0.25]))
    between = torch.tensor([90.0, 2.1, 1.9, 1.0, 0.51, 0.49, 1e-3])  # in the middle of levels: 2 and 0.5
    assert network.label(between.log()).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_a_loaded_ladder_replaces_its_own(network):
    ladder = torch.tensor([9.0, 5.0, 3.0, 2.0, 0.1])
    network.load_state_dict({**network.state_dict(), "sigmas": ladder})
    assert network.label(torch.tensor([4.5]).log()).tolist() == [1]


def test_a_conditional_norm_is_the_norm_with_the_row_of_its_label():
    norm = double(ConditionalNorm(4, levels=3))
    x, label = torch.randn(3, 4, 7, 6, dtype=torch.float64), torch.tensor([2, 0, 2])
    for item, image, result in zip(label, x, norm(x, label), strict=True):
        plain = InstanceNormPlus(4).double()
        row = norm.embed.weight[item]
        plain.load_state_dict({"gamma": row[:4], "alpha": row[4:8], "beta": row[8:]})
        torch.testing.assert_close(result, plain(image[None])[0])


def test_chained_pooling_is_its_formula():
    crp, label = double(ChainedPooling(3, levels=2)), torch.tensor([1, 0])
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    a = elu(x)
    b = conv2d(avg_pool2d(crp.norms[0](a, label), 5, 1, 2), crp.convs[0].weight, padding=1)
    c = conv2d(avg_pool2d(crp.norms[1](b, label), 5, 1, 2), crp.convs[1].weight, padding=1)
    torch.testing.assert_close(crp(x, label), a + b + c)


def test_residual_convolutions_are_their_formula():
    rcu, label = double(ResidualConvolutions(3, 2, levels=2)), torch.tensor([0, 1])
    x = expected = torch.randn(2, 3, 8, 5, dtype=torch.float64)
    for first in (0, 2):
        h = expected
        for number in (first, first + 1):
            h = conv2d(elu(rcu.norms[number](h, label)), rcu.convs[number].weight, padding=1)
        expected = expected + h
    torch.testing.assert_close(rcu(x, label), expected)


@pytest.mark.parametrize("size", [(37, 45), (9, 16), (24, 33)])
def test_any_size_is_the_reflected_image_cropped(network, size):
    x, c_noise = torch.randn(2, 2, *size, dtype=torch.float64), torch.zeros(2)
    around = [(0, 0), (0, 0), (0, size[0] % 2), (0, size[1] % 2)]
    reflected = torch.from_numpy(np.pad(x.numpy(), around, mode="reflect"))
    with torch.no_grad():
        torch.testing.assert_close(network(x, c_noise), network(reflected, c_noise)[..., : size[0], : size[1]])


def test_an_item_depends_on_its_own_level_and_not_on_its_batch_mates(network):
    x, c_noise = torch.randn(3, 2, 15, 20, dtype=torch.float64), torch.tensor([0.0, -2.0, -4.6])
    with torch.no_grad():
        together = network(x, c_noise)
        torch.testing.assert_close(together[1:2], network(x[1:2], c_noise[1:2]))
        assert not torch.allclose(together[1:2], network(x[1:2], c_noise[:1]), rtol=1e-2)


def test_published_input_is_two_x_minus_one(network):
    published = NCSN(levels=5, width=4, published_input=True).double()
    published.load_state_dict(network.state_dict())
    x = torch.randn(1, 2, 13, 10, dtype=torch.float64)
    torch.testing.assert_close(published(x, torch.zeros(1)), network(2 * x - 1, torch.zeros(1)))


def test_the_score_row_takes_the_output_as_score(network):
    x, sigma = torch.randn(2, 11, 12, dtype=torch.complex128), torch.tensor([0.02, 0.9], dtype=torch.float64)
    score = torch.view_as_real(NetworkPrior(network, "score").score(x, sigma)).movedim(-1, 1)
    torch.testing.assert_close(score, network(torch.view_as_real(x).movedim(-1, 1), sigma.log()))


def test_every_parameter_learns_and_derivatives_agree_with_differences():
    """What in-place activations would break."""
    network = double(NCSN(levels=1, width=4))
    x, u = torch.randn(2, 1, 2, 13, 18, dtype=torch.float64)

    def value(x):
        return (network(x, torch.zeros(1)) ** 2).mean()

    leaf = x.clone().requires_grad_()
    value(leaf).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        difference = (value(x + 1e-6 * u) - value(x - 1e-6 * u)) / 2e-6
    torch.testing.assert_close((leaf.grad * u).sum(), difference, rtol=1e-5, atol=1e-10)


def test_small_images_and_extra_input_are_refused(network):
    with pytest.raises(InputError, match="1 x 9 .* sides of 2"):
        network(torch.randn(1, 2, 1, 9, dtype=torch.float64), torch.zeros(1))
    with pytest.raises(ValueError, match="no extra input"):
        network(torch.zeros(1, 2, 8, 8), torch.zeros(1), torch.zeros(1, 1, 8, 8))
