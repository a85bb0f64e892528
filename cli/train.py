"""mri-score train."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .exits import Failure
from .import_config import translated_config
from .log import note, say
from .options import FOLDER, allow_code_option, axes_option, data_changes, device_options


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of the command, named and typed as by click."""

    config: str
    data: str | None
    axes: tuple[str, ...] | None
    changes: tuple[str, ...]
    out: Path | None
    start: str | None
    resume: bool
    dry_run: bool
    allow_code: bool
    device: str
    threads: int | None


@click.command("train")
@click.option(
    "--config",
    "-c",
    required=True,
    metavar="FILE",
    help="Training config: a YAML file, the name of a bundled one, or a config that import-config reads.",
)
@click.option("--data", metavar="PATH", help="File or folder of training data: short for --set data.paths=[PATH].")
@axes_option
@click.option("--out", "-o", type=FOLDER, help="Run folder, for all output.  [default: runs/<config>]")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE",
    help="Override a key of the config, such as training.steps=2000; may be repeated.",
)  # fmt: skip
@click.option(
    "--from", "start", metavar="PRIOR",
    help="Start from the weights of a prior: a bundled one, a run folder or a .safetensors file.",
)  # fmt: skip
@click.option(
    "--resume/--fresh",
    default=True,
    show_default=True,
    help="Continue a run that was stopped, or refuse a folder that has a run already.",
)
@allow_code_option
@click.option("--dry-run", is_flag=True, help="Print what would be trained and how much memory it needs, then stop.")
@device_options
def command(**options: Any) -> None:
    """Train a prior, or a supervised network, from a training config. A run that was stopped is continued.

    The run folder gets config.yaml, parameters.txt, log.jsonl, checkpoints, figures and prior.safetensors. Use it with
    mri-score reconstruct --prior, or, if the config trains a supervised network, with mri-score compare --supervised.

    \b
    Examples:
      mri-score simulate --out data/simulated
      mri-score train --config tiny.yml
      mri-score train --config knee_384.yml --data multicoil_train
      mri-score train --config knee_noisy_sure.yml --data noisy_scans
    """
    import torch

    from mri_score import experiment
    from mri_score.config_file import find_config, read_config
    from mri_score.errors import InputError
    from mri_score.models.generator import GENERATOR
    from mri_score.priors.store import SUPERVISED
    from mri_score.sources.own import code_allowed
    from mri_score.training import checkpoint
    from mri_score.training.loop import Interrupted

    given = TrainOptions(**options)
    if given.threads:
        torch.set_num_threads(given.threads)
    with translated_config(given.config, given.data) as config:
        changes = (*given.changes, *data_changes(config, given.data, given.axes))
        settings = read_config(config, changes)
        place = find_config(config) if config == given.config else Path(given.config)
    folder = given.out or Path("runs") / Path(given.config).stem
    if given.dry_run:
        with code_allowed() if given.allow_code else nullcontext():
            _describe(settings, folder)
        return
    if not given.resume and checkpoint.found(folder):
        raise InputError(f"{folder} has a run already; remove it, or give another folder with --out")
    found = checkpoint.found(folder)
    say(
        f"config  {place}\ndata    {_paths(settings)}\nrun     {folder}"
        + (f", continued from {found[-1].name}" if found else ""),
        run=folder,
    )
    try:
        with code_allowed() if given.allow_code else nullcontext():
            experiment.run(settings, folder, start=given.start, device=given.device, say=note)
    except Interrupted as stop:
        raise Failure(f"{folder}: {stop}", stop.code) from stop
    precondition = (settings.get("prior") or {}).get("precondition")
    supervised = precondition == SUPERVISED
    say(f"run     {folder}\n{'network' if supervised else 'prior  '} {folder / 'prior.safetensors'}", run=folder)
    method = " --method one-step" if precondition == GENERATOR else ""
    following = (
        f"compare --supervised {folder} SCANS" if supervised else f"reconstruct --accel 4 --prior {folder}{method}"
    )
    say(f"next    mri-score {following}")


def _paths(settings: dict[str, Any]) -> str:
    data = settings.get("data") or {}
    paths = data.get("paths") or data.get("name") or []
    return ", ".join(map(str, [paths] if isinstance(paths, str) else paths))


def _describe(settings: dict[str, Any], folder: Path) -> None:
    """Build source, network and loss, and print their facts and the memory that training needs."""
    from mri_score import experiment
    from mri_score.memory import footprint
    from mri_score.numerics.noise import generators

    options = experiment.training_options(settings, "cpu")  # before the data are read
    if (settings.get("data") or {}).get("cache"):  # nothing is written
        settings = {**settings, "data": {**settings["data"], "cache": None}}
    source = experiment.make_source(settings)
    parameters = experiment.find_parameters(settings, lambda: source, folder)
    prior = experiment.make_prior(settings, parameters)
    loss = experiment.make_loss(settings, parameters)
    count = sum(parameter.numel() for parameter in prior.parameters())
    click.echo(f"run            {folder}")
    click.echo(f"images         {len(source)}")  # type: ignore[arg-type]
    click.echo(
        f"network        {type(prior.network).__name__}, {count:,} parameters, {prior.precondition} preconditioning"
    )
    click.echo(f"noise          sigma from {prior.sigma_max:g} to {prior.sigma_min:g}, sd {prior.sd:g}")
    click.echo(f"loss           {type(loss).__name__}")
    needed = footprint.train_bytes(prior, loss, source.sample(generators(0, "batch")[0]), options.batch_size)
    click.echo(f"memory         {footprint.peak_text(needed)}")
    for key, value in (settings.get("training") or {}).items():
        click.echo(f"{key:<15}{value}")
