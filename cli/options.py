"""What several commands read from their options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mri_score.errors import InputError
from mri_score.methods import DEFAULT_METHOD, METHODS

if TYPE_CHECKING:
    from mri_score.data.scan import Undersampling

FOLDER = click.Path(file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)

DRAWS = [name for name, method in METHODS.items() if method.draws]
ESTIMATES = [name for name, method in METHODS.items() if not method.draws]
TRAJECTORIES = ("radial", "spiral")
"""Written out here, because --help does not load the table that has these names."""

method_option = click.option(
    "--method", "--sampler", default=DEFAULT_METHOD, show_default=True,
    help=f"Draws of the posterior: {', '.join(DRAWS)}. Estimates, whose spread says nothing: {', '.join(ESTIMATES)}.",
)  # fmt: skip

precision_option = click.option(
    "--precision", default="float32", show_default=True, help="float32 or bfloat16: of the prior's network."
)


def base_options(command: Callable) -> Callable:
    """--base and --border of commands that sample a bare prior."""
    border = click.option("--border", type=float, metavar="SIGMA", help="Where the prior takes over from its base.")
    return click.option(
        "--base", metavar="PRIOR|none",
        help="A prior for whole images, which the walk goes down first, above the noise level --border."
        "  [default: what the prior's record names]",
    )(border(command))  # fmt: skip


def base_line(told: Mapping[str, Any], prior: object) -> str:
    return f"above sigma {told['border']:g} with {told['base']}, below with {prior}"


shard_option = click.option(
    "--shard", metavar="I/N",
    help="The I-th of N parts of a folder's files, 0/N to N-1/N: a process each."
    "  [default: what torchrun or a Slurm job array says, else all]",
)  # fmt: skip

RANKS = (
    ("RANK", "WORLD_SIZE", None),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
)
"""Where a process finds its number, the count of all, and the first number: of torchrun, a job array, srun."""


def take_shard(files: Sequence[Path], text: str | None) -> list[Path]:
    """Every N-th of the files, from the I-th, as --shard or the environment says; it tells where that is not all.

    Errors: InputError for a shard that does not exist.
    """
    number, count = _shard(text)
    if not 0 <= number < count:
        raise InputError(f"--shard {number}/{count}: the parts are 0/N to N-1/N, such as 0/4 to 3/4")
    mine = list(files)[number::count]
    if count > 1:
        click.echo(f"Part {number} of {count}: {len(mine)} of {len(files)} files.")
    return mine


def _shard(text: str | None) -> tuple[int, int]:
    if text is not None:
        try:
            number, count = map(int, text.split("/"))
        except ValueError as error:
            raise InputError(f"--shard {text!r} should read I/N, such as 0/4") from error
        return number, count
    for here, all_, first in RANKS:
        try:
            return int(os.environ[here]) - int(os.environ.get(first or "", 0)), int(os.environ[all_])
        except (KeyError, ValueError):
            continue
    return 0, 1


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--accel, --mask and what belongs to them."""
    for option in reversed(
        [
            click.option("--accel", type=float, help="Undersample a full scan so much; the true one is printed."),
            click.option(
                "--mask", "law", default="variable-density", show_default=True, metavar="LAW|FILE",
                help="How: variable-density, random, fastmri-random, equispaced, equispaced_fraction, magic,"
                " magic_fraction, poisson-disc, or a .npy or .h5 file.",
            ),
            click.option(
                "--calibration-lines", type=click.IntRange(1), metavar="N",
                help="Lines at the centre that are all sampled.  [default: 8 % up to R = 6, else 4 %, at least 10]",
            ),
            click.option("--mask-seed", type=click.IntRange(0), metavar="N", help="Another mask than the file name's."),
            click.option(
                "--axis", type=click.Choice(["-1", "-2"]), default="-1", show_default=True,
                help="The axis that is undersampled: -1 columns, -2 rows.",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """What `sampling_options` gives."""

    accel: float | None
    law: str
    calibration_lines: int | None
    mask_seed: int | None
    axis: str


def make_sampling(given: MaskOptions) -> Undersampling:
    """How these options undersample a scan; a mask from a file needs no --accel, a law does."""
    from mri_score.data.scan import Undersampling

    sampling = Undersampling(given.accel, given.law, given.calibration_lines, given.mask_seed, int(given.axis))
    if given.accel is None and sampling.from_file:
        return replace(sampling, acceleration=1.0)
    if given.accel is None and chosen("law"):
        raise InputError(f"--mask {given.law} needs --accel, the acceleration that it is drawn for")
    return sampling


def chosen(*names: str) -> list[str]:
    """Those of the running command's options, such as --mask, that its user gave."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]


Rest = Callable[[], None]
"""What is left to do for a file, such as writing."""


def each_file(files: Sequence[Path], work: Callable[[Path], Rest | None], then: Rest | None = None) -> None:
    """Do `work` for every file, then `then` if all went well for one at least.

    What `work` returns is done too, by a thread, beside the work on the next file. A file that fails is reported and
    skipped, and all of them raise InputError at the end; the only one raises its own.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    failed: list[str] = []

    @contextmanager
    def reported(path: Path) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if len(files) == 1:
                raise
            click.secho(f"{path.name}: skipped: {error}", fg="red", err=True)
            failed.append(path.name)

    left: tuple[Path, Future[None]] | None = None
    with ThreadPoolExecutor(1) as thread:
        for path in (*files, None):
            rest = None
            if path is not None:
                with reported(path):
                    rest = work(path)
            if left is not None:
                with reported(left[0]):
                    left[1].result()
            left = None if path is None or rest is None else (path, thread.submit(rest))
    if then is not None and len(failed) < len(files):
        then()
    if failed:
        raise InputError(f"{len(failed)} of {len(files)} files failed: {', '.join(failed)}")


def read_names(text: str) -> list[str]:
    """`a,b` -> names, each once; `none` is none of them."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip() not in ("", "none")))


def read_numbers(kind: type, option: str, text: str) -> list[Any]:
    """`4,8` -> numbers. Messages name the option."""
    try:
        return [kind(one) for one in read_names(text)]
    except ValueError as error:
        raise InputError(f"{option} has {text!r}; it takes numbers with commas between them, such as 4,8") from error


def read_slices(text: str | None, count: int, option: str = "--slices") -> list[int]:
    """`3`, `2:5`, `:`, `0,4,9` -> numbers; `middle` is the middle one. Messages name the option."""
    if text is None or text == ":":
        return list(range(count))
    if text == "middle":
        return [count // 2]
    try:
        if ":" in text:
            first, last = (int(part) if part else None for part in text.split(":"))
            numbers = list(range(count))[first:last]
        else:
            numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r} should read 3, 2:5, 0,4,9 or middle") from error
    if not numbers or not all(0 <= number < count for number in numbers):
        raise InputError(f"{option} {text!r} is outside the volume, which has slices 0 to {count - 1}")
    return numbers
