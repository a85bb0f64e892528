"""What a reader does with the report, in headless Chromium: clicks, keys, sizes, dark; no errors on the console."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chromium import PROGRAM, Chromium

from mri_score.evaluation.panel import picture
from mri_score.evaluation.report import Report, StudyRow, render_study, write_report
from mri_score.evaluation.viewer import ShownSlice, Viewer
from mri_score.files import write_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed; apt install chromium"),
]
SIDE = 40
AXE = Path(__file__).resolve().parents[1] / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def browser():
    with Chromium() as page:
        yield page


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A report of two slices: constant images, whose values a test can look for, and a ramp along the rows."""
    ramp = np.broadcast_to(np.linspace(0.2, 1, SIDE), (SIDE, SIDE))
    slices = [
        ShownSlice(
            f"Slice {number}", ramp, number, std=0.1 * ramp, truth=ramp + 0.1, baselines={"CG-SENSE": ramp - 0.1},
            draws=[np.full((SIDE, SIDE), 0.25 * draw) for draw in (1, 2, 3)],
        )
        for number in (0, 1)
    ]  # fmt: skip
    viewer = Viewer(slices, captions={"CG-SENSE": "20 dB"}, pixel=(1.0, 1.0), edges="RLAP")
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, Report("head", {"File": "head.h5"}, viewer=viewer, notes=["dead coil"])).as_uri()


def shown(browser, address, **window):
    browser.problems.clear()
    browser.open(address, **window)
    browser.wait("document.querySelector('.viewer').dataset.shown !== undefined")
    assert browser.problems == []


def labels(browser):
    return browser.run("[...document.querySelectorAll('canvas.image')].map(one => one.ariaLabel)")


def test_keys_step_through_slices_and_draws_and_the_text_of_each_image_follows(browser, address):
    shown(browser, address)
    assert len(labels(browser)) == 7
    assert labels(browser)[1].startswith("Draw 1, Slice 0: Magnitude, root mean square 0.25")
    browser.press("ArrowDown")
    browser.press("ArrowRight")
    browser.wait("document.querySelector('.viewer').dataset.shown === '1 2'")
    assert labels(browser)[1].startswith("Draw 2, Slice 1: Magnitude, root mean square 0.5")
    error = "Error: reconstruction, Slice 1: |Error| of the magnitude, root mean square 0.1"
    assert labels(browser)[5].startswith(error)
    browser.press(" ")
    browser.wait("document.querySelector('.viewer').dataset.shown === '1 3'")  # the film runs
    browser.press(" ")
    assert browser.problems == []


def test_zoom_is_in_step_and_window_and_enlargement_answer(browser, address):
    shown(browser, address)
    middle = browser.run(
        "(() => { const box = document.querySelector('canvas.image').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2, box.width]; })()"
    )
    pixels = (
        "[...document.querySelectorAll('canvas.image')].map("
        "one => [...one.getContext('2d').getImageData(30, 60, 1, 1).data])"
    )
    before = browser.run(pixels)
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=middle[0], y=middle[1], deltaX=0, deltaY=-600)
    browser.wait(f"JSON.stringify({pixels}) !== '{str(before).replace(' ', '')}'")
    after = browser.run(pixels)
    assert after[0] != before[0] and after[2] != before[2] and after[3] != before[3]  # all panels moved together
    least = browser.run("document.querySelector('.most').textContent")
    browser.run("document.querySelector('[data-tool=window]').click()")
    browser.drag((middle[0], middle[1]), (middle[0] + 60, middle[1]))
    assert float(browser.run("document.querySelector('.most').textContent")) > float(least)
    browser.press("f")
    assert browser.run("[...document.querySelectorAll('.view')].filter(one => one.offsetWidth).length") == 1
    assert browser.run("document.querySelector('canvas.image').clientWidth") > 1.5 * middle[2]
    browser.press("0")
    assert browser.run("document.querySelector('.most').textContent") == least
    assert not [one for one in browser.problems if "willReadFrequently" not in one]  # a hint on this test's own reading


def test_a_profile_states_what_it_crosses(browser, address):
    shown(browser, address)
    browser.press("p")
    text = browser.run("document.querySelector('.profile canvas').ariaLabel")
    assert "Profile of 40 mm" in text and "from 0.2" in text and "band: ± 2 std" in browser.run(
        "document.querySelector('.profile .names').textContent"
    )


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_the_first_screen_has_the_images_and_nothing_is_cut_off(browser, address, width, dark):
    shown(browser, address, width=width, height=880, dark=dark)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("document.querySelectorAll('canvas.image')[3].getBoundingClientRect().bottom <= innerHeight")
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
    text = browser.run("document.body.innerText")
    assert text.index("1 warning") < text.index("What was run")


def test_the_index_of_a_study_sorts_and_filters(browser, tmp_path):
    given = (("head_2", 31.0, []), ("head_10", 29.5, ["dead coil"]), ("knee", None, []))
    rows = [StudyRow(name, f"{name}/index.html", picture(np.eye(9)), {"PSNR (dB)": psnr}, notes)
            for name, psnr, notes in given]  # fmt: skip
    write_text(tmp_path / "index.html", render_study("All", rows))
    browser.problems.clear()
    browser.open((tmp_path / "index.html").as_uri())
    names = "[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.cells[1].innerText)"
    assert browser.run(names) == ["head_10", "head_2", "knee"]  # the one with a warning first
    browser.run("document.querySelectorAll('thead button')[0].click()")
    assert browser.run(names) == ["head_2", "head_10", "knee"]
    browser.run("document.querySelectorAll('thead button')[1].click()")
    assert browser.run(names) == ["head_10", "head_2", "knee"]  # rows without a number stay last
    browser.run("filter.value = 'head'; filter.dispatchEvent(new Event('input'))")
    browser.run("warned.click()")
    assert browser.run(names) == ["head_10"] and browser.run("count.textContent") == "1 of 3"
    assert browser.problems == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed; CONTRIBUTING.md names the command")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_core_finds_no_violation_in_a_report_and_an_index_of_a_study(browser, address, tmp_path, dark):
    rows = [StudyRow(name, f"{name}/index.html", picture(np.eye(9)), {"PSNR (dB)": 29.5}, notes)
            for name, notes in (("head", ["dead coil"]), ("knee", []))]  # fmt: skip
    write_text(tmp_path / "index.html", render_study("All", rows))
    for page in (address, (tmp_path / "index.html").as_uri()):
        browser.open(page, dark=dark)
        browser.run(AXE.read_text(encoding="utf-8") + ";0")
        found = browser.run("axe.run({resultTypes: ['violations']}).then(found => found.violations.map("
                            "one => one.id + ': ' + one.nodes.map(node => node.html).join(' ')))")  # fmt: skip
        assert found == [], page
