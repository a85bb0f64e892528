"""Figures during training: denoised or restored validation images, samples of the prior, TensorBoard."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.data.pixel_values import PixelValues
from mri_score.data.training_item import TrainingItem
from mri_score.evaluation.contact_sheet import colour_sheet
from mri_score.evaluation.panel import picture, save_png
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.samplers.langevin import Langevin

SHOWN = 4
"""Number of images of each kind."""
SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Noise levels of the pictures; the first three within the range of the prior are used."""
LEVELS = 30
"""Noise levels of the short Langevin run for the samples, which is a quick check, not the best quality."""
AS_THEY_ARE = PixelValues()


CURVES = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "gradient_norm": "norm of the gradient",
    "speed": "items per second",
}
"""Number of a training step -> title of its curve in TensorBoard."""


class Figures:
    """Writes figures/step-<n>.png, and TensorBoard events if tensorboard is installed.

    folder: of the run. validation: batches whose images are shown. pixels: the map of the pixels of real images, which
    is undone for the pictures.
    """

    def __init__(
        self, folder: Path, validation: list[TrainingItem] | None, pixels: PixelValues = AS_THEY_ARE
    ) -> None:
        self.folder, self.pixels = folder, pixels
        images = [batch.image for batch in validation or [] if batch.image is not None]
        self.images = torch.cat(images)[:SHOWN] if images else None
        pairs = [(one.estimate, one.noise_std) for one in validation or []]
        scans = [(estimate, level) for estimate, level in pairs if estimate is not None and level is not None]
        self.scans = list(zip(*scans, strict=True))  # estimates and noise levels
        self.board: Any = None

    def _board(self) -> Any:
        """The writer of TensorBoard events; None if tensorboard is not installed."""
        if self.board is None and util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder / "tensorboard"))
        return self.board

    def watch(self, prior: NetworkPrior, about: dict[str, Any]) -> None:
        """Write the validation results and one figure; called at each checkpoint. about: the entry of the log."""
        step = about["step"]
        for entry in about.get("curves", []) if self._board() is not None else []:
            for key, title in CURVES.items():
                self.board.add_scalar(title, entry[key], entry["step"])
        for sigma, error in about.get("denoising_errors", {}).items():
            if self.board is not None:
                self.board.add_scalar(f"denoising error/sigma {sigma:g}", error, step)
        for acceleration, psnr in about.get("psnr", {}).items():
            if self.board is not None:
                self.board.add_scalars(f"PSNR/{acceleration}", psnr, step)
        if self.images is None:
            return
        rows = self._rows(prior, self.images.to(next(prior.parameters()).device))
        place = self.folder / "figures" / f"step-{step:08d}.png"
        if self.images.ndim == 4:  # RGB
            rows = [self.pixels.inverse(row.cpu()).clamp(0, 1) for row in rows]
            sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
            save_png(place, colour_sheet(torch.cat(rows), len(rows[0])))
        else:
            shown_rows = [row.abs() if row.is_complex() else self.pixels.inverse(row) for row in rows]
            sheet = torch.cat([torch.cat(list(row), dim=-1) for row in shown_rows], dim=-2).cpu().clamp(0, 1.2)
            save_png(place, picture(sheet.numpy(), (0.0, 1.2)))
            sheet = sheet[None] / 1.2
        if self.board is not None:
            shown = "clean, CG-SENSE, restored" if self.scans else "clean, noisy and denoised, samples"
            self.board.add_image(shown, sheet, step)
            self.board.flush()

    @torch.no_grad()
    def _rows(self, prior: NetworkPrior, images: Tensor) -> list[Tensor]:
        """Rows of the figure: images, noisy and denoised ones for each sigma, samples; or images, CG-SENSE, restored.
        """
        if self.scans:
            estimates, noise_std = (torch.cat(parts)[: len(images)].to(images.device) for parts in self.scans)
            return [images, estimates, prior.denoise(estimates, noise_std)]
        rows = [images]
        for sigma in prior.learned(SIGMAS)[:3]:
            level = torch.full((len(images),), sigma, device=images.device)
            noisy = images + per_item(level, images) * noise_like(images, generators(0, "figure", 0, len(images)))
            rows += [noisy, prior.denoise(noisy, level)]
        low, high = max(0.01, prior.sigma_min), min(5.0, prior.sigma_max)
        if low < high:  # a prior of one noise level cannot be walked so
            walk = Langevin(Geometric(low, high).levels(LEVELS), repeats=2)
            rows.append(walk(prior, images, generators(0, "samples", 0, len(images))))
        return rows
