"""Networks: real channels in, real channels out, and a noise coordinate for those that want one."""

from __future__ import annotations

from mri_score.networks.ncsnv2 import NCSNv2
from mri_score.networks.unet import UNet

NETWORKS = {"ncsnv2": NCSNv2, "unet": UNet}
