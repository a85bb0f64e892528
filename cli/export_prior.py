"""mri-score export-prior."""

from __future__ import annotations

import math
from pathlib import Path

import click

from .log import note, say
from .options import ANY_PATH, FOLDER

FLOAT16_TOLERANCE = 2e-3
"""Largest change of denoised images by float16 weights, relative to what denoising removes; above it, store float32."""


@click.command("export-prior")
@click.argument("run", type=ANY_PATH)
@click.option("--name", required=True, help="Name of the prior; the files are named after it.")
@click.option("--summary", required=True, help="One line about the images that it was trained on.")
@click.option(
    "--data-card", "data_cards", multiple=True, type=ANY_PATH,
    help="Markdown file for the card: data, licence, intended use, limits; may be repeated.",
)  # fmt: skip
@click.option("--out", "-o", type=FOLDER, default=Path(), help="Folder to write into.  [default: current folder]")
@click.option("--high", type=ANY_PATH, help="A second run, whose network is used above the noise level --border.")
@click.option("--border", type=float, help="Noise level between the networks of RUN and --high.")
@click.option("--config", help="The config that made the run.  [default: config.yaml of the run]")
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
    """Export the prior of the training run RUN for others to use: weights, description and model card.

    Weights are stored in float16 if that hardly changes denoised images; the card states the change.

    With --high, two runs on one dataset make one prior: RUN is used below the noise level --border, --high above it.
    Train the second one at high noise levels only (schedule.sigma_min), on whole images, with large pixels
    (network.unshuffle).

    \b
    Examples:
      mri-score export-prior runs/knee_384 --name knee --summary "Adult knees, proton density." --data-card data.md
      mri-score export-prior runs/brain --high runs/brain_heads --border 4 --name heads --summary "Adult heads."
    """
    from mri_score.config_file import read_config
    from mri_score.errors import InputError
    from mri_score.files import write_text
    from mri_score.priors.card import fits_float16, model_card, storage_error
    from mri_score.priors.store import find_prior, join_experts, load_prior, read_record, save_prior
    from mri_score.training.log import read_log
    from mri_score.untrusted.text import read_text

    if (high is None) != (border is None):
        raise InputError("--high RUN and --border SIGMA must be given together")
    if not name or Path(name).name != name:
        raise InputError(f"--name {name!r} must be a file name without a folder, such as --name knee")
    parts = []
    for data_card in data_cards:
        try:
            parts.append(read_text(data_card, 1 << 20).strip())
        except InputError as error:
            raise InputError(f"--data-card {data_card} cannot be read: {error}") from error
    data = "\n".join(parts) if parts else None
    source = find_prior(run)
    path = out / f"{name}.safetensors"
    if path.exists():
        raise InputError(f"{path} exists already; choose another --name or --out, or remove it")
    settings = read_config(config or source.parent / "config.yaml")
    record, prior = read_record(source), load_prior(source)
    network = record["network"]
    known = {key: value for key, value in (record.get("about") or {}).items() if key != "base"}
    about = {**known, "summary": summary, "config": Path(config).name if config else "config.yaml"}
    logs = {"": read_log(source.parent / "log.jsonl")}
    if high is not None and border is not None:
        prior, network = join_experts(source, high, border)
        about = {key: value for key, value in about.items() if not key.startswith("ood_")}
        above = read_record(find_prior(high)).get("about") or {}
        about["high"] = {**above, "border": border, "config": above.get("config", "config.yaml")}
        logs = {
            f", sigma up to {border:g}": logs[""],
            f", sigma from {border:g}": read_log(find_prior(high).parent / "log.jsonl"),
        }

    change = math.inf
    if fits_float16(prior):
        save_prior(path, prior, network, about, half=True)
        change = storage_error(prior, load_prior(path))
    stored = f"float16, which changes what denoising removes by {change:.0e} of its size"
    if not change <= FLOAT16_TOLERANCE:  # `not <=` also rejects NaN, from an overflow on the way
        save_prior(path, prior, network, about)
        stored = "float32"
    loss = (settings.get("loss") or {}).get("name", "denoising")
    write_text(path.with_suffix(".md"), model_card(path, logs, loss, data, stored))
    say(f"{path}  {path.stat().st_size / 2**20:.1f} MB, {stored}")
    if data is None:
        note("the model card has no description of the data; add one with --data-card")
