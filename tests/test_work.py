"""The work of a walk before it starts is what the walk then takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mri_score import load_prior, phantom, reconstruct, undersample
from mri_score.generation import GenerationOptions, inpaint, sample_prior
from mri_score.methods import METHODS
from mri_score.priors.store import build_prior
from mri_score.reconstruction import WalkOptions
from mri_score.work import draw_work, sample_work

PAGE = Path(__file__).resolve().parents[1] / "docs" / "samplers.md"


@pytest.fixture(scope="module")
def prior():
    return load_prior("brain-fast")


@pytest.mark.parametrize(
    "options",
    [
        {"method": "matched-draw"},
        {"method": "matched-draw", "steps": 12, "options": {"lanczos": 3, "mean_below": 0.0}},
        {"method": "matched-draw", "warm_start": 0.3},
        {"method": "mmps-draw", "steps": 3},
        {"method": "daps", "steps": 3, "options": {"inner_steps": 2, "heun": True}},
        {"method": "score-mri-coils", "steps": 3},
        {"method": "langevin", "steps": 3},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_draw_takes_the_calls_and_products_that_are_expected(prior, options):
    scan, told = undersample(phantom(32, coils=3), acceleration=2), []
    given = {"prior": prior, "noise_std": 0.01, "samples": 2, "progress": told.append}
    work = reconstruct(scan.kspace, mask=scan.mask, **given, **options).work
    expected = draw_work(WalkOptions(**options), prior, coils=3)
    assert (work.calls, work.products) == (2 * expected.calls, 2 * expected.products)
    assert sum(told) == work.evaluations == work.calls + work.products


def test_the_default_takes_47_calls_and_21_products(prior):
    """As the README says."""
    work = draw_work(WalkOptions(), prior)
    assert (work.calls, work.products) == (47, 21)


@pytest.mark.parametrize("settings", [GenerationOptions("heun-churn", 4), GenerationOptions("pigdm", 3)])
def test_samples_and_inpainted_images_take_the_evaluations_that_are_expected(prior, settings):
    told: list[int] = []
    image = torch.ones(24, 24, dtype=torch.complex64)
    if inpainting := settings.method == "pigdm":
        inpaint(prior, image, torch.eye(24) == 0, 2, settings, progress=told.append)
    else:
        sample_prior(prior, 2, image.shape, settings, progress=told.append)
    assert sum(told) == 2 * sample_work(settings, prior, inpainting)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("matched-draw", "one-step")])
def test_the_table_of_methods_says_the_calls_per_level(prior, name):
    """A final denoising may come on top; `matched-draw` takes one or two calls, depending on the level, and `one-step`
    has one level.
    """
    work = draw_work(WalkOptions(name, steps=4), prior, coils=1)
    assert work.calls - 4 * METHODS[name].calls in (0, 1)


def table_of_the_page() -> dict[str, list[str]]:
    """Method -> the cells of its row in the table `All of them` of docs/samplers.md."""
    section = PAGE.read_text(encoding="utf-8").partition("## All of them")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "| `" in line]
    return {cells[0].strip("`-"): cells for cells in rows if not cells[0].startswith("`--")}


def test_the_page_says_which_methods_give_estimates():
    assert {name: cells[4] == "an estimate" for name, cells in table_of_the_page().items()} == {
        name: not method.draws for name, method in METHODS.items()
    }


@pytest.mark.slow
def test_the_page_says_the_calls_and_products_of_a_draw(prior):
    network = {"name": "unet", "widths": [8, 16], "blocks": 1, "embedding": 8, "extra_channels": 2}
    generator = build_prior(network, precondition="generator", sigma_min=0.02, sigma_max=0.2)
    for name, cells in table_of_the_page().items():
        calls, _, products = cells[2].partition(" + ")
        work = draw_work(WalkOptions(name), generator if name == "one-step" else prior, coils=1)
        assert (work.calls, work.products) == (int(calls.split()[0]), int(products or 0)), name
