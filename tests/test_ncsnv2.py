"""NCSNv2: the published function and its size, any image size, and derivatives of both orders."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, elu, max_pool2d

from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.networks.layers import ChainedPooling, InstanceNormPlus, ResidualBlock
from mri_score.networks.ncsnv2 import STAGES, NCSNv2, rename_published

COUNTS = {  # depth, width, channels: published trainable parameters
    ("low", 16, 2): 466_162,
    ("low", 32, 2): 1_859_554,
    ("low", 64, 2): 7_428_034,
    ("low", 128, 1): 29_689_473,
    ("low", 128, 2): 29_691_778,
    ("low", 128, 3): 29_694_083,
    ("medium", 16, 2): 1_307_314,
    ("medium", 32, 2): 5_221_218,
    ("medium", 64, 2): 20_868_802,
    ("medium", 128, 1): 83_440_769,
    ("medium", 128, 2): 83_443_074,
    ("medium", 128, 3): 83_445_379,
    ("large", 16, 2): 1_474_834,
    ("large", 32, 2): 5_890_082,
    ("large", 64, 2): 23_541_826,
    ("large", 128, 1): 94_128_001,
    ("large", 128, 2): 94_130_306,
    ("large", 128, 3): 94_132_611,
}


def double(module: torch.nn.Module) -> torch.nn.Module:
    """The module in float64, with biases and norms away from the values at which a slip would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


@pytest.mark.parametrize("key", COUNTS)
def test_parameter_counts_are_the_published_ones(key):
    with torch.device("meta"):
        network = NCSNv2(*key)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == COUNTS[key]


@pytest.mark.parametrize(
    ("file", "depth", "outputs"),
    [
        ("ncsnv2_low.pth", "low", ("score", "score_ema")),
        ("ncsnv2_large.pth", "large", ("score", "score_ema")),
        ("score_diffusion_training_medium.pt", "medium", ("score_ema",)),  # holds the averaged weights twice
    ],
)
def test_published_weights_give_the_published_score(shared, file, depth, outputs):
    folder = shared / "fixtures/checkpoints"
    with torch.serialization.safe_globals([(OrderedDict, "dotmap.DotMap")]):
        saved = torch.load(folder / file, weights_only=True)
    raw, averaged = (saved[0], saved[4]) if isinstance(saved, list) else (saved["model_state"], saved["ema_state"])
    known = torch.load(folder / f"{file.split('.')[0]}_io.pt", weights_only=True)
    states = {"score": raw, "score_ema": averaged}
    network = NCSNv2(depth, width=8, published_input=True)
    for output in outputs:
        network.load_state_dict(rename_published(states[output], depth))
        with torch.no_grad():
            score = network(known["x"], known["sigma"].log()) / known["sigma"].view(-1, 1, 1, 1)
        for item, expected in zip(score, known[output], strict=True):
            torch.testing.assert_close(item, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_names_of_another_depth_are_refused():
    with pytest.raises(InputError, match="refine31.*another depth"):
        rename_published({"module.refine31.crp.convs.0.weight": torch.zeros(1)}, "medium")


def test_published_names_are_renamed_by_rule():
    published = ["module.sigmas", "module.res31.0.conv2.conv.weight", "refine31.output_convs.1_2_conv.weight"]
    renamed = rename_published({name: torch.zeros(1) for name in published}, "large")
    assert list(renamed) == ["stages.3.0.conv2.weight", "refine.2.output_convs.convs.1.weight"]
    assert set(renamed) < set(NCSNv2("large", width=2).state_dict())


@pytest.mark.parametrize("depth", STAGES)
@pytest.mark.parametrize("size", [(37, 45), (9, 16), (24, 33)])
def test_any_size_is_the_reflected_image_cropped(depth, size):
    network = double(NCSNv2(depth, width=4))
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    need = [-side % network.divisor for side in size]
    around = [(n // 2, n - n // 2) for n in need]
    reflected = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), *around], mode="reflect"))
    top, left = around[0][0], around[1][0]
    with torch.no_grad():
        expected = network(reflected, torch.zeros(2))[..., top : top + size[0], left : left + size[1]]
        torch.testing.assert_close(network(x, torch.zeros(2)), expected)


def test_the_smallest_image_of_the_deepest_network_is_finite_and_smaller_ones_are_refused():
    network = NCSNv2("large", width=2)
    assert torch.isfinite(network(torch.randn(1, 2, 8, 8), torch.zeros(1))).all()
    with pytest.raises(InputError, match="7 x 9 .* sides of 8"):
        network(torch.randn(1, 2, 7, 9), torch.zeros(1))


def test_unknown_depth_and_extra_input_are_refused():
    with pytest.raises(InputError, match="'deep'; known names: large, low, medium"):
        NCSNv2("deep")
    with pytest.raises(ValueError, match="no extra input"):
        NCSNv2("low", width=2)(torch.zeros(1, 2, 8, 8), torch.zeros(1), torch.zeros(1, 1, 8, 8))


def test_published_input_is_two_x_minus_one():
    plain = double(NCSNv2("low", width=4))
    published = double(NCSNv2("low", width=4, published_input=True))
    published.load_state_dict(plain.state_dict())
    x = torch.randn(1, 2, 13, 10, dtype=torch.float64)
    torch.testing.assert_close(published(x, torch.zeros(1)), plain(2 * x - 1, torch.zeros(1)))


def test_an_item_does_not_depend_on_its_batch_mates():
    network = double(NCSNv2("medium", width=4))
    x = torch.randn(3, 2, 15, 20, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x, torch.zeros(3))[1:2], network(x[1:2], torch.zeros(1)))


def test_the_ncsn_row_divides_the_output_by_sigma():
    network = double(NCSNv2("low", width=4))
    x = torch.randn(2, 11, 12, dtype=torch.complex128)
    sigma = torch.tensor([0.05, 30.0], dtype=torch.float64)
    score = torch.view_as_real(NetworkPrior(network, "ncsn").score(x, sigma)).movedim(-1, 1)
    output = network(torch.view_as_real(x).movedim(-1, 1), sigma.log())
    torch.testing.assert_close(score, output / sigma.view(-1, 1, 1, 1))


def direction_derivative(function, at, direction, h=1e-6):
    return (function(at + h * direction) - function(at - h * direction)) / (2 * h)


@pytest.mark.parametrize("depth", STAGES)
def test_derivatives_of_both_orders_agree_with_differences(depth):
    """What in-place activations would break."""
    network = double(NCSNv2(depth, width=4))
    x, u, v = torch.randn(3, 1, 2, 13, 18, dtype=torch.float64)

    def value(x):
        return (network(x, torch.zeros(1)) ** 2).mean()

    def slope(x):
        x = x.detach().requires_grad_()
        return (torch.autograd.grad(value(x), x, create_graph=True)[0] * u).sum()

    with torch.no_grad():
        difference = direction_derivative(value, x, u)
    torch.testing.assert_close(slope(x), difference, rtol=1e-5, atol=1e-10)
    leaf = x.clone().requires_grad_()
    first = torch.autograd.grad(value(leaf), leaf, create_graph=True)[0]
    second = (torch.autograd.grad((first * u).sum(), leaf)[0] * v).sum()
    torch.testing.assert_close(second, direction_derivative(slope, x, v).detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("depth", STAGES)
def test_every_parameter_learns(depth):
    network = double(NCSNv2(depth, width=4))
    network(torch.randn(2, 2, 32, 40, dtype=torch.float64), torch.zeros(2)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def plain_instance_norm(x, alpha, gamma, beta):
    """The formula, channel by channel."""
    out = np.empty_like(x)
    for item, image in enumerate(x):
        means = image.mean((1, 2))
        spread = means.var(ddof=1) if len(means) > 1 else 0.0
        for c, channel in enumerate(image):
            h = (channel - means[c]) / np.sqrt(channel.var() + 1e-5)
            t = (means[c] - means.mean()) / np.sqrt(spread + 1e-5)
            out[item, c] = gamma[c] * (h + alpha[c] * t) + beta[c]
    return out


@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (3, 1, 4, 5), (2, 3, 1, 1)])
def test_instance_norm_plus_is_its_formula(shape):
    norm = double(InstanceNormPlus(shape[1]))
    x = 3 + 2 * torch.randn(shape, dtype=torch.float64)
    numbers = [p.detach().numpy() for p in (norm.alpha, norm.gamma, norm.beta)]
    np.testing.assert_allclose(norm(x).detach().numpy(), plain_instance_norm(x.numpy(), *numbers), rtol=1e-10)


def test_instance_norm_plus_keeps_its_digits_on_a_large_mean():
    norm = InstanceNormPlus(4)
    x = 300 + torch.randn(1, 4, 31, 30)
    exact = InstanceNormPlus(4).double()
    exact.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x).double(), exact(x.double()), rtol=0, atol=2e-3)


def test_a_halving_block_is_its_formula():
    block = double(ResidualBlock(3, 5, enter=True, halve=True))
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    h = block.conv1(elu(block.normalize1(x)))
    h = avg_pool2d(block.conv2(elu(block.normalize2(h))), 2)
    torch.testing.assert_close(block(x), h + avg_pool2d(block.shortcut(x), 2))


def test_chained_pooling_is_its_formula():
    crp = double(ChainedPooling(3))
    first, second = (layer.weight for layer in crp.convs)
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    a = elu(x)
    b = conv2d(max_pool2d(a, 5, 1, 2), first, padding=1)
    c = conv2d(max_pool2d(b, 5, 1, 2), second, padding=1)
    torch.testing.assert_close(crp(x), a + b + c)
