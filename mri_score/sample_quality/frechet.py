"""The Fréchet distance between two sets of images, by the Gaussians that fit their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mri_score.errors import InputError
from mri_score.files import whole_file, write_text

GROUPS = 10
"""Parts that the jackknife leaves out in turn."""
LEAST = 4
"""Images a side: fewer have no covariance left once a part is out."""


@dataclass(frozen=True)
class Gaussian:
    """A mean and a covariance root^T root; the root may have any number of rows, so that no covariance is too singular.

    Shapes: mean (D,), root (r, D), both float64.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Gaussian:
        """Sample mean and covariance (over n - 1) of features (n, D), by QR: the covariance is never formed."""
        features = features.detach().to("cpu", torch.float64)
        if features.ndim != 2 or len(features) < 2 or not bool(torch.isfinite(features).all()):
            raise InputError(
                f"features of shape {tuple(features.shape)} fit no Gaussian; it takes finite numbers, (n, D) with n > 1"
            )
        mean = features.mean(0)
        return cls(mean, torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R)

    @classmethod
    def from_covariance(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        variances, axes = torch.linalg.eigh(covariance.double())
        return cls(mean.double(), variances.clamp_min(0).sqrt()[:, None] * axes.T)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared 2-Wasserstein distance of Gaussians.

    The eigenvalues of C_a^1/2 C_b C_a^1/2 are the squared singular values of R_a R_b^T for any roots C = R^T R: their
    roots are found without squaring, so that nothing turns complex and equal sets are 0 to rounding.
    Errors: InputError for features of different sizes.
    Reference: Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017, where it is the FID.
    """
    if len(a.mean) != len(b.mean):
        raise InputError(f"features of {len(a.mean)} and of {len(b.mean)} numbers cannot be compared; use one network")
    means = (a.mean - b.mean).square().sum()
    cross = torch.linalg.svdvals(a.root @ b.root.T).sum()
    return max(0.0, float(means + a.root.square().sum() + b.root.square().sum() - 2 * cross))


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance, its extrapolation to large sets and the standard error of that."""

    value: float
    """Distance of the two sets. Its bias is positive, about 1 / n: compare only distances of equal n."""
    extrapolated: float
    """Distance with that bias removed for both sets; negative only by chance."""
    std_error: float
    """Standard error of the extrapolated distance."""
    samples: int
    reference: int | None
    """Number of real images; None where only their mean and covariance are known."""
    features: int

    @property
    def caution(self) -> str | None:
        """A warning if a set has no more images than features; else None."""
        if min(self.samples, self.reference or self.samples) > self.features:
            return None
        if self.reference is None:
            return f"{self.samples} samples are few for {self.features} features; use more than {self.features}"
        return (
            f"{self.samples} samples and {self.reference} images are few for {self.features} features: the covariance"
            " is"
            " singular, the distance far too large and its extrapolation rough; compare it only with distances of the"
            f" same numbers, or use more than {self.features} of both"
        )


def measure(features: Tensor, reference: Tensor | Gaussian) -> Distance:
    """The distance between features (n, D) and (m, D), its extrapolation to n, m -> infinity and its standard error.

    A reference of which only mean and covariance are known is taken as exact.

    Both by the jackknife over up to GROUPS runs of neighbours, which may be slices of one volume: with d the distance
    and d_g the one without part g of G, the bias is (G - 1) (mean d_g - d), exact for a bias of b / n, and the variance
    (G - 1) / G sum (d_g - mean d_g)^2; those of the two sides add up.
    Errors: InputError for fewer than LEAST images a side.
    Reference: Chong and Forsyth, Effectively unbiased FID, CVPR 2020 (a line in 1 / n); Quenouille, Biometrika 1956.
    """
    known = isinstance(reference, Gaussian)
    count = LEAST if isinstance(reference, Gaussian) else len(reference)
    if min(len(features), count) < LEAST:
        raise InputError(
            f"{len(features)} samples against {count} images: a Fréchet distance needs {LEAST} of both or more"
        )
    a, b = Gaussian.fit(features), reference if isinstance(reference, Gaussian) else Gaussian.fit(reference)
    value = frechet_distance(a, b)
    bias, variance = 0.0, 0.0
    sides = [(features, b)] if isinstance(reference, Gaussian) else [(features, b), (reference, a)]
    for one, other in sides:
        parts = torch.arange(len(one)).tensor_split(min(GROUPS, len(one) // 2))
        left = [frechet_distance(Gaussian.fit(_without(one, part)), other) for part in parts]
        without = torch.tensor(left, dtype=torch.float64)
        bias += (len(parts) - 1) * (float(without.mean()) - value)
        variance += (len(parts) - 1) * float(without.var(correction=0))
    return Distance(value, value - bias, variance**0.5, len(features), None if known else count, features.shape[1])


def _without(features: Tensor, part: Tensor) -> Tensor:
    return torch.cat([features[: int(part[0])], features[int(part[-1]) + 1 :]])


def best(distances: Mapping[str, Distance]) -> str:
    """The name with the smallest distance."""
    return min(distances, key=lambda name: distances[name].value)


def write_table(path: Path, distances: Mapping[str, Distance]) -> None:
    """Write a CSV file with one row for each prior, checkpoint or file of samples."""
    rows = [{"name": name, **asdict(distance)} for name, distance in distances.items()]
    texts = [["" if one is None else f"{one:.8g}" if isinstance(one, float) else str(one) for one in row.values()]
             for row in rows]  # fmt: skip
    lines = list(map(",".join, texts))
    write_text(path, "\n".join([",".join(rows[0]), *lines]) + "\n")


def write_plot(path: Path, distances: Mapping[int, Distance], title: str) -> None:
    """Distance against training step, as measured and extrapolated, with the standard error and the best step."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps, found = list(distances), list(distances.values())
    axes.plot(steps, [one.value for one in found], "o-", color="tab:blue", label=f"{found[0].samples} samples")
    axes.errorbar(
        steps, [one.extrapolated for one in found], [one.std_error for one in found], fmt="s--", color="0.5",
        elinewidth=0.8, markersize=4, label="extrapolated, ± standard error",
    )  # fmt: skip
    least = min(steps, key=lambda step: distances[step].value)
    axes.plot(least, distances[least].value, "*", color="tab:orange", markersize=15, label=f"best: step {least:,}")
    axes.set(xlabel="training step", ylabel="distance", title=title)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(True, color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=130)
