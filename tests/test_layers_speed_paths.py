"""What makes the networks fast or small equals their plain form: values and derivatives of both orders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, elu, max_pool2d

from mri_score.networks.layers import ChainedPooling, InstanceNormPlus, ResidualBlock, channels_last
from mri_score.networks.ncsn import NCSN
from mri_score.networks.ncsnv2 import NCSNv2
from mri_score.networks.unet import UNet

SHAPES = [(1, 5, 9, 8), (3, 4, 7, 6), (2, 1, 5, 4), (2, 3, 1, 1)]
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def double(module: nn.Module) -> nn.Module:
    """The module in float64, no parameter at a value at which a slip would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.double()


def plain_norm(norm: InstanceNormPlus, x: Tensor) -> Tensor:
    """InstanceNorm++ pass by pass."""
    means = x.mean((2, 3), keepdim=True)
    spread = means.var(1, keepdim=True, correction=int(x.shape[1] > 1))
    t = (means - means.mean(1, keepdim=True)) / torch.sqrt(spread + 1e-5)
    h = (x - means) / torch.sqrt(x.var((2, 3), keepdim=True, correction=0) + 1e-5)
    alpha, gamma, beta = (parameter[:, None, None] for parameter in (norm.alpha, norm.gamma, norm.beta))
    return gamma * (h + alpha * t) + beta


def plain_block(block: ResidualBlock, x: Tensor) -> Tensor:
    h = block.conv1(elu(plain_norm(block.normalize1, x)))
    h = block.conv2(elu(plain_norm(block.normalize2, h)))
    return block.shortcut(x) + h if not block.halve else avg_pool2d(h, 2) + avg_pool2d(block.shortcut(x), 2)


def plain_pooling(crp: ChainedPooling, x: Tensor) -> Tensor:
    a = elu(x)
    b = conv2d(max_pool2d(a, 5, 1, 2), crp.convs[0].weight, padding=1)
    return a + b + conv2d(max_pool2d(b, 5, 1, 2), crp.convs[1].weight, padding=1)


def derivatives(function, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Value, gradient by x and parameters, and gradient of a product with the gradient by x, as sliced losses need."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    value = function(x)
    weight = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    (slope,) = torch.autograd.grad((value.square() * weight).sum(), x, create_graph=True)
    second = torch.autograd.grad((slope * weight.flatten()[0] + slope.square()).sum(), [x, *parameters])
    first = torch.autograd.grad((function(x) * weight).sum(), [x, *parameters])
    return [value, slope, *first, *second]


def assert_same(ours, plain, module: nn.Module, x: Tensor) -> None:
    parameters = list(module.parameters())
    for one, other in zip(derivatives(ours, x, parameters), derivatives(plain, x, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8 * max(1.0, float(other.detach().abs().max())))


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_is_the_plain_one_to_the_second_derivative(shape, memory):
    norm, x = double(InstanceNormPlus(shape[1])), torch.randn(shape, dtype=torch.float64)
    assert_same(norm, lambda x: plain_norm(norm, x), norm, (2 + 3 * x).contiguous(memory_format=memory))


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("batch", [1, 3])
def test_single_precision_keeps_the_digits_of_a_large_mean(batch, memory):
    norm = InstanceNormPlus(4)
    x = 300 + torch.randn(batch, 4, 31, 30)
    exact_norm = InstanceNormPlus(4).double()
    exact_norm.load_state_dict(norm.state_dict())
    exact = plain_norm(exact_norm, x.double())
    torch.testing.assert_close(norm(x.contiguous(memory_format=memory)).double(), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("memory", FORMATS)
def test_half_precision_is_the_norm_of_the_rounded_image(memory):
    """Statistics in single precision: only the result is rounded."""
    norm = InstanceNormPlus(8)
    x = (3 + torch.randn(2, 8, 15, 12)).bfloat16().contiguous(memory_format=memory)
    exact = plain_norm(norm, x.float())
    assert float((norm(x).float() - exact).abs().max()) < 0.008 * float(exact.abs().max())


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("kind", [{}, {"enter": True, "halve": True}, {"enter": True, "dilation": 2}])
def test_a_residual_block_is_the_plain_one_to_the_second_derivative(kind, memory):
    block = double(ResidualBlock(3, 4 if kind else 3, **kind))
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64).contiguous(memory_format=memory)
    assert_same(block, lambda x: plain_block(block, x), block, x)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("size", [(9, 12), (5, 3), (1, 7), (2, 2)])
def test_chained_pooling_is_the_plain_one_with_and_without_derivatives(size, memory):
    crp = double(ChainedPooling(3))
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=memory)
    kept = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(crp(x), plain_pooling(crp, x))
    assert torch.equal(x, kept)
    assert_same(crp, lambda x: plain_pooling(crp, x), crp, x)


def test_channels_last_changes_the_order_in_memory_alone():
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(channels_last(x), x)
    assert channels_last(x).stride() == (60, 1, 12, 3)


NETWORKS = {
    "ncsnv2": (NCSNv2, {"depth": "low", "width": 4}),
    "unet": (UNet, {"widths": (6, 8), "blocks": 1, "embedding": 8}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointing_gives_the_same_derivatives_of_both_orders_and_keeps_less(name):
    kind, arguments = NETWORKS[name]
    plain, saving = double(kind(**arguments)), kind(**arguments, checkpointing=True).double()
    saving.load_state_dict(plain.state_dict())
    x, c_noise = torch.randn(2, 2, 13, 10, dtype=torch.float64), torch.tensor([-0.5, 0.3], dtype=torch.float64)
    found, kept = [], []
    for network in (plain, saving):
        found.append(derivatives(lambda x, network=network: network(x, c_noise), x, list(network.parameters())[2:]))
        kept.append(saved_bytes(lambda network=network: network(x, c_noise), network))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert kept[1] < 0.6 * kept[0]


def saved_bytes(call, network: nn.Module) -> int:
    """What the graph of a call holds, without the parameters."""
    own = {parameter.data_ptr() for parameter in network.parameters()}
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        held = call()
    assert held.requires_grad
    return sum(found.values())


def test_weights_with_channels_last_give_the_same_network():
    for network in (double(NCSNv2("low", width=4)), double(UNet((6, 8), blocks=1, embedding=8))):
        x, c_noise = torch.randn(3, 2, 14, 11, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            before = network(x, c_noise)
            torch.testing.assert_close(network.to(memory_format=torch.channels_last)(x, c_noise), before)


def test_an_item_of_ncsn_is_the_same_alone():
    """Its norms have rows of their own for each item."""
    network, x = double(NCSN(levels=3, width=4)), torch.randn(2, 2, 8, 10, dtype=torch.float64)
    with torch.no_grad():
        together = network(x, torch.tensor([0.0, -4.0]))
        torch.testing.assert_close(together[1:], network(x[1:], torch.tensor([-4.0])))
