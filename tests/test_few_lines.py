"""Coil maps from few calibration lines are warned of, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from command import mri_score

from mri_score.data.scan import Scan, Undersampling
from mri_score.pipeline.facts import calibration_lines
from mri_score.priors.store import build_prior, save_prior
from mri_score.readers import open_scan
from mri_score.simulation.simulate import simulate


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    (path,) = simulate(tmp_path_factory.mktemp("scan"), volumes=1, slices=1, size=48, coils=3, noise=30.0)
    return path


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    network = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_prior(path, build_prior(network, sd=0.3, sigma_min=0.01, sigma_max=5.0), network, {})
    return path


@pytest.mark.parametrize("lines", [4, 6, 8, 12])
def test_the_contiguous_lines_at_the_centre_are_counted(head, lines):
    scan = Scan(open_scan(head), Undersampling(4.0, "equispaced", calibration_lines=lines))
    sampled = scan.mask_of(0).flatten().numpy()
    gaps = np.flatnonzero(~sampled)
    around = gaps[gaps > 24].min() - gaps[gaps < 24].max() - 1
    assert calibration_lines(scan, [0]) == min(around, lines)
    assert calibration_lines(Scan(open_scan(head), scan.sampling, full_maps=True), [0]) is None


@pytest.mark.parametrize("lines, warned", [(6, True), (8, False)])
def test_few_lines_are_warned_of(head, prior, lines, warned, tmp_path):
    output = mri_score(
        "reconstruct", head, "--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled",
        "--accel", "3", "--calibration-lines", str(lines), "--prior", prior, "--out", tmp_path,
    )  # fmt: skip
    assert (f"note: the coil maps come from {lines} calibration lines" in output) == warned
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"ESPIRiT from {lines} calibration lines" in page or f"from the {lines} calibration lines" in page
