"""Pictures show the right greys, and the report is one safe, self-contained page."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mri_score.errors import InputError
from mri_score.evaluation import panel as pictures
from mri_score.evaluation.panel import choose_zoom, display_window, panel, picture, save_png, zoomed
from mri_score.evaluation.report import (
    IntervalCheck,
    MethodScores,
    Report,
    StudyRow,
    Table,
    render_study,
    score_table,
    write_report,
)
from mri_score.evaluation.uncertainty import EnsembleCalibration, Outliers
from mri_score.evaluation.viewer import BUDGET, ShownSlice, Viewer

RAMP = np.linspace(0, 1, 35 * 28).reshape(35, 28)


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)))


def test_a_picture_is_the_magnitude_in_its_window():
    image = RAMP * np.exp(1j * 7 * RAMP)
    assert np.array_equal(decode(picture(image, (0.0, 0.5))), np.round(255 * np.minimum(2 * RAMP, 1)))
    assert display_window(image) == (0, pytest.approx(np.percentile(RAMP, 99.5)))
    assert not decode(picture(np.zeros((4, 5)))).any()


def columns_of(png: bytes, count: int) -> list[np.ndarray]:
    """The whole images of a panel, a few pixels inside their edges."""
    pixels = decode(png)[..., :3].astype(int)
    step, size = (pictures.COLUMN + 0.06) * pictures.DPI, pictures.COLUMN * pictures.DPI
    bottom = round((pictures.COLUMN + 0.12) * pictures.DPI)
    rows = pixels[-bottom - 40 : -bottom - 8]
    return [rows[:, round(n * step + 20) : round(n * step + size - 10)] for n in range(count)]


def test_all_images_of_a_panel_share_the_truths_window():
    truth = np.ones((40, 40))
    truth[:20] = 0.5
    shown = columns_of(panel({"half": truth / 2, "double": truth * 2}, truth=truth, zoom=(0, 0, 9)), 3)
    assert [np.median(one) for one in shown] == [255, pytest.approx(128, abs=1), 255]


def test_error_and_std_share_one_scale_and_the_gain_is_the_largest_that_fits():
    truth = np.full((40, 40), 10.0)
    images, std = {"reconstruction": truth + 0.6}, np.full((40, 40), 0.6)
    _, _, error, spread = columns_of(panel(images, truth=truth, std=std, zoom=(0, 0, 9)), 4)
    assert np.median(np.abs(error - spread)) == 0
    stated = columns_of(panel(images, truth=truth, std=std, zoom=(0, 0, 9), gain=10), 4)
    chosen = columns_of(panel(images, truth=truth, std=std, zoom=(0, 0, 9)), 4)
    doubled = columns_of(panel(images, truth=truth, std=2 * std, zoom=(0, 0, 9), gain=5), 4)
    assert np.array_equal(stated[3], chosen[3])  # 0.6 * 10 fits into 10, 0.6 * 20 does not
    assert np.array_equal(stated[3], doubled[3]) and not np.array_equal(stated[2], doubled[2])


def test_without_a_truth_the_last_image_sets_the_window():
    images = {"zero-filled": np.full((40, 40), 3.0), "mean": np.full((40, 40), 6.0)}
    shown = columns_of(panel(images, zoom=(0, 0, 9)), 2)
    assert [np.median(one) for one in shown] == [pytest.approx(128, abs=1), 255]


@pytest.mark.parametrize("shape", [(35, 28), (40, 45), (3, 2)])
def test_the_zoom_is_where_the_draws_differ_most(shape):
    random = np.random.default_rng(1)
    std = random.random(shape) ** 6
    zoom = choose_zoom(np.ones(shape), std)
    side = zoom[2]
    assert side == max(min(shape) // 3, 1) and zoomed(std, zoom).shape == (side, side)
    squares = np.lib.stride_tricks.sliding_window_view(std**2, (side, side)).mean((2, 3))
    assert np.mean(zoomed(std, zoom) ** 2) == pytest.approx(squares.max())


def test_the_zoom_without_a_std_is_the_middle_of_the_object():
    image = np.zeros((60, 90))
    image[30:50, 10:40] = 1
    assert choose_zoom(image) == (30, 14, 20)
    assert choose_zoom(np.zeros((60, 90))) == (20, 35, 20)


def test_panels_of_odd_images_are_files_and_shapes_must_agree(tmp_path):
    save_png(tmp_path / "a/panel.png", panel({"zero-filled": RAMP, "mean": RAMP}, std=RAMP))
    height, width = decode((tmp_path / "a/panel.png").read_bytes()).shape[:2]
    assert width > 3 * pictures.COLUMN * pictures.DPI
    assert height == pytest.approx(pictures.DPI * (0.28 + pictures.COLUMN * (35 / 28 + 1) + 0.12), abs=1)
    with pytest.raises(InputError, match="one shape"):
        panel({"mean": RAMP}, truth=RAMP[1:])
    with pytest.raises(InputError, match="finite"):
        panel({"mean": RAMP * np.nan})


def scores(psnr, ssim, nmse):
    return {"psnr": psnr, "ssim": ssim, "nmse": nmse, "mse": 0.1}


METHODS = [
    MethodScores("zero-filled", scores(24.0, 0.71, 0.09), scores(28.0, 0.9, 0.1)),
    MethodScores("mean of 8 draws", scores(33.25, 0.92, 0.01), scores(35.0, 0.85, 0.011), seconds=12.34),
]


def test_the_best_of_each_column_is_marked_and_low_nmse_is_best():
    table = score_table("|MVUE|", METHODS)
    assert table.rows[1] == ["mean of 8 draws", "33.25", "0.9200", "0.0100", "35.00", "0.8500", "0.0110", "12.3"]
    assert table.best == {(1, 1), (1, 2), (1, 3), (1, 4), (0, 5), (1, 6)}
    assert sum(columns for _, columns in table.spans) == len(table.columns) == len(table.rows[0])


SLICE = ShownSlice(
    "Slice 3", RAMP, std=0.1 * RAMP, truth=RAMP[::-1], baselines={"CG-SENSE": RAMP / 2}, draws=[RAMP, 1 - RAMP]
)
VIEWER = Viewer([SLICE], estimate="mean of 2 draws", unit=3.0, captions={"CG-SENSE": "<i>24 dB</i>"})


def shown(viewer: Viewer) -> tuple[dict, list[dict[str, np.ndarray]]]:
    """The data of a viewer, and its images as the page decodes them: the root of a value in 8 bits."""
    data = json.loads(viewer.json())
    images = []
    for place in data["places"]:
        greys = {name: decode(b64decode(url.split(",")[1]))[..., 0] / 255 for name, url in place["images"].items()}
        tops = {name: data["tops"]["std" if name == "std" else "image"] for name in greys}
        images.append({name: grey**2 * tops[name] for name, grey in greys.items()})
    return data, images


def test_the_viewer_holds_every_image_to_a_half_step_of_its_8_bits():
    data, (images,) = shown(VIEWER)
    given = {"reconstruction": RAMP, "std": 0.1 * RAMP, "truth": RAMP[::-1], "baseline CG-SENSE": RAMP / 2}
    given |= {"draw 1": RAMP, "draw 2": 1 - RAMP}
    assert data["exact"] and set(images) == set(given)
    for name, image in given.items():
        top = data["tops"]["std" if name == "std" else "image"]
        assert np.abs(np.sqrt(images[name]) - np.sqrt(np.minimum(image, top))).max() < 0.51 / 255 * np.sqrt(top), name
    assert data["white"] == pytest.approx(np.percentile(RAMP, 99.5))
    error = np.abs(RAMP - RAMP[::-1])
    top = {"std": 0.1 * np.percentile(RAMP, 99.5), "error": np.percentile(error, 99.5)}
    assert data["scales"] == pytest.approx(top)


@pytest.mark.slow
def test_sixteen_slices_of_noise_fit_into_the_budget():
    """Waves under as much noise as an image at an SNR of 20 has, 160 images of 320 x 320: too much without loss."""
    random = np.random.default_rng(0)
    waves = 0.5 + 0.4 * np.outer(np.sin(np.arange(320) / 9), np.cos(np.arange(320) / 7))
    image = [np.abs(waves + 0.05 * random.normal(size=waves.shape)) for _ in range(3)]
    one = ShownSlice("s", image[0], 0, 0, image[1], image[2], dict.fromkeys("abcd", image[1]), [image[2]] * 3)
    data = Viewer([one] * 16).json()
    assert len(data) < BUDGET * 4 / 3 + 5e4 < 8e6 and not json.loads(data)["exact"]


def test_images_that_cannot_be_shown_together_are_refused():
    for slices in ([], [SLICE, ShownSlice("other", RAMP[1:])], [ShownSlice("nan", RAMP * np.nan)]):
        with pytest.raises(InputError):
            Viewer(slices).json()


class Page(HTMLParser):
    """Tags in order with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.fixture
def page(tmp_path):
    report = Report(
        title="knee <script>alert(1)</script>",
        facts={"Sampler": "Renoise & Karras", "True R": "3.87", "patient_id": "DOE-JANE"},
        notes=["maps <b>from</b> full k-space"],
        tables=[score_table("|MVUE| from full k-space", METHODS), score_table("RSS", METHODS)],
        calibration=EnsembleCalibration(
            draws=8,
            spread_skill=0.934,
            coverage={0.5: 0.487, 0.95: 0.931},
            blocks={1: 0.934, 16: 0.613},
            bins=[(0.0125, 0.025), (0.5, 0.25)],
            outliers=Outliers(0.031, 0.02),
            measured={"unmeasured": 0.871},
        ),
        intervals=IntervalCheck(0.9, {"magnitude": 1.83}, {"magnitude": 0.897}, "88 slices of 1 volume"),
        held_out=Table("5 lines left out", ["Method", "Misfit"], [["CG-SENSE", "4.64"]]),
        viewer=VIEWER,
        links=[("result", "../reconstructions/knee.h5")],
        date="2026-11-30",
    )
    return write_report(tmp_path / "report", report).read_text(encoding="utf-8")


def test_texts_are_escaped_and_the_patient_is_left_out(page):
    parsed = Page(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 2 and "b" not in [tag for tag, _ in parsed.tags]
    assert "<i>24 dB" not in page  # in the data of the viewer
    assert "knee <script>alert(1)</script>" in parsed.text and "maps <b>from</b> full k-space" in parsed.text
    assert "DOE-JANE" not in page and "patient_id" not in page


def test_the_page_holds_its_images_and_asks_for_nothing_else(page):
    """Its policy allows the one style and the one script that it holds, by their SHA-256, and no network."""
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?([^"')\s]+)""", bare)
    assert set(addresses) == {"#results", "#warnings", "../reconstructions/knee.h5"}
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(", page)
    assert "http://" not in page and "https://" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert not re.search(r"\s(?:style|on\w+)=", page)  # which the policy would block


def test_the_page_says_what_was_run_and_what_it_scored(page):
    text = Page(page).text
    assert {"Renoise & Karras", "3.87", "Against |MVUE| from full k-space", "33.25", "0.93", "48.7 %"} <= set(text)
    assert {"16 × 16 pixels", "0.61", "unmeasured k-space", "0.87", "0.0125", "0.25"} <= set(text)
    assert "3.1 %; 2.0 % are expected of 8" in page and "actual error 2.00 times the predicted one" in page
    assert {"1.83", "89.7 %", "5 lines left out", "4.64"} <= set(text)
    assert "88 slices of 1 volume" in page
    assert text.count("Research use only, not for diagnosis.") == 1
    assert ("td", {"class": "best"}) in Page(page).tags


def test_an_index_of_a_study_has_volumes_with_warnings_first():
    rows = [
        StudyRow("a", "a/index.html", picture(RAMP), {"PSNR (dB)": 30.0}),
        StudyRow("b <i>", "b/index.html", None, {"PSNR (dB)": None}, ["coil <2> is dead"]),
    ]
    page = render_study("All", rows, [("scores", "../metrics.csv")])
    assert page.index("b &lt;i&gt;") < page.index('href="a/index.html"') and "coil &lt;2&gt; is dead" in page
    assert 'alt="Middle slice of a"' in page and "2 volumes, 1 with warnings" in page and 'data-value="30.0"' in page


def test_intervals_without_a_truth_have_no_bar(tmp_path):
    report = Report("scan", {}, intervals=IntervalCheck(0.9, {"magnitude": 1.83}, {}, "88 slices"))
    text = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "1.83" in text and "Nominal coverage: 90 % (dark mark). Fitted on 88 slices" in text and "<rect" not in text


def test_a_report_without_truth_has_no_scores(tmp_path):
    report = Report("scan", {"File": "scan.h5"}, viewer=Viewer([ShownSlice("Slice 0", RAMP)]))
    text = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "PSNR (dB)" not in text and "spread / skill" not in text and "Warnings" not in text
    assert "Conformal intervals" not in text and "left-out" not in text
