"""The model card of a prior: what it is, what it learned from, how well, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mri_score.files import sha256
from mri_score.models.network import NetworkPrior
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.store import load_prior, read_record

ROWS = 8
"""Of the training curve in a card."""
UNKNOWN_DATA = """## Data

Not stated. A prior without the sources and licence of its data should not be passed on: export it again with a
--data-card that names them, its intended use and its limits."""


Log = Sequence[Mapping[str, Any]]


def model_card(path: Path, logs: Mapping[str, Log], loss: str, data: str | None, stored: str) -> str:
    """The card, in Markdown, of the prior at `path` (.safetensors).

    logs: the entries of each run's log.jsonl, by what the heading of its curve says further; loss: what was minimised;
    data: Markdown that says what it learned from, its intended use and limits; stored: how its numbers are stored, and
    what that changes.
    """
    record = read_record(path)
    about, prior = record["about"], record["prior"]
    network = load_prior(path).network
    training, retrain = f"{_training(about)}, loss {loss}", f"`mri-score train --config {about['config']}`"
    if high := about.get("high"):
        training += f"; above sigma {high['border']:g}: {_training(high)}"
        retrain += f", and for the levels above sigma {high['border']:g} `--config {high['config']}`"
    curves = "\n".join(training_curve(log, title) for title, log in logs.items())
    return f"""# Prior `{path.stem}`

{about["summary"]}

**Research use only. Not for diagnosis, and not a medical device.**

| | |
|---|---|
| network | {_described(record["network"], network)}, {prior["precondition"]} preconditioning |
| noise levels | sigma {prior["sigma_min"]:g} to {prior["sigma_max"]:g}; sd {prior["sd"]:g} |
| training | {training} |
| weights | {path.name}, {path.stat().st_size / 2**20:.1f} MB, SHA-256 {sha256(path)} |
| numbers | {stored} |
| retrain | {retrain} |

{(data or UNKNOWN_DATA).strip()}

{curves}"""


def _described(section: Mapping[str, Any], network: nn.Module) -> str:
    """Its kind and number of parameters; for experts those of both."""
    if section["name"] == "experts":
        low, high = (_described(section[side], network.get_submodule(side)) for side in ("low", "high"))
        return f"two experts: {low}; for high noise levels {high}"
    return f"{section['name']}, {sum(parameter.numel() for parameter in network.parameters()):,} parameters"


def _training(about: Mapping[str, Any]) -> str:
    if "step" not in about:
        return "not said"
    return f"{about['step']:,} steps, {about.get('images', 0):,} images or patches"


def training_curve(log: Log, title: str = "") -> str:
    """The denoising errors of the log as a table, at most ROWS of them; what to know instead where there are none."""
    curve = [entry for entry in log if "denoising_errors" in entry]
    if not curve:
        return (
            f"## Training curve{title}\n\nNone: {'the run had no validation images' if log else 'no log of a run'}.\n"
        )
    sigmas = list(curve[-1]["denoising_errors"])
    shown = sorted({round(i * (len(curve) - 1) / (ROWS - 1)) for i in range(ROWS)})
    rows = [
        f"| {entry['step']:,} | " + " | ".join(f"{entry['denoising_errors'].get(s, float('nan')):.3f}" for s in sigmas)
        for entry in (curve[i] for i in shown)
    ]
    head = ["| step | " + " | ".join(f"sigma {sigma}" for sigma in sigmas), "|---" * (len(sigmas) + 1)]
    table = "\n".join(line + " |" for line in [*head, *rows])
    return f"""## Training curve{title}

Mean square error of the denoiser (averaged weights) on held-out images, in units of what the best linear guess without
structure reaches, sigma^2 sd^2 / (sigma^2 + sd^2), at the sd above: less is better, 1 is no prior at all. Images of
less energy, such as whole ones with their dark rim, reach less than 1 without any prior.

{table}
"""


def fits_float16(prior: NetworkPrior) -> bool:
    """Whether the weights of a prior stay finite in float16, which ends at 65504."""
    largest = torch.finfo(torch.float16).max
    return all(float(weight.abs().max()) <= largest for weight in prior.network.parameters() if weight.numel())


@torch.no_grad()
def storage_error(one: NetworkPrior, other: NetworkPrior, side: int = 64) -> float:
    """How far the denoised images of the priors `one` and `other` are apart: the largest over levels, or NaN.

    side: pixels along each axis of the test image, noise about a smooth object. Levels: 0.01 to 100, as far as the
    first learned them. The difference is relative to what the first takes away or to what it leaves, whichever is less.
    """
    place = torch.linspace(-2, 2, side)
    image = torch.exp(-(place[:, None] ** 2) - place**2).to(torch.complex64)[None]
    errors = []
    for number, level in enumerate(one.learned((0.01, 0.1, 1.0, 10.0, 100.0))):
        noisy = image + level * noise_like(image, generators(0, "storage", number))
        cleaned = one.denoise(noisy, level)
        scale = torch.minimum((cleaned - noisy).norm(), cleaned.norm())
        errors.append((other.denoise(noisy, level) - cleaned).norm() / scale)
    return float(torch.stack(errors).max())
