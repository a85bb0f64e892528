"""Two networks in one, each for its own range of noise levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mri_score.errors import InputError


class Experts(nn.Module):
    """Each item is computed by one of two networks: by `high` if c_noise is above `border`, else by `low`.

    Strong noise hides details, so that a network for coarse pixels is sufficient there. It sees the object as a whole,
    and costs a fraction of a network for details, in training and in use.
    Shapes: those of its networks, which take the same channels.
    Reference: Balaji et al., eDiff-I, 2022, where all experts have the same structure, and start from one network.
    """

    def __init__(self, low: nn.Module, high: nn.Module, border: float) -> None:
        super().__init__()
        channels = [getattr(network, "channels", 2) for network in (low, high)]
        if channels[0] != channels[1]:
            raise InputError(f"experts see the same images, and these take {channels[0]} and {channels[1]} channels")
        self.low, self.high, self.border, self.channels = low, high, border, channels[0]

    def forward(self, x: Tensor, c_noise: Tensor, *extra: Tensor) -> Tensor:
        if c_noise.is_meta:  # without data, for shapes and memory: the larger network determines the peak
            self.high(x, c_noise, *extra)
            return self.low(x, c_noise, *extra)
        above = c_noise > self.border
        chosen = (above.logical_not(), self.low), (above, self.high)
        parts = [(where, network) for where, network in chosen if bool(where.any())]
        if len(parts) == 1:
            return parts[0][1](x, c_noise, *extra)
        outputs = [network(x[where], c_noise[where], *(one[where] for one in extra)) for where, network in parts]
        places = torch.cat([where.nonzero()[:, 0] for where, _ in parts])
        return torch.cat(outputs)[places.argsort()]
