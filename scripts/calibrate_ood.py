"""Measure the out-of-distribution thresholds of a prior for each acceleration, and write them into its record.

The scans must be similar to the prior's validation images.

python scripts/calibrate_ood.py SCAN [SCAN ...] --prior brain
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.methods import DEFAULT_METHOD
from mri_score.models.network import NetworkPrior
from mri_score.models.precision import find_precision
from mri_score.priors.record import add_to_record
from mri_score.priors.store import find_prior, load_prior
from mri_score.readers import scan_files
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import sample_posterior


def ratios(path: Path, acceleration: float, prior: NetworkPrior, slices: int, steps: int | None) -> list[float]:
    """The misfit ratio of some slices of a full scan, undersampled, one walk each."""
    file = FastMRI(path)
    scan = Scan(file, Undersampling(acceleration))
    found = []
    for number in np.linspace(0, file.slices - 1, min(slices, file.slices)).round().astype(int).tolist():
        walk = sample_posterior(scan.acquisition(number), prior, steps=steps, samples=1, slices=[number])
        if walk.misfit_ratios is None:
            raise InputError(
                f"{DEFAULT_METHOD} measured no misfit: the prior's record needs denoising_errors (train it with"
                " validation images), and the walk levels between 0.03 and 1 (take more --steps)"
            )
        found.append(float(walk.misfit_ratios[0, 0]))
    return found


@click.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--prior", "name", required=True, help="A bundled prior, a run folder or a .safetensors file.")
@click.option("--accel", multiple=True, type=float, default=(4.0, 8.0), show_default=True)
@click.option("--slices", type=click.IntRange(1), default=8, show_default=True, help="Of each scan, evenly spaced.")
@click.option("--steps", type=click.IntRange(2), help="Of a walk.  [default: as mri-score reconstruct]")
@click.option("--quantile", type=click.FloatRange(0, 1), default=0.95, show_default=True)
@click.option("--margin", type=click.FloatRange(1), default=1.25, show_default=True, help="Times the quantile.")
@click.option("--precision", default="float32", show_default=True, help="Of the prior's network.")
@click.option("--dry-run", is_flag=True, help="Measure, and write nothing.")
def main(
    scans: tuple[Path, ...], name: str, accel: tuple[float, ...], slices: int, steps: int | None, quantile: float,
    margin: float, precision: str, dry_run: bool,
) -> None:  # fmt: skip
    """Measure SCANS, which must be fully sampled, similar to the training images, and not part of them."""
    path = find_prior(name)
    prior = load_prior(path)
    prior.precision = find_precision(precision)
    found: dict[float, list[float]] = {}
    print("| scan | R | slices | median | largest |\n|---|---|---|---|---|")
    files = [file for given in scans for file in scan_files(given)]
    for file in files:
        for factor in accel:
            some = ratios(file, factor, prior, slices, steps)
            print(f"| {file.name} | {factor:g} | {len(some)} | {np.median(some):.2f} | {max(some):.2f} |", flush=True)
            found.setdefault(factor, []).extend(some)
    thresholds = {
        f"{factor:g}": round(margin * float(np.quantile(some, quantile)), 3) for factor, some in found.items()
    }
    print()
    for factor, some in found.items():
        limit = thresholds[f"{factor:g}"]
        print(f"R = {factor:g}: above {limit:g}, {margin:g} times the {quantile:.0%} quantile of {len(some)} slices")
    if not dry_run:
        basis = {
            "scans": [file.name for file in files], "slices": len(next(iter(found.values()))),
            "law": Undersampling(accel[0]).law, "method": DEFAULT_METHOD, "draws": 1, "precision": precision,
            "quantile": quantile, "margin": margin,
        }  # fmt: skip
        add_to_record(path, ood_thresholds=thresholds, ood_basis=basis)
        print(f"written to {path.with_suffix('.json')}")


if __name__ == "__main__":
    main()
