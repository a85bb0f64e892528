"""What is reconstructed at all, and what counts as finished: the content of masks and maps, not their place."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from command import mri_score, refused

from mri_score.data.masks import make_mask
from mri_score.simulation.simulate import simulate

QUICK = ["--steps", "2", "--samples", "1", "--baselines", "none"]


@pytest.fixture
def scan(tmp_path):
    return simulate(tmp_path / "scans", volumes=1, slices=1, size=48, coils=3, noise=30.0)[0]


def test_a_full_scan_is_not_walked_unasked(tmp_path, scan):
    told = refused("reconstruct", scan, "--out", tmp_path / "out")
    assert "fully sampled" in told and "--accel 4" in told and f"mri-score denoise {scan}" in told
    assert not (tmp_path / "out" / "reconstructions").exists()
    assert "acceleration   1.00" in mri_score("reconstruct", scan, "--accel", "1", "--dry-run")


def test_a_mask_beside_full_kspace_can_be_ignored(tmp_path, scan):
    with h5py.File(scan, "a") as file:
        file["mask"] = make_mask("random", (48, 48), 3.0)[0].numpy()
    assert "undersampled, R = 3.00" in mri_score("info", scan)
    assert "sampling       full" in mri_score("info", scan, "--ignore-mask")
    assert "fully sampled" in refused("reconstruct", scan, "--ignore-mask", "--dry-run")
    out = tmp_path / "out"
    told = mri_score("reconstruct", scan, "--ignore-mask", "--mask", scan, *QUICK, "--out", out)
    assert "acceleration 3.00" in told and "PSNR" in told


def test_masks_and_maps_count_by_their_content(tmp_path, scan):
    mask = make_mask("random", (48, 48), 3.0)[0].numpy()
    np.save(tmp_path / "mask.npy", mask)
    mri_score("maps", scan, "--out", tmp_path / "maps")

    def run(mask="mask.npy", maps=f"maps/{scan.name}", dry=True) -> bool:
        given = ["--mask", tmp_path / mask, "--maps", tmp_path / maps, "--out", tmp_path / "out"]
        return "finished before" in mri_score("reconstruct", scan, *QUICK, *given, *(["--dry-run"] if dry else []))

    assert not run(dry=False)
    assert run()
    (tmp_path / "mask.npy").rename(tmp_path / "elsewhere.npy")
    (tmp_path / "maps").rename(tmp_path / "others")
    assert run("elsewhere.npy", f"others/{scan.name}") and run("elsewhere.npy", "others")  # a folder of maps
    with h5py.File(tmp_path / "others" / scan.name, "a") as file:
        file["maps"][0, 0] *= -1
    assert not run("elsewhere.npy", "others")
    with h5py.File(tmp_path / "others" / scan.name, "a") as file:
        file["maps"][0, 0] *= -1
    np.save(tmp_path / "elsewhere.npy", mask[::-1].copy())
    assert not run("elsewhere.npy", "others")


def test_a_folder_without_the_maps_of_a_scan(tmp_path, scan):
    (tmp_path / "maps").mkdir()
    told = refused("reconstruct", scan, "--accel", "3", "--maps", tmp_path / "maps", "--dry-run")
    assert f"no coil maps of {scan.name}" in told
