"""Networks: real channels in, real channels out; most of them take a noise coordinate too."""

from __future__ import annotations

from typing import Any

from torch import nn

from mri_score.errors import unknown_name
from mri_score.networks.ddpm import DDPM
from mri_score.networks.edm import EdmUNet
from mri_score.networks.experts import Experts
from mri_score.networks.ncsn import NCSN
from mri_score.networks.ncsnpp import NCSNpp
from mri_score.networks.ncsnv2 import NCSNv2
from mri_score.networks.unet import UNet

NETWORKS = {"ddpm": DDPM, "edm": EdmUNet, "ncsn": NCSN, "ncsnpp": NCSNpp, "ncsnv2": NCSNv2, "unet": UNet}
"""Networks that a config can train."""


def build_network(section: dict[str, Any]) -> nn.Module:
    """A new network from its name and arguments, as stored in the file of a prior; for experts, those of both networks.

    Errors: InputError for unknown names, TypeError for arguments that do not fit.
    """
    if not isinstance(section, dict):
        raise TypeError(f"{section!r} is no network's name and arguments")
    arguments = dict(section)
    name = arguments.pop("name", None)
    if name == "experts":
        low, high = (build_network(arguments.pop(side, {})) for side in ("low", "high"))
        return Experts(low, high, **arguments)
    if name not in NETWORKS:
        raise unknown_name("network.name", name, [*NETWORKS, "experts"])
    return NETWORKS[name](**arguments)
