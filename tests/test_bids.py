"""mri-score bids: the contract of BIDS Apps, and a derivative dataset that BIDS's own rules accept."""

from __future__ import annotations

import json
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from command import mri_score, refused

from mri_score.pipeline.bids import find_scans
from mri_score.simulation.simulate import simulate

nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
QUICK = ["--accel", "2", "--prior", "brain-fast", "--method", "exact-draw", "--steps", "2", "--samples", "2"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A dataset of two participants, one of them with two sessions, the second of which lies in sourcedata."""
    folder = tmp_path_factory.mktemp("raw")
    (scan,) = simulate(folder / "scan", volumes=1, slices=1, size=48, coils=2)
    for name in (
        "sub-01/anat/sub-01_acq-fast_T2w",
        "sub-02/ses-a/anat/sub-02_ses-a_T2w",
        "sourcedata/sub-02/ses-b/anat/sub-02_ses-b_T2w",
    ):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(scan, folder / f"{name}.h5")
    return folder


def test_participants_and_sessions_are_chosen(raw):
    def names(*labels):
        return [scan.path.stem for scan in find_scans(raw, *labels)]

    assert names() == ["sub-01_acq-fast_T2w", "sub-02_ses-a_T2w", "sub-02_ses-b_T2w"]
    assert names(["sub-02"], ["b"]) == ["sub-02_ses-b_T2w"]
    assert names(["01"]) == ["sub-01_acq-fast_T2w"]


def test_a_derivative_dataset(raw, tmp_path):
    out = tmp_path / "derivatives"
    mri_score("bids", raw, out, "participant", *QUICK, "--participant-label", "01", "02", "--session-label", "b")
    assert not list(out.glob("sub-01/**/*")), "participant 01 has no session b"
    mri_score("bids", raw, out, "participant", "--participant_label", "sub-01", *QUICK)
    made = sorted(path.relative_to(out).as_posix() for path in out.glob("sub-*/**/*.nii.gz"))
    kinds = ("desc-std", "part-mag_desc-mean", "part-phase_desc-mean")
    scans = ("sub-01/anat/sub-01_acq-fast", "sub-02/ses-b/anat/sub-02_ses-b")
    assert made == sorted(f"{scan}_{kind}_T2w.nii.gz" for scan in scans for kind in kinds)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "mri_score"
    mag = out / f"{scans[1]}_part-mag_desc-mean_T2w"
    sidecar = json.loads(mag.with_suffix(".json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sourcedata/sub-02/ses-b/anat/sub-02_ses-b_T2w.h5"]
    with h5py.File(out / "mri_score" / "reconstructions" / "sub-02_ses-b_T2w.h5") as file:
        image = nibabel.load(f"{mag}.nii.gz").get_fdata()
        np.testing.assert_allclose(image[..., 0], file["reconstruction"][0], rtol=1e-6)
    (out / made[0]).unlink()
    said = mri_score("bids", raw, out, "participant", "--participant-label", "01", *QUICK)
    assert "made from its result: bids" in said and (out / made[0]).exists()


def test_the_validator_of_bids_accepts_it(raw, tmp_path):
    validator = shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("the validator of BIDS is not installed: pip install bids-validator-deno")
    out = tmp_path / "derivatives"
    mri_score("bids", raw, out, "participant", "--participant-label", "01", *QUICK)
    said = subprocess.run([validator, out, "--json"], capture_output=True, text=True, timeout=120)
    issues = json.loads(said.stdout)["issues"]["issues"]
    assert said.returncode == 0 and not [issue for issue in issues if issue["severity"] == "error"], issues


def test_what_is_no_dataset_is_refused(raw, tmp_path):
    assert "not a folder" in refused("bids", tmp_path / "no", tmp_path / "out", "participant")
    assert "sub-03" in refused("bids", raw, tmp_path / "out", "participant", "--participant-label", "03")
    assert "no scans of any participant" in refused("bids", tmp_path, tmp_path / "out", "participant")
    assert "raw dataset itself" in refused("bids", raw, raw, "participant")
    assert "labels follow" in refused("bids", raw, tmp_path / "out", "participant", "01")
    assert "group" in mri_score("bids", raw, tmp_path / "out", "group", code=2)
    (array := tmp_path / "arrays" / "sub-01" / "anat" / "sub-01_T2w.npy").parent.mkdir(parents=True)
    np.save(array, np.ones((2, 4, 4), complex))
    assert "without the pixel sizes" in refused("bids", tmp_path / "arrays", tmp_path / "out", "participant")
    assert not (tmp_path / "out").exists()
