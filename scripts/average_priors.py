"""The weighted mean of the weights of two priors of one network, of which one was trained on from the other.

python scripts/average_priors.py FIRST SECOND --share 0.65 --out runs/average

The share belongs to SECOND. The mean of two such networks denoises like their mean at the cost of one: a prior that was
fine-tuned on other images keeps much of what it knew before. The result is a run folder for `mri-score export-prior`.
Reference: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import torch

from mri_score.config_file import read_config
from mri_score.errors import InputError
from mri_score.experiment import make_source
from mri_score.models.network import NetworkPrior
from mri_score.models.precision import find_precision
from mri_score.priors.record import read_record
from mri_score.priors.store import find_prior, load_prior, save_prior
from mri_score.training.batches import Batches
from mri_score.training.validation import SIGMAS, denoising_errors


def average(first: NetworkPrior, second: NetworkPrior, share: float) -> NetworkPrior:
    """`second` with the mean of the weights of both, its own counting `share`.

    Errors: InputError for priors of different networks.
    """
    weights, others = second.state_dict(), first.state_dict()
    if {name: tensor.shape for name, tensor in weights.items()} != {n: t.shape for n, t in others.items()}:
        raise InputError("the two priors have different networks, whose weights have no mean")
    mean = {name: torch.lerp(others[name].float(), tensor.float(), share) for name, tensor in weights.items()}
    second.load_state_dict(mean)
    return second


@click.command()
@click.argument("first")
@click.argument("second", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--share", type=click.FloatRange(0, 1), required=True, help="Of SECOND, a run folder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run folder to write.")
@click.option("--count", type=int, default=24, show_default=True, help="Validation images, in sixes.")
def main(first: str, second: Path, share: float, out: Path, count: int) -> None:
    """Average FIRST and the run SECOND; denoising errors are measured on the validation images of SECOND."""
    torch.set_num_threads(1)
    prior = average(load_prior(first), load_prior(second), share)
    settings = read_config(second / "config.yaml")
    source = make_source({**settings, "data": settings["validation"]})
    batches = Batches(source, 6, seed=1234)
    quick = prior.in_precision(find_precision("bfloat16"))
    errors = denoising_errors(quick, [batches[number] for number in range(max(1, count // 6))], prior.learned(SIGMAS))
    record = read_record(find_prior(second))
    made_of = {str(first): round(1 - share, 3), second.name: share}
    about = {**record["about"], "denoising_errors": errors, "average_of": made_of}
    out.mkdir(parents=True, exist_ok=True)
    save_prior(out / "prior.safetensors", prior, record["network"], about)
    for name in ("config.yaml", "log.jsonl"):
        shutil.copy(second / name, out / name)
    click.echo(", ".join(f"{sigma:g}: {error:.4f}" for sigma, error in errors.items()))


if __name__ == "__main__":
    main()
