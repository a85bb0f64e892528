"""The unit of k-space changes nothing but the unit of the results, from 1e-22 to 1e20 and in double precision."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from command import mri_score, refused

from mri_score.data.scale import SAFE, safe_unit
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.models.denoiser import as_prior
from mri_score.pipeline.denoise import denoise_slice
from mri_score.pipeline.options import Options
from mri_score.pipeline.output import write_volume
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import reconstruct
from mri_score.simulation.from_images import scan_template
from mri_score.simulation.phantom import phantom
from mri_score.sources.full_scans import Slices

PRIOR = as_prior(lambda x, sigma: x * (0.09 / (0.09 + sigma[:, None, None] ** 2)), sd=0.3)
FACTORS = [2.0**-73, 1e-22, 1e20, 2.0**66]
"""Powers of two change no digit; the others change the last one."""


@pytest.fixture(scope="module")
def kspace() -> np.ndarray:
    return phantom((48, 40), coils=4, slices=2).kspace.numpy()


def stored(path, kspace: np.ndarray, factor: float, dtype: type = np.complex64) -> FastMRI:
    with h5py.File(path / "scan.h5", "w") as file:
        file["kspace"] = (kspace.astype(np.complex128) * factor).astype(dtype)
    return FastMRI(path / "scan.h5")


def close(found, expected, factor: float) -> None:
    """Equality, bit for bit if the factor is a power of two."""
    exact = np.log2(factor) == round(np.log2(factor))
    np.testing.assert_allclose(found / factor, expected, rtol=0 if exact else 2e-3, atol=0 if exact else 2e-3)


def volume_file(folder, file: FastMRI) -> dict[str, np.ndarray]:
    options = Options(steps=2, samples=2, baselines=("zero-filled",), keep_samples=True)
    volume = reconstruct_volume(Scan(file, Undersampling(3.0)), PRIOR, options)
    with h5py.File(write_volume(folder, volume, options, {})) as result:
        arrays = {key: result[key][()] for key in ("reconstruction", "reconstruction_complex", "std", "samples")}
        return arrays | {"scores": result["scores"][()], "noise": result.attrs["noise"]}


@pytest.mark.parametrize(
    ("factor", "dtype"), [(FACTORS[0], np.complex64), (1e20, np.complex64), (1e-22, np.complex128)]
)
def test_results_of_files_have_the_unit_of_the_file(tmp_path, kspace, factor, dtype):
    one = volume_file(tmp_path / "one", stored(tmp_path, kspace, 1.0, dtype))
    other = volume_file(tmp_path / "other", stored(tmp_path, kspace, factor, dtype))
    for key in ("reconstruction", "reconstruction_complex", "std", "samples"):
        close(other[key].astype(np.complex128), one[key].astype(np.complex128), factor)
    for row, expected in zip(other["scores"].tolist(), one["scores"].tolist(), strict=True):
        assert row[:3] == expected[:3] and row[3:6] == pytest.approx(expected[3:6], rel=2e-3)
    assert float(other["noise"].split()[0]) == pytest.approx(factor * float(one["noise"].split()[0]), rel=1e-3)


@pytest.mark.parametrize(("factor", "given"), [(1e-22, False), (FACTORS[3], False), (1e20, True)])
def test_results_of_arrays_have_the_unit_of_the_array(kspace, factor, given):
    mask = np.arange(40) % 2 == 0
    mask[14:26] = True
    settings = {"prior": PRIOR, "steps": 2, "samples": 2}
    noise = {"noise_std": 0.01} if given else {}
    one = reconstruct(kspace * mask, mask=mask, **settings, **noise)
    noise = {"noise_std": 0.01 * factor} if given else {}
    other = reconstruct((kspace.astype(np.complex128) * mask * factor), mask=mask, **settings, **noise)
    for key in ("image", "std", "rss", "samples"):
        close(getattr(other, key).to(torch.complex128), getattr(one, key).to(torch.complex128), factor)


@pytest.mark.parametrize("factor", [1e-22, 1e20])
def test_other_work_has_the_unit_too(tmp_path, kspace, factor):
    images, noise = [], []
    for number in (1.0, factor):
        file = stored(tmp_path, kspace, number)
        found = denoise_slice(Scan(file), 0, PRIOR, probes=1)
        images.append([found.image / number, found.std / number, torch.tensor(found.noise_std / number)])
        source = Slices([file.path], quiet=True, noise=True)
        images[-1].append(source.image(1))
        noise.append([float(scan_template(file.path).noise_std), len(source)])
    for one, other in zip(*images, strict=True):
        torch.testing.assert_close(other, one, rtol=2e-3, atol=2e-3)
    assert noise[0] == pytest.approx(noise[1], rel=1e-3)


def test_info_states_the_level_in_the_unit_of_the_file(tmp_path, kspace):
    level = Scan(stored(tmp_path, kspace, 1.0)).noise_std
    stored(tmp_path, kspace, 1e-22)
    (line,) = [line for line in mri_score("info", tmp_path / "scan.h5").splitlines() if "standard deviation" in line]
    assert float(line.split()[1]) == pytest.approx(1e-22 * level, rel=1e-3)


@pytest.mark.parametrize("factor", [1e-50, 1e50])
def test_what_single_precision_cannot_hold_is_refused(tmp_path, kspace, factor):
    stored(tmp_path, kspace, factor, np.complex128)
    assert "range of single precision; multiply kspace" in refused("info", tmp_path / "scan.h5")
    with pytest.raises(InputError, match="range of single precision; divide"):
        reconstruct(kspace.astype(np.complex128) * factor)


def test_usual_samples_have_the_unit_one():
    for largest in (1.1 * SAFE[0], 1e-4, 1.0, 0.9 * SAFE[1]):
        assert safe_unit(torch.tensor([largest + 0j, 0j])) == 1
    for largest in (0.9 * SAFE[0], 3e20):
        unit = safe_unit(torch.tensor([0j, largest * 1j]))
        assert 0.5 < largest / unit < 2 and np.log2(unit) == round(np.log2(unit))


@pytest.mark.parametrize("dtype", [">c8", ">c16", "clongdouble"])
def test_arrays_of_other_machines(kspace, dtype):
    settings = {"prior": PRIOR, "steps": 2, "samples": 1}
    expected = reconstruct(kspace, mask=np.ones(40, ">f4"), **settings)
    assert torch.equal(reconstruct(kspace.astype(dtype), mask=np.ones(40), **settings).image, expected.image)
