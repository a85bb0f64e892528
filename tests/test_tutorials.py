"""The tutorial pages run, say what is so, and their Markdown is of the pages as they stand."""

from __future__ import annotations

import json
import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
loader = SourceFileLoader("tutorials", str(ROOT / "scripts" / "tutorials"))
runner = module_from_spec(spec_from_loader("tutorials", loader))
loader.exec_module(runner)
PAGES = {page.stem: page for page in runner.pages()}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a page at its small size, in an empty folder: its names, and how many figures it drew."""
    monkeypatch.setenv("MRI_SCORE_TUTORIAL", "quick")
    monkeypatch.chdir(tmp_path)

    def page(name: str):
        names, results = runner.execute(PAGES[name], tmp_path / "figures")
        drawn = [path for result in results for path, _ in result.figures]
        assert [path.name for path in drawn] == [path.name for path in sorted((tmp_path / "figures").iterdir())]
        assert {path.name for path in drawn} == {path.name for path in (FOLDER / "figures").glob(f"{name}_*.png")}
        assert [path.name for path in tmp_path.iterdir()] == ["figures"]  # a page leaves nothing else behind
        return names

    return page


def test_plain_langevin_has_the_weights_of_the_basins_and_annealed_those_of_the_law(run):
    names = run("01_langevin_on_a_mixture")
    found, weights = names["found"], names["weights"]
    assert float((found["annealed"] - weights).abs().sum() / 2) < 0.08  # 400 samples alone: about 0.03
    assert float((found["plain"] - weights).abs().sum() / 2) > 0.2
    assert float(names["settled"][0]) < 0.7 and float(names["settled"][-1]) == 1
    after = names["sigmas"] < 1
    assert float(names["settled"][after].min()) > 0.97


@pytest.mark.slow
def test_many_levels_are_right_where_one_is_not(run):
    names = run("02_a_learned_score")
    one, many = names["errors"]["one"], names["errors"]["many"]
    assert many[0] < one[0] and many[6] < 0.8 * one[6]  # sigma 10 and 1
    assert max(many[-1], one[-1]) < 0.3  # both have learned something at 0.2; no score at all: about 0.5 there
    verdicts = names["verdicts"]
    assert verdicts["truth"][0] > 0.97 and verdicts["one level, exact score"][0] > 0.97
    assert verdicts["one level, exact score"][1] > 2 * verdicts["truth"][1]
    assert verdicts["many levels, learned"][1] < verdicts["one level, learned"][1]


@pytest.mark.slow
def test_noise_levels_are_measured_and_a_minute_of_training_learns(run):
    names = run("03_images_to_prior")
    parameters, curves = names["parameters"], names["curves"]
    norms = sorted((float(one.abs().square().sum() ** 0.5) for one in names["examples"]), reverse=True)
    assert parameters.sigma_max > 0.9 * sum(norms[:2])  # examples are six of the many images that were measured
    assert names["level_overlap"](parameters.dimension, names["ratio"]) == pytest.approx(0.5, abs=0.01)
    excess = names["excess_variance"]
    least = excess(names["best"], names["ratio"], parameters.repeats)
    assert all(least < excess(names["best"] * off, names["ratio"], parameters.repeats) for off in (0.9, 1.1))
    first, last = min(curves), max(curves)
    assert curves[last]["0.3"] < min(0.95, curves[first]["0.3"])
    assert (names["prior"].sigma_min, names["prior"].sigma_max) == (parameters.sigma_min, parameters.sigma_max)


@pytest.mark.slow
def test_sure_denoises_without_clean_points_and_its_prior_is_too_narrow(run):
    names = run("04_noisy_only")
    error = {name: names["denoising_error"](prior) for name, prior in names["priors"].items()}
    assert names["best"] < names["naive_best"] < names["noise_std"] ** 2
    assert names["best"] < error["SURE"] < 0.85 * error["naive"] < names["noise_std"] ** 2
    spreads = names["spreads"]
    assert spreads["SURE"] < spreads["clean"] < spreads["naive"]
    assert spreads["truth"] == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_the_posterior_mean_beats_one_draw_and_cg_sense(run):
    names = run("05_reconstruction")
    psnr = {name: score[0] for name, score in names["scores"].items()}
    assert psnr["posterior mean"] > psnr["one draw"]
    assert psnr["posterior mean"] > psnr["CG-SENSE"] > psnr["zero-filled"]
    true, found = float(names["scan"].noise_std), float(names["used"].noise_std[0] * names["used"].scale[0])
    assert found == pytest.approx(true, rel=0.1)
    assert 0.5 < names["ratio"] < 2


@pytest.mark.slow
def test_ddpm_and_the_flow_reach_the_truth_and_the_flow_knows_the_density(run):
    names = run("06_ddpm_and_sde")
    for found in names["errors"].values():
        assert found[-1] < 0.8 * found[0]
    assert names["errors"]["Heun on the flow"][-1] < 2 * names["ideal"]
    exact = (names["curves"]["exact score"] - names["known"]).abs()
    assert float(exact.median()) < 0.03
    trails = names["trails"]
    flow = trails["probability flow: none"]
    order = flow[0].argsort()
    assert bool((flow[:, order].diff(dim=1) >= -1e-4).all())  # paths of a flow never cross


@pytest.mark.parametrize("name", PAGES)
def test_the_notebook_is_of_the_page_as_it_stands(name):
    text = (FOLDER / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text == runner.notebook(PAGES[name])
    cells = json.loads(text)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code == [cell.code for cell in runner.read_page(PAGES[name])[2] if cell.code]
    for one in code:
        compile(one, name, "exec")


@pytest.mark.parametrize("name", PAGES)
def test_the_markdown_is_of_the_page_as_it_stands(name):
    title, introduction, cells = runner.read_page(PAGES[name])
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert runner.code_of(text) == [cell.code for cell in cells if cell.code]
    assert text.startswith(f"# {title}\n\n{introduction}\n")
    assert all(cell.text in text for cell in cells)
    shown = re.findall(r"!\[.+?\]\((\S+?)\)", text)
    assert shown == [f"figures/{path.name}" for path in sorted((FOLDER / "figures").glob(f"{name}_*.png"))]


def test_the_index_names_every_page_and_its_links_lead_somewhere():
    for path in FOLDER.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+?)\)", text):
            assert (FOLDER / link).exists(), f"{path.name}: {link}"
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.md)" in index for name in PAGES)


def test_figures_are_small():
    assert all(path.stat().st_size < 200_000 for path in (FOLDER / "figures").iterdir())


def test_a_page_is_cut_into_text_and_code_with_the_lines_of_the_file(tmp_path):
    page = tmp_path / "07_page.py"
    page.write_text(
        '"""Title\n\nIntro.\n"""\n\n# %%\n# ## Head\n#\n# Text.\n\nx = 1\n\n# %% [figure]\nraise ValueError(x)\n'
    )
    title, introduction, cells = runner.read_page(page)
    assert (title, introduction) == ("Title", "Intro.")
    first, second = cells
    assert first == runner.Cell("## Head\n\nText.", "x = 1", 11, False)
    assert second == runner.Cell("", "raise ValueError(x)", 14, True)
    with pytest.raises(ValueError) as caught:
        runner.execute(page, tmp_path)
    assert caught.traceback[-1].lineno + 1 == 14


def test_output_and_folded_code_appear_in_the_markdown(tmp_path):
    page = tmp_path / "07_page.py"
    page.write_text('"""Title\n\nIntro.\n"""\n\n# %%\nprint("seen")\n\n# %% [figure]\n# Folded.\nx = 1\n')
    _, results = runner.execute(page, tmp_path / "figures")
    text = runner.markdown(page, results)
    assert "```text\nseen\n```" in text
    assert "Folded.\n\n<details><summary>Code</summary>\n\n```python\nx = 1\n```\n\n</details>" in text
    assert runner.code_of(text) == ['print("seen")', "x = 1"]
