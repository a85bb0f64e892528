"""The mean of the weights of two priors: the priors themselves at its ends, and refused for other networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.networks.unet import UNet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
pytest.importorskip("pages", reason="scripts/ lies in a checkout alone")

from average_priors import average


def prior(seed: int, width: int = 8) -> NetworkPrior:
    torch.manual_seed(seed)
    made = NetworkPrior(UNet(widths=(width,), blocks=1), sigma_max=10.0)
    with torch.no_grad():
        for weights in made.network.leave.parameters():
            weights.normal_(std=0.1)
    return made


def test_its_ends_are_the_two_priors_and_a_linear_layer_is_averaged():
    x = torch.randn(1, 16, 16, dtype=torch.complex64)
    for share, same in ((0.0, prior(0)), (1.0, prior(1))):
        assert torch.allclose(average(prior(0), prior(1), share).denoise(x, 0.5), same.denoise(x, 0.5))
    mixed = average(prior(0), prior(1), 0.25).network.leave.bias
    assert torch.allclose(mixed, 0.75 * prior(0).network.leave.bias + 0.25 * prior(1).network.leave.bias)


def test_other_networks_have_no_mean():
    with pytest.raises(InputError, match="different networks"):
        average(prior(0), prior(1, width=16), 0.5)
