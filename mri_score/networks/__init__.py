"""Networks: real channels in, real channels out, and a noise coordinate for those that want one."""

from __future__ import annotations

from mri_score.networks.ddpm import DDPM
from mri_score.networks.ncsn import NCSN
from mri_score.networks.ncsnpp import NCSNpp
from mri_score.networks.ncsnv2 import NCSNv2
from mri_score.networks.unet import UNet

NETWORKS = {"ddpm": DDPM, "ncsn": NCSN, "ncsnpp": NCSNpp, "ncsnv2": NCSNv2, "unet": UNet}
