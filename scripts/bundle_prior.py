"""Bundle a run's prior with the package: weights in float16, description and model card.

python scripts/bundle_prior.py RUN NAME --config brain.yml --data-card scripts/cards/brain_data.md
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from mri_score.experiment import read_config
from mri_score.files import sha256, write_text
from mri_score.priors.store import find_prior, load_prior, read_record, save_prior

WEIGHTS = Path(__file__).resolve().parents[1] / "mri_score" / "priors" / "weights"


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("name")
@click.option("--config", required=True, help="The config that made the run.")
@click.option("--data-card", type=click.Path(exists=True, path_type=Path), required=True, help="What the data are.")
@click.option("--summary", required=True, help="One line for mri-score priors.")
def main(run: Path, name: str, config: str, data_card: Path, summary: str) -> None:
    record = read_record(find_prior(run))
    settings = read_config(config)
    about = {**record["about"], "summary": summary, "config": config}
    path = WEIGHTS / f"{name}.safetensors"
    save_prior(path, load_prior(run), record["network"], about, half=True)
    write_text(path.with_suffix(".md"), card(name, run, record, about, settings, data_card.read_text(), path))
    click.echo(f"{path}  {path.stat().st_size / 2**20:.1f} MB")


def card(
    name: str, run: Path, record: dict, about: dict, settings: dict, data: str, path: Path
) -> str:
    """The model card, in Markdown."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    curve = [line for line in lines if "denoising_errors" in line]
    shown = sorted({round(i * (len(curve) - 1) / 7) for i in range(8)}) if curve else []
    sigmas = list(curve[-1]["denoising_errors"]) if curve else []
    head = "| step | " + " | ".join(f"sigma {sigma}" for sigma in sigmas) + " |\n|" + "---|" * (len(sigmas) + 1)
    rows = [
        f"| {curve[i]['step']} | " + " | ".join(f"{curve[i]['denoising_errors'][s]:.3f}" for s in sigmas) + " |"
        for i in shown
    ]
    prior = record["prior"]
    weights = load_prior(path)
    count = sum(parameter.numel() for parameter in weights.network.parameters())
    table = "\n".join([head, *rows])
    return f"""# Prior `{name}`

{about["summary"]}

**Research use only. Not for diagnosis, and not a medical device.**

| | |
|---|---|
| network | {record["network"]["name"]}, {count:,} parameters, {record["prior"]["precondition"]} preconditioning |
| noise levels | sigma {prior["sigma_min"]:g} to {prior["sigma_max"]:g}; sd {prior["sd"]:g} |
| training | {about["step"]:,} steps, {about["images"]:,} patches, loss {settings["loss"]["name"]} |
| weights | {path.name}, {path.stat().st_size / 2**20:.1f} MB, float16, SHA-256 {sha256(path)} |
| retrain | `mri-score train --config {about["config"]}` |

{data.strip()}

## Training curve

Mean square error of the denoiser (averaged weights) on patches of the validation patient, in units of what the best
linear guess without structure reaches, sigma^2 sd^2 / (sigma^2 + sd^2): less is better, 1 is no prior at all.

{table}
"""


if __name__ == "__main__":
    main()
