"""mri-score simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mri_score.errors import InputError

from .options import ANY_PATH, FOLDER, read_slices

OF_HEADS = ("volumes", "slices", "size", "coils", "contrast")
"""Options of simulated heads, which images and a scan bring along themselves."""


@click.command("simulate")
@click.option("--out", "-o", type=FOLDER, default=Path("data/simulated"), show_default=True, help="The folder to fill.")
@click.option("--volumes", type=click.IntRange(1), default=2, show_default=True, help="Different heads.")
@click.option("--slices", type=click.IntRange(1), default=8, show_default=True, help="Slices of each.")
@click.option("--size", type=click.IntRange(16), default=256, show_default=True, help="Matrix of the image.")
@click.option("--coils", type=click.IntRange(1), default=8, show_default=True)
@click.option("--contrast", default="T2", show_default=True, help="T1, T2, PD or FLAIR.")
@click.option("--images", type=ANY_PATH, metavar="STACK", help="Scan these magnitude images (HDF5 or NIfTI) instead.")
@click.option("--like", type=ANY_PATH, metavar="SCAN", help="With --images: the full scan that lends phase and coils.")
@click.option("--pick", metavar="LIST", help="With --images: slices of each volume: 3, 2:5, middle or 40%,60%.")
@click.option("--only", multiple=True, metavar="LABEL=VALUE", help="With --images: slices with this label alone.")
@click.option(
    "--noise", type=float, metavar="SNR", help="Of a bright pixel, in dB.  [default: 36; with --images that of SCAN]"
)
@click.option("--undersample", type=float, metavar="R", help="Write undersampled scans, without a truth.")
@click.option("--seed", default=0, show_default=True)
def command(**given: Any) -> None:
    """Write simulated scans in the fastMRI layout: of numerical heads, or of the magnitude images of a stack.

    \b
    Examples:
      mri-score simulate --out data/simulated --volumes 4 --noise 20
      mri-score simulate --images stack.h5 --like scan.h5 --pick 40%,60% --only patient=p07
    """
    like, images, pick, only = (given.pop(name) for name in ("like", "images", "pick", "only"))
    if images is None:
        _refuse("--images STACK", like=like, pick=pick, only=only or None)
        from mri_score.simulation.simulate import simulate

        paths = simulate(**{**given, "noise": 36.0 if given["noise"] is None else given["noise"]})
    else:
        if like is None:
            raise InputError("--images gives magnitudes alone; name a full scan with --like for phase and coils")
        heads = {name: given.pop(name) for name in OF_HEADS}
        source = click.get_current_context().get_parameter_source
        _refuse("simulated heads", **{name: heads[name] for name in heads if source(name) != ParameterSource.DEFAULT})
        from mri_score.simulation.borrowed import simulate_like

        paths = simulate_like(
            images=images, like=like, slices=lambda count: _pick(pick, count), only=_labels(only), **given
        )
    for path in paths:
        click.echo(path)


def _pick(text: str | None, count: int) -> list[int]:
    """As `read_slices`; `40%` is the slice nearest that part of the volume."""
    if text is None or "%" not in text:
        return read_slices(text, count, "--pick")
    try:
        parts = [float(part.strip().removesuffix("%")) / 100 for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--pick {text!r} should read 3, 2:5, 0,4,9, middle or 40%,60%") from error
    if not all(0 <= part <= 1 for part in parts):
        raise InputError(f"--pick {text!r} is outside the volume; parts of it lie between 0% and 100%")
    return [round(part * (count - 1)) for part in parts]


def _labels(only: tuple[str, ...]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for text in only:
        label, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--only {text!r} should read LABEL=VALUE, e.g. patient=patient19")
        wanted.setdefault(label, []).append(value)
    return wanted


def _refuse(needs: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name} goes with {needs} only; leave it out")
