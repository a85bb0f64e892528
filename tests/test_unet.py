"""The compact U-Net: any size, strictly local, silent when new."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mri_score.networks.unet import Block, NoiseEmbedding, UNet

SMALL = {"widths": (6, 8), "blocks": 1, "embedding": 8}  # divisor 4
SIZES = [(1, 1), (4, 4), (7, 9), (13, 6), (16, 11)]


def awake(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with no weight at zero, in double precision."""
    random = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=torch.float64) / fan**0.5
    return net.double().requires_grad_(False)


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(count: int) -> Tensor:
    return torch.linspace(-1, 1, count, dtype=torch.float64)


def reach(net: UNet, blocks: int) -> int:
    """Pixels that an output can be away from an input it sees, at most."""
    resolutions = len(net.down)
    convs = [4 * blocks] * (resolutions - 1) + [2 * blocks]  # of 3x3, down and up, at each resolution
    total = 2 + sum(count * 2**level for level, count in enumerate(convs)) + 2**resolutions
    return net.unshuffle * total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_new_network_is_silent_at_any_size(size, channels):
    x = torch.randn(2, channels, *size)
    assert torch.equal(UNet(**SMALL, channels=channels)(x, torch.zeros(2)), torch.zeros_like(x))


@pytest.mark.parametrize("size", SIZES)
def test_an_odd_image_is_its_padded_image_cropped(size):
    net, x = awake(UNet(**SMALL)), image(2, 2, *size)
    height, width = size
    padded = torch.zeros(2, 2, -(-height // net.divisor) * net.divisor, -(-width // net.divisor) * net.divisor).double()
    padded[..., :height, :width] = x
    expected = net(padded, levels(2))[..., :height, :width]
    assert torch.allclose(net(x, levels(2)), expected, rtol=1e-12) and expected.abs().max() > 0.1


@pytest.mark.parametrize(("widths", "unshuffle", "divisor"), [((4,), 1, 1), ((4,), 2, 2), ((4, 4, 4), 2, 8)])
def test_the_divisor_is_the_coarsest_pixel(widths, unshuffle, divisor):
    assert UNet(widths, blocks=1, unshuffle=unshuffle, embedding=4).divisor == divisor


def test_what_is_far_does_not_count_at_all():
    """No statistic of the whole image: a change beyond the receptive field leaves a pixel to the last bit."""
    net = awake(UNet(**SMALL))
    far = reach(net, 1)
    x = image(1, 2, 12, far + 40)
    changed = x.clone()
    changed[..., -4:] += 100
    one, other = net(x, levels(1)), net(changed, levels(1))
    edge = x.shape[-1] - 4 - far
    assert torch.equal(one[..., :edge], other[..., :edge])
    assert not torch.allclose(one[..., -12:-4], other[..., -12:-4])  # while near pixels do see it


def test_the_receptive_field_is_as_large_as_the_formula_says_at_most():
    net = awake(UNet(**SMALL))
    x = image(1, 2, 4, 400).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, levels(1))[0, 0, 0, 200], x)
    seen = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
    assert 200 - reach(net, 1) <= seen.min() < 190 and 210 < seen.max() <= 200 + reach(net, 1)


def test_shifts_by_the_divisor_commute_inside():
    net, x = awake(UNet(**SMALL)), image(1, 2, 144, 140)
    far, d = reach(net, 1), net.divisor
    still, moved = net(x, levels(1)), net(torch.roll(x, (d, 2 * d), (-2, -1)), levels(1))
    inside = (slice(far + 2 * d, -far - 2 * d),) * 2
    expected = torch.roll(still, (d, 2 * d), (-2, -1))[..., inside[0], inside[1]]
    assert expected.numel() > 0
    assert torch.allclose(moved[..., inside[0], inside[1]], expected, rtol=1e-10)


@pytest.mark.parametrize("corner", [(0, 0), (8, 16), (12, 20)])
def test_a_patch_inside_is_the_full_image_there(corner):
    """What is learned on patches holds on full images, farther than the receptive field from the patch's border."""
    net, x = awake(UNet(**SMALL)), image(2, 2, 121, 137)
    far, (top, left), side = reach(net, 1), corner, 108
    patch = net(x[..., top : top + side, left : left + side], levels(2))
    full = net(x, levels(2))[..., top : top + side, left : left + side]
    assert torch.allclose(patch[..., far:-far, far:-far], full[..., far:-far, far:-far], rtol=1e-10)
    assert patch[..., far:-far, far:-far].numel() > 0
    assert top == 0 or not torch.allclose(patch[..., :4, :], full[..., :4, :])  # the border does differ


def test_items_do_not_see_each_other():
    net, x = awake(UNet(**SMALL)), image(3, 2, 9, 10)
    together = net(x, levels(3))
    for i in range(3):
        assert torch.allclose(net(x[i : i + 1], levels(3)[i : i + 1]), together[i : i + 1], rtol=1e-12)


def test_the_noise_level_matters():
    net, x = awake(UNet(**SMALL)), image(1, 2, 8, 8)
    quiet, loud = net(x, levels(2)[:1]), net(x, levels(2)[1:])
    assert float((quiet - loud).norm() / quiet.norm()) > 0.01


def test_a_block_is_its_formula():
    """x + conv(act(conv(gain * act(x) + shift))), gain and shift affine in the embedding."""
    block, x, embedding = awake(Block(3, 5)), image(2, 3, 6, 7), image(2, 5, seed=1)
    scale, shift = (embedding @ block.modulation.weight.T + block.modulation.bias).reshape(2, 2, 3, 1, 1).unbind(1)
    h = block.first(x * x.sigmoid() * (1 + scale) + shift)
    assert torch.allclose(block(x, embedding), x + block.second(h * h.sigmoid()))


def test_skips_carry_the_fine_resolution():
    """With nothing coming up from the coarse one, the image still gets through."""
    net, x = awake(UNet(**SMALL)), image(1, 2, 8, 8)
    for parameter in net.grow.parameters():
        parameter.zero_()
    assert not torch.allclose(net(x, levels(1)), net(0 * x, levels(1)), atol=0.1)


def test_gradients_reach_every_parameter():
    net = awake(UNet(widths=(4, 6, 8), blocks=2, embedding=8)).requires_grad_()
    net(image(2, 2, 11, 13), levels(2)).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert not silent


def test_a_new_network_wakes_up():
    """Its zeros do not lock it: the last layer learns at once, and the others one after the other."""
    torch.manual_seed(0)
    net = UNet(**SMALL)
    x = torch.randn(2, 2, 8, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, torch.zeros(2)) - x).square().sum().backward()
        optimizer.step()
    assert all(bool(p.grad.abs().max() > 0) for p in net.parameters())


def test_embeddings_do_not_depend_on_the_seed():
    """Its frequencies are fixed, and of unit variance as features."""
    torch.manual_seed(1)
    one = NoiseEmbedding(64)
    torch.manual_seed(2)
    other = NoiseEmbedding(64)
    assert torch.equal(one.frequencies, other.frequencies) and torch.equal(one.phases, other.phases)
    waves = 2**0.5 * torch.cos(torch.linspace(-3, 3, 1000)[:, None] * one.frequencies + one.phases)
    assert float(waves.square().mean()) == pytest.approx(1, abs=0.05)


def test_refuses_an_extra_input():
    with pytest.raises(ValueError, match="no extra input"):
        UNet(**SMALL)(torch.zeros(1, 2, 4, 4), torch.zeros(1), torch.zeros(1))
