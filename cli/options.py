"""Options that several commands share, and functions that read their values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mri_score.errors import InputError
from mri_score.files import DiskFull
from mri_score.methods import DEFAULT_METHOD, METHODS

from . import names
from .exits import SomeFailed, explained
from .log import fail, note, say

if TYPE_CHECKING:
    from mri_score.data.scan import Undersampling
    from mri_score.pipeline.run_log import RunLog

FOLDER = click.Path(file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)

DRAWS = [name for name, method in METHODS.items() if method.draws]
ESTIMATES = [name for name, method in METHODS.items() if not method.draws]
TRAJECTORIES = ("radial", "spiral")
"""The names of `mri_score.data.trajectories.TRAJECTORIES`, repeated here because --help must not import torch."""

allow_code_option = click.option(
    "--allow-code", is_flag=True,
    help="Allow data.name to be a class of your own, package.module:Class, which is imported and run. Off by default,"
    " because a config may come from someone else.",
)  # fmt: skip

method_option = click.option(
    "--method", "--sampler", type=names.METHOD, default=DEFAULT_METHOD, show_default=True,
    help=f"Reconstruction method. Draws (samples of the posterior): {', '.join(DRAWS)}. Point estimates, whose spread"
    f" does not measure uncertainty: {', '.join(ESTIMATES)}.",
)  # fmt: skip

precision_option = click.option(
    "--precision", type=names.PRECISION, default="float32", show_default=True,
    help="Precision of the network: float32; bfloat16, faster on processors with instructions for it; or auto, which is"
    " bfloat16 on those and float32 on others.",
)  # fmt: skip
one_channel_option = click.option(
    "--one-channel", type=names.ONE_CHANNEL_USE, metavar="USE",
    help="How a prior of real images is applied to complex ones: parts (to the real and to the imaginary part), or"
    " magnitude (to the magnitude, with the smooth phase of the scan's CG-SENSE image).  [default: parts]",
)  # fmt: skip
prior_option = click.option(
    "--prior", "-p", type=names.PRIOR, default="brain", show_default=True, metavar="PRIOR",
    help="Name of a bundled prior (see mri-score priors), a run folder, or a .safetensors file.",
)  # fmt: skip
batch_size_option = click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True,
    help="Number of draws computed at the same time; lower it to save memory.",
)  # fmt: skip
steps_option = click.option(
    "--steps", type=click.IntRange(2), help="Number of noise levels.  [default: depends on the method]"
)
slices_option = click.option(
    "--slices", metavar="LIST", help="Slices to process, such as 3, 2:5, 0,4,9 or middle.  [default: all]"
)
axes_option = click.option(
    "--axes", metavar="NAMES", callback=lambda context, option, text: None if text is None else split_names(text),
    help="Names of the axes of a NumPy or MATLAB array, such as coils,rows,cols or rows,cols,coils,slices. Known: rows"
    " (the readout), cols, partitions, coils, slices, contrasts, sets, phases, repetitions, averages.",
)  # fmt: skip
bad_slices_option = click.option(
    "--bad-slices", type=click.Choice(["skip", "refuse"]), default="skip", show_default=True,
    help="Slices that cannot be reconstructed (empty, NaN, a coil of zeros): leave them out with a note, or refuse the"
    " file before any work.",
)  # fmt: skip
ignore_mask_option = click.option(
    "--ignore-mask", is_flag=True,
    help="Take all samples of k-space, whatever a dataset `mask` in the file says: for full k-space stored beside a"
    " mask. --mask FILE with the same file undersamples by that mask, and scores against the full k-space.",
)  # fmt: skip
coils_option = click.option(
    "--coils", type=click.IntRange(1), metavar="N", help="Compress the coils to N virtual coils."
)


def split_names(text: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name.strip() for name in text.split(","))


def device_options(command: Callable) -> Callable:
    """--device and --threads."""
    threads = click.option("--threads", type=click.IntRange(1), help="Number of CPU threads.  [default: all cores]")
    device = click.option(
        "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto uses a GPU if there is one."
    )
    return device(threads(command))


def stream_options(command: Callable) -> Callable:
    """What serve and stream reconstruct with; names as in `StreamSettings`."""
    samples = click.option(
        "--samples", "-n", type=click.IntRange(1), default=4, show_default=True, help="Number of draws per slice."
    )
    seed = click.option("--seed", default=0, show_default=True, help="Random seed of the draws.")
    pixels = click.option(
        "--pixels", type=click.Choice(["int16", "float32"]), default="int16", show_default=True,
        help="int16 holds 12 bits, for viewers at the scanner.",
    )  # fmt: skip
    rest = seed(pixels(batch_size_option(device_options(command))))
    return prior_option(one_channel_option(method_option(samples(steps_option(coils_option(rest))))))


def base_options(command: Callable) -> Callable:
    """--base and --border, for commands that sample a prior without k-space."""
    border = click.option(
        "--border", type=float, metavar="SIGMA", help="Noise level below which the prior replaces its base."
    )
    return click.option(
        "--base", metavar="PRIOR|none",
        help="A prior for whole images, used above the noise level --border; none uses --prior at all levels."
        "  [default: as stored with the prior]",
    )(border(command))  # fmt: skip


def base_line(told: Mapping[str, Any], prior: object) -> str:
    return f"above sigma {told['border']:g} with {told['base']}, below with {prior}"


shard_option = click.option(
    "--shard", metavar="I/N|auto|auto:LIST",
    help="Process only the I-th of N parts of the folder's files, I from 0 to N-1: for several processes in parallel."
    " auto reads I and N from torchrun, a Slurm job array or srun; auto:LIST is for an array of irregular numbers, such"
    " as auto:1,5,9,20.  [default: all files]",
)  # fmt: skip

TASKS = (("torchrun", "RANK", "WORLD_SIZE"), ("srun", "SLURM_PROCID", "SLURM_NTASKS"))
"""Environment variables with the number of this process and the number of processes, besides those of job arrays."""
ARRAY = "SLURM_ARRAY_TASK_"
MOST_TASKS = 1_000_000
"""More tasks than Slurm allows in an array."""


def take_precision(name: str, device: str) -> str:
    """The precision that `auto` stands for on the device, which is said; a note where bfloat16 is slow on it.

    name: the value of --precision. device: that of --device. Errors: InputError for an unknown device.
    """
    from mri_score.models.precision import AUTO, precision_note, resolved_precision
    from mri_score.reconstruction import find_device

    place = find_device(device)
    taken = resolved_precision(name, device=place)
    if (text := precision_note(name, place)) is not None:
        if name == AUTO:
            say(text, precision=taken)
        else:
            note(text, precision=taken)
    return taken


def take_shard(files: Sequence[Path], text: str | None, folder: bool = True) -> list[Path]:
    """Every N-th of the files, starting at the I-th; says which part it is.

    text: the value of --shard: I/N; auto, which reads the environment; auto:LIST, with the list of a job array; None
    takes all files. folder: whether the
    files are those of a folder: a file that was named by itself is always taken.
    Errors: InputError for a malformed value, I outside 0 to N - 1, auto in no array or group of processes, and for a
    part without files.
    """
    if not folder:
        return list(files)
    if text is None:
        _suggest(len(files))
        return list(files)
    kind, _, listed = text.partition(":")
    number, count = _found_task(listed) if kind == "auto" else _read_shard(text)
    if not 0 <= number < count:
        raise InputError(f"--shard {number}/{count}: allowed parts are 0/N to N-1/N, such as 0/4 to 3/4")
    mine = list(files)[number::count]
    if not mine:
        raise InputError(
            f"--shard {text}: part {number} of {count} is empty, as there are {len(files)} files; take at most"
            f" {len(files)} parts"
        )
    if count > 1:
        say(f"Part {number} of {count}: {len(mine)} of {len(files)} files.")
    return mine


def _read_shard(text: str) -> tuple[int, int]:
    try:
        number, count = map(int, text.split("/"))
    except ValueError as error:
        raise InputError(f"--shard {text!r} should read I/N, such as 0/4, auto or auto:LIST") from error
    return number, count


def _found_task(listed: str = "") -> tuple[int, int]:
    """The number of this process and the number of processes. listed: the list of a job array, as `--array` takes it.

    Errors: InputError if the environment has none.
    """
    if ARRAY + "ID" in os.environ:
        return _listed_task(listed) if listed else _array_task()
    for _, here, all_ in TASKS:
        if here in os.environ and all_ in os.environ:
            return _whole(here), _whole(all_)
    raise InputError(
        "--shard auto: this process belongs to no Slurm job array, srun or torchrun; give the part, such as --shard"
        " 0/4, or leave out --shard for all files"
    )


def _array_task() -> tuple[int, int]:
    """Place and number of the tasks of a Slurm job array. The tasks of --array=0-20:10 are 0, 10 and 20."""
    task, count, first, last = (_whole(ARRAY + name) for name in ("ID", "COUNT", "MIN", "MAX"))
    if count == 1:
        return 0, 1
    if count <= 3:  # the first, the last and the one between, also of a list such as --array=2,5,7
        return (0 if task == first else count - 1 if task == last else 1), count
    step = max(_whole(ARRAY + "STEP", (last - first) // (count - 1)), 1)
    place, rest = divmod(task - first, step)
    if step * (count - 1) <= last - first < step * count and rest == 0 and 0 <= place < count:
        return place, count
    raise InputError(
        f"--shard auto: the tasks of this array are a list of {count} numbers from {first} to {last}, in which Slurm"
        f" does not state the place of {task}; take --array=0-{count - 1}, or repeat the list of --array:"
        f" --shard auto:{first},...,{last}"
    )


def _listed_task(text: str) -> tuple[int, int]:
    """Place and number of the tasks of a job array whose list is given as sbatch takes it: 1,5,9-20:4 or 0-7%2.

    Errors: InputError for another text, and for a list that is not that of this array.
    """
    tasks: set[int] = set()
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", part.strip())
        if found is None:
            raise InputError(f"--shard auto:{text}: {part!r} is no task or range of --array, such as 5, 0-7 or 0-20:4")
        first, last, step = (int(group or 0) for group in found.groups())
        tasks |= {first} if found[2] is None else set(range(first, last + 1, max(step, 1))[: MOST_TASKS + 1])
        if len(tasks) > MOST_TASKS:
            raise InputError(f"--shard auto:{text}: more than {MOST_TASKS} tasks")
    task, *stated = (_whole(ARRAY + name) for name in ("ID", "COUNT", "MIN", "MAX"))
    if task not in tasks or stated != [len(tasks), min(tasks, default=0), max(tasks, default=0)]:
        raise InputError(
            f"--shard auto:{text}: this is not the list of the array, which has {stated[0]} tasks from {stated[1]} to"
            f" {stated[2]}, {task} among them; repeat what --array was given"
        )
    return sorted(tasks).index(task), len(tasks)


def _whole(name: str, default: int | None = None) -> int:
    """An environment variable as a number. Errors: InputError if it is missing or no number."""
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"--shard auto: {name} is {text!r}, not a number; give the part: --shard I/N") from error


def _suggest(count: int) -> None:
    """Say that all files are processed, where a process seems to be one of several."""
    several = [("a Slurm job array", ARRAY + "COUNT"), *((f"{name}'s processes", all_) for name, _, all_ in TASKS)]
    for what, name in several:
        if count > 1 and os.environ.get(name, "1") not in ("", "0", "1"):
            note(f"one of {what} ({name}={os.environ[name]}): all {count} files are done; --shard auto takes a part")
            return


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--accel, --mask and the other options of undersampling."""
    for option in reversed(
        [
            click.option(
                "--accel", type=float,
                help="Undersample a fully sampled scan by this factor; the true factor is printed.",
            ),
            click.option(
                "--mask", "law", type=names.MASK, default="variable-density", show_default=True, metavar="LAW|FILE",
                help="Sampling pattern: variable-density, random, fastmri-random, equispaced, equispaced_fraction,"
                " magic,"
                " magic_fraction, poisson-disc, or a file with a mask (.npy or .h5).",
            ),
            click.option(
                "--calibration-lines", type=click.IntRange(1), metavar="N",
                help="Fully sampled lines at the centre of k-space.  [default: 8 % up to R = 6, else 4 %, at least 10]",
            ),
            click.option(
                "--mask-seed", type=click.IntRange(0), metavar="N",
                help="Random seed of the mask.  [default: from the file name]",
            ),
            click.option(
                "--axis", type=click.Choice(["-1", "-2"]), default="-1", show_default=True,
                help="The undersampled axis of k-space: -1 columns, -2 rows.",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """The values of `sampling_options`."""

    accel: float | None
    law: str
    calibration_lines: int | None
    mask_seed: int | None
    axis: str


def make_sampling(given: MaskOptions) -> Undersampling:
    """The undersampling that these options ask for. Errors: InputError for a sampling pattern without --accel."""
    from mri_score.data.scan import Undersampling

    sampling = Undersampling(given.accel, given.law, given.calibration_lines, given.mask_seed, int(given.axis))
    if given.accel is None and sampling.from_file:
        return replace(sampling, acceleration=1.0)
    if given.accel is None and chosen("law"):
        raise InputError(f"--mask {given.law} needs --accel, the acceleration factor of the mask")
    return sampling


def chosen(*names: str) -> list[str]:
    """Those of the named options that the user gave on the command line, such as `["--mask"]`, in their order."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]


def maps_of(maps: Path | None, scan: Path) -> Path | None:
    """The file of coil maps for a scan: `maps` itself, or the file of the scan's name in the folder `maps`.

    Errors: InputError if the folder has none.
    """
    if maps is None or not maps.is_dir():
        return maps
    stem = scan.name.removesuffix(scan.suffix)
    names = [f"{stem}{suffix}" for suffix in (".h5", ".npy", ".cfl")]
    found = next((maps / name for name in names if (maps / name).is_file()), None)
    if found is None:
        raise InputError(f"{maps} has no coil maps of {scan.name}, as {' or '.join(names)}; make them: mri-score maps")
    return found


def content(path: Path) -> str:
    """A text that changes with the content of a file, and not with its place; of BART's files, both count."""
    from mri_score.files import sha256

    parts = {path, *(path.with_suffix(suffix) for suffix in (".hdr", ".cfl") if path.suffix in ("", ".hdr", ".cfl"))}
    return " ".join(sha256(part) for part in sorted(parts) if part.is_file())


Rest = Callable[[], None]
"""The remaining work for a file, such as writing its results."""


def each_file(
    files: Sequence[Path],
    work: Callable[[Path], Rest | None],
    then: Rest | None = None,
    log: RunLog | None = None,
) -> None:
    """Call `work` for every file, then `then` if at least one file succeeded.

    If `work` returns a function, that function runs in a second thread while the next file is processed. A file that
    raises any exception is reported by name and skipped, except that a full disk ends the work. If there is only one
    file, its own exception is raised. log: is told when the work on a file begins and ends.
    Errors: SomeFailed at the end if some files failed, InputError if all failed.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    failed: list[str] = []
    full = False

    @contextmanager
    def reported(path: Path) -> Iterator[None]:
        nonlocal full
        try:
            yield
        except Exception as error:
            if log is not None:
                log.fail(path, explained(error))
            if len(files) == 1:
                raise
            fail(f"{path.name}: skipped: {explained(error)}", error, file=path.name)
            failed.append(path.name)
            full = full or isinstance(error, DiskFull)

    left: tuple[Path, Future[None]] | None = None
    tried = 0
    with ThreadPoolExecutor(1) as thread:
        for path in (*files, None):
            rest = None
            path = None if full else path
            if path is not None:
                tried += 1
                with reported(path):
                    if log is not None:
                        log.begin(path)
                    rest = work(path)
                    if log is not None and rest is None:
                        log.finish(path)
            if left is not None:
                with reported(left[0]):
                    left[1].result()
                    if log is not None:
                        log.finish(left[0])
            left = None if path is None or rest is None else (path, thread.submit(rest))
            if path is None:
                break
    if then is not None and len(failed) < tried and not full:
        then()
    if failed:
        unseen = f"; {len(files) - tried} were not tried because the disk is full" if tried < len(files) else ""
        kind = SomeFailed if len(failed) < tried else InputError
        raise kind(f"{len(failed)} of {len(files)} files failed: {', '.join(failed)}{unseen}")


def data_changes(config: str, data: str | None, axes: Sequence[str] | None = None) -> list[str]:
    """The changes of a config that --data and --axes stand for: paths and axes of its data, and those of a validation
    on the same paths. Of a folder of several files, the last one is held out for that validation.
    """
    given = {"paths": None if data is None else [data], "axes": None if axes is None else list(axes)}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return []
    from mri_score.config_file import read_config

    settings = read_config(config)
    paths = [(settings.get(section) or {}).get("paths") for section in ("data", "validation")]
    sections = ["data"] + (["validation"] if paths[1] is not None and paths[0] == paths[1] else [])
    changes = [f"{section}.{name}={json.dumps(value)}" for section in sections for name, value in given.items()]
    if data is not None and len(sections) > 1:
        held_out = _last_of_several(data, axes)
        changes.append(f"data.exclude={json.dumps(held_out)}")
        changes.append(f"validation.include={json.dumps(held_out or ['*'])}")
    return changes


def _last_of_several(path: str, axes: Sequence[str] | None) -> list[str]:
    """A pattern for the name of the last of several scans in a folder; nothing for one file, or where there is none."""
    from mri_score.readers import scan_files

    try:
        names = [file.name for file in scan_files(path, axes=axes)]
    except InputError:  # it is reported where the data are opened
        return []
    return [escape(names[-1])] if len(names) > 1 else []


def read_names(text: str) -> list[str]:
    """The names in a text such as `a,b`, without repetitions; `none` gives an empty list."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip() not in ("", "none")))


def read_numbers(kind: type, option: str, text: str) -> list[Any]:
    """The numbers in a text such as `4,8`. Errors: InputError that names the option."""
    try:
        return [kind(one) for one in read_names(text)]
    except ValueError as error:
        raise InputError(f"{option} has {text!r}; it takes numbers separated by commas, such as 4,8") from error


def read_slices(text: str | None, count: int, option: str = "--slices") -> list[int]:
    """Slice numbers of `3`, `2:5`, `:`, `0,4,9` or `middle`, in a volume of `count` slices; None means all.

    Errors: InputError that names the option, for malformed text and for slices that do not exist.
    """
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
