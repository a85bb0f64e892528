"""Winograd's convolutions: equal to direct ones in double precision, with all derivatives, item by item."""

import pytest
import torch
from torch.nn.functional import conv2d

from mri_score.networks.unet import UNet
from mri_score.networks.winograd import Conv3x3, by_winograd

pytestmark = pytest.mark.skipif(not by_winograd(torch.zeros(1)), reason="this PyTorch has no NNPACK for this CPU")
SHAPES = [(3, 40, 32, 21, 37), (2, 32, 48, 32, 20)]


def case(items, channels_in, channels_out, height, width):
    torch.manual_seed(0)
    layer = Conv3x3(channels_in, channels_out)
    return layer, torch.randn(items, channels_in, height, width)


def near(found, wanted, bound=1e-5):
    assert torch.linalg.vector_norm(found - wanted) < bound * torch.linalg.vector_norm(wanted)


def derivatives(function, x, weight, bias, probe):
    """The output, its gradients by all inputs along `probe`, and the gradients of a function of the first of them."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
    output = function(*inputs)
    first = torch.autograd.grad((probe * output.square()).sum(), inputs, create_graph=True)
    return output, *first, *torch.autograd.grad(first[0].square().sum(), inputs[:2])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_and_derivatives_are_those_of_a_direct_convolution(shape, layout):
    layer, x = case(*shape)
    x, probe = x.contiguous(memory_format=layout), torch.randn(len(x), shape[2], *shape[3:])

    def by_layer(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    found = derivatives(by_layer, x, layer.weight, layer.bias, probe)
    doubles = [tensor.double() for tensor in (x, layer.weight, layer.bias, probe)]
    wanted = derivatives(lambda x, w, b: conv2d(x, w, b, padding=1), *doubles)
    assert found[0].grad_fn.name() == "_WinogradBackward"
    for ours, theirs in zip(found, wanted, strict=True):
        near(ours, theirs)


def test_an_item_does_not_depend_on_its_batch():
    layer, x = case(*SHAPES[0])
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]), rtol=0, atol=0)


def test_small_and_other_inputs_are_convolved_directly():
    layer, x = case(1, 32, 32, 32, 32)
    assert layer(x).grad_fn.name() == "_WinogradBackward"
    with torch.backends.nnpack.flags(enabled=False):
        assert layer(x).grad_fn.name() == "ConvolutionBackward0"
    assert layer(x[..., :8, :8]).grad_fn.name() == "ConvolutionBackward0"
    assert layer.double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16


def test_a_network_is_the_same_function_with_and_without():
    torch.manual_seed(0)
    network, x = UNet((32, 48)), torch.randn(2, 2, 51, 84)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    results = []
    for enabled in (True, False):
        with torch.backends.nnpack.flags(enabled=enabled):
            with torch.no_grad():
                results.append(network(x, torch.zeros(2)))
            network.zero_grad()
            network(x, torch.zeros(2)).square().sum().backward()
            results.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    near(results[0], results[2])
    near(results[1], results[3], 1e-4)
