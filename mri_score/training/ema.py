"""Exponential moving average of the weights, with warm-up."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior


def decays_of(ema_decay: float | Sequence[float]) -> list[float]:
    """training.ema_decay as a list. Errors: InputError if it is empty, has equal numbers, or numbers outside [0, 1)."""
    decays = [ema_decay] if isinstance(ema_decay, (int, float)) else list(ema_decay)
    if not decays or len(set(decays)) < len(decays) or not all(0 <= decay < 1 for decay in decays):
        raise InputError(
            f"training.ema_decay is {ema_decay}; give a number from 0 to below 1, or several such as"
            " [0.999, 0.9999], of which the first is used for the prior"
        )
    return [float(decay) for decay in decays]


class Ema:
    """averaged <- decay averaged + (1 - decay) weights, decay = min(decay, (1 + n) / (10 + n)) after n updates."""

    def __init__(self, model: NetworkPrior, decay: float = 0.999) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: NetworkPrior, updates: int) -> None:
        """Move the average towards the weights of `model`, after `updates` earlier updates."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        ours: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, new in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(new)
