"""The priors that come with the package: whole, described, small, and of use on an object that none has seen."""

from __future__ import annotations

import pytest
import torch

from mri_score.config_file import read_config
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.record import bundled_priors
from mri_score.priors.store import load_prior, read_record
from mri_score.simulation.phantom import phantom

PRIORS = bundled_priors()
LIMIT = 16 * 2**20
"""Bytes of a file of weights."""


def test_the_default_and_its_companions_are_there():
    assert {"brain", "brain@1", "brain-complex", "brain-fast", "brain-ncsnv2", "brain-heads"} <= set(PRIORS)


@pytest.mark.parametrize("name", PRIORS)
def test_its_card_says_what_it_is(name):
    path, record = PRIORS[name], read_record(PRIORS[name])
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    for part in (
        f"# Prior `{name}`", record["about"]["summary"], record["sha256"], "CC BY 4.0", "Research use only",
        "## Data", "## Intended use", "## Limits", "## Training curve",
    ):  # fmt: skip
        assert part in card, part
    assert path.stat().st_size <= LIMIT


@pytest.mark.parametrize("name", PRIORS)
def test_its_config_makes_the_same_network(name):
    record = read_record(PRIORS[name])
    settings = read_config(record["about"]["config"])
    network = record["network"]
    network = network["low"] if network["name"] == "experts" else network
    assert all(network[key] == value for key, value in settings["network"].items())
    assert record["prior"]["precondition"] == settings["prior"]["precondition"]


@pytest.mark.parametrize("name", PRIORS)
def test_it_denoises_an_object_that_it_has_not_seen(name):
    prior, image = load_prior(name), phantom(128, 1, slices=1).image
    for sigma in (0.1, 0.3):
        noisy = image + sigma * noise_like(image, generators(0, "bundled", sigma))
        error = (prior.denoise(noisy, sigma) - image).abs().square().mean() / 2
        assert error < 0.5 * sigma**2 * prior.sd**2 / (sigma**2 + prior.sd**2)  # half of the best linear guess's
    assert torch.isfinite(prior.denoise(image, prior.sigma_max).abs()).all()
