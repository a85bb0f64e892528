"""mri-score train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .options import FOLDER


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of the command, as click names and types them."""

    config: str
    data: str | None
    changes: tuple[str, ...]
    out: Path | None
    start: str | None
    resume: bool
    dry_run: bool
    device: str
    threads: int | None
    quiet: bool


@click.command("train")
@click.option("--config", "-c", required=True, metavar="FILE", help="A YAML file: here, in configs/, or a bundled one.")
@click.option("--data", metavar="PATH", help="The training data; the same as --set data.paths=[PATH].")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key, e.g. training.steps=2000.")
@click.option("--out", "-o", type=FOLDER, help="The run's folder.  [default: runs/<config>]")
@click.option("--from", "start", metavar="PRIOR", help="Start from the weights of a prior, run folder or file.")
@click.option(
    "--resume/--fresh",
    default=True,
    show_default=True,
    help="Go on where the folder's run stopped, or refuse a folder that holds one.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained and what memory it needs, and stop.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(**options: Any) -> None:
    """Train a prior as a config says; resumes by itself where a run was stopped.

    The run's folder holds config.yaml, parameters.txt, log.jsonl, checkpoints, figures and prior.safetensors, which
    mri-score reconstruct --prior takes, or mri-score compare --supervised where the config trains a supervised network.

    \b
    Examples:
      mri-score simulate --out data/simulated
      mri-score train --config tiny.yml
      mri-score train --config knee_384.yml --data multicoil_train
      mri-score train --config knee_noisy_sure.yml --data noisy_scans
    """
    import json

    import torch

    from mri_score import experiment
    from mri_score.errors import InputError
    from mri_score.priors.store import SUPERVISED
    from mri_score.training import checkpoint
    from mri_score.training.loop import Interrupted

    given = TrainOptions(**options)
    if given.threads:
        torch.set_num_threads(given.threads)
    data = () if given.data is None else (f"data.paths={json.dumps([given.data])}",)
    settings = experiment.read_config(given.config, (*given.changes, *data))
    folder = given.out or Path("runs") / Path(given.config).stem
    if given.dry_run:
        _describe(settings, folder)
        return
    if not given.resume and checkpoint.found(folder):
        raise InputError(f"{folder} holds a run already; remove it, or give another folder with --out")
    try:
        experiment.run(settings, folder, start=given.start, device=given.device, quiet=given.quiet, say=_note)
    except Interrupted as stop:
        click.echo(f"{folder}: {stop}", err=True)
        raise SystemExit(stop.code) from stop
    supervised = (settings.get("prior") or {}).get("precondition") == SUPERVISED
    click.echo(f"run     {folder}\n{'network' if supervised else 'prior  '} {folder / 'prior.safetensors'}")
    following = f"compare --supervised {folder} SCANS" if supervised else f"reconstruct --accel 4 --prior {folder}"
    click.echo(f"next    mri-score {following}")


def _note(text: str) -> None:
    click.secho(f"note: {text}", fg="yellow", err=True)


def _describe(settings: dict[str, Any], folder: Path) -> None:
    """Build everything but the loop, and say what it is."""
    from mri_score import experiment
    from mri_score.memory import footprint
    from mri_score.numerics.noise import generators

    source = experiment.make_source(settings)
    parameters = experiment.find_parameters(settings, lambda: source, folder)
    prior = experiment.make_prior(settings, parameters)
    loss = experiment.make_loss(settings, parameters)
    count = sum(parameter.numel() for parameter in prior.parameters())
    click.echo(f"run          {folder}")
    click.echo(f"images       {len(source)}")  # type: ignore[arg-type]
    click.echo(
        f"network      {type(prior.network).__name__}, {count:,} parameters, {prior.precondition} preconditioning"
    )
    click.echo(f"noise        sigma from {prior.sigma_max:g} to {prior.sigma_min:g}, sd {prior.sd:g}")
    click.echo(f"loss         {type(loss).__name__}")
    size = int((settings.get("training") or {}).get("batch_size", 16))
    needed = footprint.train_bytes(prior, loss, source.sample(generators(0, "batch")[0]), size)
    click.echo(f"memory       {footprint.peak_text(needed)}")
    for key, value in (settings.get("training") or {}).items():
        click.echo(f"{key:<13}{value}")
