"""Make the pictures of docs/concepts.md in docs/figures/concepts: a mixture of two Gaussians with its exact score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm
from scipy.stats import t as student

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures" / "concepts"
MEANS, STDS, WEIGHTS = np.array([-1.0, 1.2]), np.array([0.25, 0.35]), np.array([0.45, 0.55])
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#222222"  # Okabe and Ito: safe for colour-blind readers
X = np.linspace(-4, 4, 801)
MEASURED, NOISE = 0.45, 0.6
"""The measurement y = x + noise of the example, and the standard deviation of its noise."""


def density(x, sigma=0.0, means=MEANS, stds=STDS, weights=WEIGHTS):
    """The density of the mixture after noise of standard deviation sigma was added to it."""
    return (weights * norm.pdf(np.asarray(x)[..., None], means, np.hypot(stds, sigma))).sum(-1)


def score(x, sigma, means=MEANS, stds=STDS, weights=WEIGHTS):
    """The derivative of the logarithm of `density`."""
    wide = np.hypot(stds, sigma)
    parts = weights * norm.pdf(x[..., None], means, wide)
    return (parts * (means - x[..., None]) / wide**2).sum(-1) / parts.sum(-1)


def posterior():
    """Means, standard deviations and weights of the mixture given y: Bayes' rule for each of its parts."""
    variance = 1 / (1 / STDS**2 + 1 / NOISE**2)
    means = variance * (MEANS / STDS**2 + MEASURED / NOISE**2)
    weights = WEIGHTS * norm.pdf(MEASURED, MEANS, np.hypot(STDS, NOISE))
    return means, np.sqrt(variance), weights / weights.sum()


def walk(count, levels, random, mixture):
    """The positions at each noise level of walks along the probability flow, dx = -sigma score(x, sigma) d sigma."""
    x = levels[0] * random.normal(size=count)
    found = [x]
    for sigma, following in zip(levels[:-1], levels[1:], strict=True):
        x = x + (sigma - following) * sigma * score(x, sigma, *mixture)
        found.append(x)
    return np.array(found)


def save(figure, name):
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{name}.png", dpi=110, facecolor="white")


def main():
    figure = Figure((8.4, 2.6), layout="constrained")
    for axes, sigma in zip(figure.subplots(1, 4, sharey=True), (0, 0.3, 0.8, 2), strict=True):
        axes.plot(X, density(X, sigma), color=BLUE)
        axes.fill_between(X, density(X, sigma), color=BLUE, alpha=0.15)
        axes.set_title(f"sigma = {sigma:g}" if sigma else "images", fontsize=10)
        if sigma:
            places = np.linspace(-3, 3, 9)
            axes.quiver(
                places, 0 * places + 0.02, score(places, sigma), 0 * places, color=ORANGE, width=0.012, scale=60
            )
        axes.set(xlabel="x", yticks=[])
    save(figure, "prior")

    mixture = posterior()
    figure = Figure((8.4, 2.6), layout="constrained")
    curves = (
        ("prior: what images look like", density(X), BLUE), ("likelihood: what was measured",
        norm.pdf(MEASURED, X, NOISE), GREEN), ("posterior: both together", density(X, 0, *mixture), ORANGE),
    )  # fmt: skip
    for axes, (title, values, colour) in zip(figure.subplots(1, 3), curves, strict=True):
        axes.plot(X, values, color=colour)
        axes.fill_between(X, values, color=colour, alpha=0.15)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="x", yticks=[], xlim=(-3, 3))
    save(figure, "posterior")

    levels = np.geomspace(5, 0.01, 200)
    paths = walk(40, levels, np.random.default_rng(3), mixture)
    figure = Figure((8.4, 3.2), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    axes.semilogx(levels, paths, color=BLUE, alpha=0.55, linewidth=0.9)
    axes.invert_xaxis()
    axes.set(xlabel="noise level sigma, falling along the walk", ylabel="x", ylim=(-4, 4))
    many = walk(4000, levels, np.random.default_rng(4), mixture)[-1]
    beside.hist(many, bins=60, orientation="horizontal", density=True, color=BLUE, alpha=0.35, label="walks")
    beside.plot(density(X, 0, *mixture), X, color=ORANGE, label="exact posterior")
    beside.set(xticks=[])
    beside.legend(fontsize=8, frameon=False, loc="lower right")
    save(figure, "walk")

    random = np.random.default_rng(0)
    figure = Figure((8.4, 2.8), layout="constrained")
    for axes, (title, factor) in zip(
        figure.subplots(1, 3, sharey=True),
        (("overconfident", 0.5), ("calibrated", 1.0), ("too careful", 2.0)),
        strict=True,
    ):
        draws, truth = factor * random.normal(size=(8, 4000)), random.normal(size=4000)
        half = student.ppf(0.9, 7) * draws.std(0, ddof=1) * np.sqrt(1 + 1 / 8)
        inside = np.abs(truth - draws.mean(0)) <= half
        for place in range(24):
            axes.plot(
                [place] * 2, draws.mean(0)[place] + np.array([-1, 1]) * half[place], color=BLUE, linewidth=3, alpha=0.5
            )
            axes.plot(place, truth[place], "o", markersize=4, color=BLACK if inside[place] else ORANGE)
        axes.set_title(f"{title}: {100 * inside.mean():.0f} % of the truth in 80 % intervals", fontsize=9)
        axes.set(xlabel="pixel", ylim=(-5, 5), yticks=[])
    save(figure, "calibration")


if __name__ == "__main__":
    main()
