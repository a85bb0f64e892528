"""What test_processes.py starts under torchrun: `gradients` of every loss, or a training run that may die once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Generator

from mri_score.data.training_item import TrainingItem
from mri_score.losses import Denoising, NoisyScore, Regression, Sliced, Sure, SureScore
from mri_score.noise.schedules import Geometric
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators
from mri_score.priors.store import build_prior
from mri_score.training.batches import Batches
from mri_score.training.loop import train
from mri_score.training.processes import Processes, joined

BATCH, SHAPE = 5, (8, 9)
LEVELS = Geometric(0.05, 5.0)
LOSSES = {
    "denoising": Denoising(LEVELS),
    "noisy_score": NoisyScore(LEVELS),
    "regression": Regression(),
    "sliced": Sliced(LEVELS),
    "sure": Sure(LEVELS),
    "sure_score": SureScore(LEVELS),
}
"""All that learn from images; the others need k-space."""


class Smooth:
    """Random images of low frequencies, with what every loss asks for."""

    def sample(self, random: Generator) -> TrainingItem:
        y = torch.zeros(1, *SHAPE, dtype=torch.complex64)
        y[:, 3:6, 3:6] = torch.randn(1, 3, 3, generator=random, dtype=torch.complex64)
        noise_std = 0.02 + 0.1 * torch.rand(1, generator=random)
        return TrainingItem(
            "smooth", image=2 * ifft(y), noise_std=noise_std, estimate=2.2 * ifft(y), acceleration=torch.tensor([4.0])
        )


def prior():
    """One network, whatever the process: some weights differ until the processes agree."""
    torch.manual_seed(int(os.environ.get("RANK", 0)))
    return build_prior({"name": "unet", "widths": (6, 8), "blocks": 1, "embedding": 8}, sd=0.5)


def gradients(name: str, processes: Processes) -> dict[str, torch.Tensor]:
    """The gradient of the joint batch, and the value."""
    model = prior()
    random = torch.Generator().manual_seed(7 + processes.number)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=random)
    processes.agree(model)
    share = processes.share(BATCH)
    batch = Batches(Smooth(), BATCH, 3, share)[11]
    value = LOSSES[name](model, batch, generators(3, "loss", 11, share), 11).sum() / BATCH
    value.backward()
    value = processes.sum_gradients(model.parameters(), value)
    found = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    return {"value": value, **found}


class Dying(Denoising):
    """Kills the second process in the middle of the run, the first time."""

    def __call__(self, model, batch, random, step):
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        if step == 13 and os.environ.get("RANK") == "1" and not again:
            os._exit(9)
        return super().__call__(model, batch, random, step)


def main(what: str, out: Path) -> None:
    torch.set_num_threads(1)
    if what == "gradients":
        with joined(torch.device("cpu")) as (processes, _):
            found = {name: gradients(name, processes) for name in LOSSES}
            torch.save(found, out / f"gradients-{processes.number}-of-{processes.count}.pt")
        return
    loss = (Dying if what == "dying" else Denoising)(LEVELS)
    train(
        prior(), loss, Smooth(), out, lambda *_: None, steps=20, batch_size=BATCH, warmup=2, workers=0, save_every=5,
        log_every=5, quiet=True, seed=3,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
