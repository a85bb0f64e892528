"""The exponential moving average of the weights, with warm-up."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mri_score.score import NetworkPrior


class Ema:
    """averaged <- decay averaged + (1 - decay) weights, decay = min(decay, (1 + n) / (10 + n)) after n updates."""

    def __init__(self, model: NetworkPrior, decay: float = 0.999) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: NetworkPrior, updates: int) -> None:
        decay = min(self.decay, (1 + updates) / (10 + updates))
        ours: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, new in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(new)
