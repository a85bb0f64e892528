"""mri-score export-prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER

FLOAT16_COSTS = 2e-3
"""What float16 may change of denoised images, as a part of what the network takes away; beyond it float32 is stored."""


@click.command("export-prior")
@click.argument("run", type=ANY_PATH)
@click.option("--name", required=True, help="What the prior shall be called.")
@click.option("--summary", required=True, help="One line that says what it knows.")
@click.option(
    "--data-card", "data_cards", multiple=True, type=ANY_PATH,
    help="Markdown: the data, their licence, intended use and limits; may be repeated.",
)  # fmt: skip
@click.option("--high", type=ANY_PATH, help="Another run, whose network takes over above the noise level --border.")
@click.option("--border", type=float, help="The noise level sigma that parts the two.")
@click.option("--config", help="The config that made the run.  [default: the run's own]")
@click.option("--out", "-o", type=FOLDER, default=Path(), help="The folder to write into.  [default: here]")
def command(
    run: Path,
    name: str,
    summary: str,
    data_cards: tuple[Path, ...],
    high: Path | None,
    border: float | None,
    config: str | None,
    out: Path,
) -> None:
    """Make of a training run RUN a prior to pass on: weights, description and model card.

    Weights are stored in float16 where that changes nothing that matters, and the card says by how much.

    Two runs of one dataset make one prior: RUN for what lies below the noise level --border, --high for what lies
    above it, trained there alone (schedule.sigma_min) by whole images and coarse pixels (network.unshuffle).

    \b
    Examples:
      mri-score export-prior runs/knee_384 --name knee --summary "Adult knees, proton density." --data-card data.md
      mri-score export-prior runs/brain --high runs/brain_heads --border 4 --name heads --summary "Adult heads."
    """
    from mri_score.errors import InputError
    from mri_score.experiment import read_config
    from mri_score.files import write_text
    from mri_score.priors.card import model_card, storage_error
    from mri_score.priors.store import find_prior, join_experts, load_prior, read_record, save_prior

    if (high is None) != (border is None):
        raise InputError("--high RUN and --border SIGMA go together: which network takes over, and where")
    if not name or Path(name).name != name:
        raise InputError(f"--name {name!r} names the files to write: a word, no folder, e.g. --name knee")
    parts = []
    for data_card in data_cards:
        try:
            parts.append(data_card.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--data-card {data_card} cannot be read: {error}") from error
    data = "\n".join(parts) if parts else None
    source = find_prior(run)
    path = out / f"{name}.safetensors"
    if path.exists():
        raise InputError(f"{path} exists already; choose another --name or --out, or remove it")
    settings = read_config(config or source.parent / "config.yaml")
    record, prior = read_record(source), load_prior(source)
    network = record["network"]
    known = {key: value for key, value in record["about"].items() if key != "base"}
    about = {**known, "summary": summary, "config": Path(config).name if config else "config.yaml"}
    logs = {"": _log(source.parent)}
    if high is not None and border is not None:
        prior, network = join_experts(source, high, border)
        about = {key: value for key, value in about.items() if not key.startswith("ood_")}
        above = read_record(find_prior(high))["about"]
        about["high"] = {**above, "border": border, "config": above.get("config", "config.yaml")}
        logs = {
            f", sigma up to {border:g}": logs[""],
            f", sigma from {border:g}": _log(find_prior(high).parent),
        }

    save_prior(path, prior, network, about, half=True)
    change = storage_error(prior, load_prior(path))
    stored = f"float16, which changes what the network takes away by {change:.0e}"
    if not change <= FLOAT16_COSTS:  # NaN, where float16 overflows, is too much as well
        save_prior(path, prior, network, about)
        stored = "float32"
    write_text(path.with_suffix(".md"), model_card(path, logs, settings["loss"]["name"], data, stored))
    click.echo(f"{path}  {path.stat().st_size / 2**20:.1f} MB, {stored}")
    if data is None:
        click.echo("its card says that the data are not stated: name them with --data-card")


def _log(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; none where there is no log."""
    import json

    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
