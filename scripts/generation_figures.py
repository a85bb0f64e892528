"""Make the pictures in docs/figures that show samples of the prior `brain`; takes minutes on a CPU."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from mri_score.evaluation.contact_sheet import magnitude_sheet
from mri_score.evaluation.panel import panel, save_png
from mri_score.generation import bare_prior, inpaint, interpolate, sample_prior
from mri_score.priors.store import load_prior
from mri_score.simulation.phantom import phantom

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures")
SIDE = 56
"""Side of the hidden square, in pixels of 0.9 mm."""


def main() -> None:
    prior, whole = load_prior("brain"), bare_prior("brain")[0]
    prior.precision = whole.precision = torch.bfloat16
    save_png(FOLDER / "samples.png", magnitude_sheet(sample_prior(whole, 16, (256, 256)), columns=4))
    save_png(FOLDER / "alone.png", magnitude_sheet(sample_prior(prior, 6, (256, 256)), columns=3))

    way = torch.cat([interpolate(whole, 6, (256, 256), between=pair) for pair in ((0, 1), (1, 5), (5, 7))])
    save_png(FOLDER / "interpolation.png", magnitude_sheet(way, columns=6))

    head = phantom(256, coils=1, noise_snr=None).image
    assert head is not None
    keep = torch.ones(256, 256, dtype=torch.bool)
    keep[90 : 90 + SIDE, 130 : 130 + SIDE] = False
    draws = inpaint(prior, head[0], keep, 3)
    std = torch.view_as_real(draws).var(0).mean(-1).sqrt()
    columns = {"known": head[0] * keep, **{f"sample {i}": draw for i, draw in enumerate(draws)}, "mean": draws.mean(0)}
    picture = Image.open(BytesIO(panel(columns, truth=head[0], std=std, zoom=(78, 118, 80))))
    picture.convert("RGB").quantize(256).save(FOLDER / "inpainting.png", optimize=True)


if __name__ == "__main__":
    main()
