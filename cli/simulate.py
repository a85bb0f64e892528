"""mri-score simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mri_score.errors import InputError

from .log import say
from .options import ANY_PATH, FOLDER, axes_option, read_slices

OF_HEADS = ("volumes", "slices", "size", "coils", "contrast")
"""Options for numerical heads only: with --images these values come from the images and the scan."""


@click.command("simulate")
@click.option(
    "--out", "-o", type=FOLDER, default=Path("data/simulated"), show_default=True, help="Folder for the scans."
)
@click.option("--volumes", type=click.IntRange(1), default=2, show_default=True, help="Volumes, one head each.")
@click.option("--slices", type=click.IntRange(1), default=8, show_default=True, help="Slices of each volume.")
@click.option("--size", type=click.IntRange(16), default=256, show_default=True, help="Image matrix size, in pixels.")
@click.option("--coils", type=click.IntRange(1), default=8, show_default=True, help="Receiver coils.")
@click.option("--contrast", default="T2", show_default=True, help="Contrast: T1, T2, PD or FLAIR.")
@click.option(
    "--images", type=ANY_PATH, metavar="STACK",
    help="Simulate scans of these magnitude images (HDF5 or NIfTI) in place of numerical heads; needs --like.",
)  # fmt: skip
@click.option(
    "--like", type=ANY_PATH, metavar="SCAN",
    help="With --images: a fully sampled scan whose phase and coil maps are used.",
)  # fmt: skip
@axes_option
@click.option("--pick", metavar="LIST", help="With --images: slices to use, such as 3, 2:5, middle or 40%,60%.")
@click.option("--only", multiple=True, metavar="LABEL=VALUE", help="With --images: use only slices of this label.")
@click.option(
    "--noise", type=float, metavar="SNR",
    help="Noise level, as the SNR of a bright pixel in dB.  [default: 36; with --images that of SCAN]",
)  # fmt: skip
@click.option(
    "--undersample", type=float, metavar="R",
    help="Undersample the scans by this factor; the files then have no ground truth.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def command(**given: Any) -> None:
    """Write simulated scans in the fastMRI format, of numerical heads or of given magnitude images.

    \b
    Examples:
      mri-score simulate --out data/simulated --volumes 4 --noise 20
      mri-score simulate --images stack.h5 --like scan.h5 --pick 40%,60% --only patient=p07
    """
    like, images, axes, pick, only = (given.pop(name) for name in ("like", "images", "axes", "pick", "only"))
    if images is None:
        _refuse("--images STACK", like=like, axes=axes, pick=pick, only=only or None)
        from mri_score.simulation.simulate import simulate

        paths = simulate(**{**given, "noise": 36.0 if given["noise"] is None else given["noise"]})
    else:
        if like is None:
            raise InputError(
                "--images has magnitudes only; name a fully sampled scan with --like for phase and coil maps"
            )
        heads = {name: given.pop(name) for name in OF_HEADS}
        source = click.get_current_context().get_parameter_source
        _refuse("simulated heads", **{name: heads[name] for name in heads if source(name) != ParameterSource.DEFAULT})
        from mri_score.simulation.from_images import scan_template, simulate_like

        template = scan_template(like, axes)
        paths = simulate_like(
            images=images, like=template, slices=lambda count: _pick(pick, count), only=_labels(only), **given
        )
    for path in paths:
        say(path, scan=path)


def _pick(text: str | None, count: int) -> list[int]:
    """Slice numbers as in `read_slices`; `40%` is the slice at that fraction of the volume."""
    if text is None or "%" not in text:
        return read_slices(text, count, "--pick")
    try:
        parts = [float(part.strip().removesuffix("%")) / 100 for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--pick {text!r} should read 3, 2:5, 0,4,9, middle or 40%,60%") from error
    if not all(0 <= part <= 1 for part in parts):
        raise InputError(f"--pick {text!r} is outside the volume; fractions must lie between 0% and 100%")
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
            raise InputError(f"--{name} is for {needs} only; leave it out")
