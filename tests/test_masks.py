"""Masks: exact counts, bounded gaps, fastMRI's numbers bit for bit, and errors that know the range."""

from __future__ import annotations

import hashlib
import math

import h5py
import numpy as np
import pytest
import torch

from mri_score.data.masks import (
    FASTMRI_LAWS,
    LINE_LAWS,
    MASK_LAWS,
    default_calibration_lines,
    make_mask,
    mask_seed,
    read_mask,
    true_acceleration,
    undersample,
)
from mri_score.errors import InputError

FILE = "file1000000.h5"


def lines(law: str, size: int, acceleration: float, calibration: int | None = None, seed=0, padding=None) -> np.ndarray:
    return make_mask(law, (8, size), acceleration, calibration, seed, padding=padding)[0].numpy()


def largest_gap(sampled: np.ndarray) -> int:
    return int((np.diff(np.flatnonzero(np.concatenate([[True], sampled, [True]]))) - 1).max())


@pytest.mark.parametrize(
    ("law", "count", "digest"),
    [
        ("fastmri-random", 88, "c814b1134c27f1ff"),
        ("equispaced", 114, "621c60306e8d2777"),
        ("equispaced_fraction", 93, "2dbf84cf0f4a2f9f"),
        ("magic", 114, "9522ccd1e87672ef"),
        ("magic_fraction", 86, "be97d9add942a7f5"),
    ],
)
def test_fastmri_laws_give_fastmris_lines(law, count, digest):
    mask = make_mask(law, (640, 368), 4, seed=mask_seed(FILE))
    assert mask.shape == (1, 368) and int(mask.sum()) == count
    assert hashlib.sha256(mask.numpy().astype(np.uint8).tobytes()).hexdigest().startswith(digest)


def test_fastmri_random_starts_with_the_published_lines():
    sampled = np.flatnonzero(lines("fastmri-random", 368, 4, seed=mask_seed(FILE)))
    assert sampled[:12].tolist() == [4, 9, 10, 14, 23, 24, 28, 29, 32, 35, 41, 51]


@pytest.mark.parametrize("law", FASTMRI_LAWS)
@pytest.mark.parametrize("size", [95, 320])
def test_fastmri_laws_differ_by_seed_and_keep_the_center(law, size):
    masks = [lines(law, size, 4, 9, seed=seed) for seed in range(20)]
    assert len({mask.tobytes() for mask in masks}) > 1
    start = (size - 9 + 1) // 2
    assert all(mask[start : start + 9].all() for mask in masks)


@pytest.mark.parametrize("law", ["random", "variable-density"])
@pytest.mark.parametrize(("size", "acceleration"), [(256, 4), (256, 8), (213, 3.3), (97, 1), (97, 9.7)])
def test_exact_laws_have_exactly_the_lines_of_the_budget(law, size, acceleration):
    for seed in range(10):
        sampled = lines(law, size, acceleration, 10, seed=seed)
        assert sampled.sum() == round(size / acceleration)
        start = (size - 10 + 1) // 2
        assert sampled[start : start + 10].all()


def test_random_lines_are_uniform_outside_the_calibration():
    """Each of the 54 other lines is drawn with probability 6 / 54, within 4.5 standard errors."""
    trials, size, calibration = 3000, 64, 10
    frequency = np.mean([lines("random", size, 4, calibration, seed=seed) for seed in range(trials)], axis=0)
    others = np.r_[frequency[:27], frequency[37:]]
    expected = 6 / 54
    assert np.abs(others - expected).max() < 4.5 * math.sqrt(expected * (1 - expected) / trials)


def test_variable_density_has_smaller_gaps_than_random_and_is_denser_inside():
    gaps = {law: [largest_gap(lines(law, 256, 4, seed=seed)) for seed in range(10)] for law in LINE_LAWS}
    assert max(gaps["variable-density"]) <= 21 < max(gaps["random"])
    frequency = np.mean([lines("variable-density", 256, 4, seed=seed) for seed in range(200)], axis=0)
    near, middle, far = frequency[145:165].mean(), frequency[175:205].mean(), frequency[225:].mean()
    assert near > 1.3 * middle > 1.3 * 1.3 * far > 0


def test_variable_density_reaches_every_line_and_stays_symmetric_on_average():
    frequency = np.mean([lines("variable-density", 129, 4, seed=seed) for seed in range(400)], axis=0)
    assert frequency.min() > 0.02
    assert abs(frequency[:64].sum() - frequency[65:].sum()) <= 1


@pytest.mark.parametrize("law", MASK_LAWS)
def test_the_same_seed_gives_the_same_mask_and_leaves_numpy_alone(law):
    np.random.seed(5)
    first = make_mask(law, (48, 61), 4, 6, seed=(1, 2))
    after = np.random.random()
    np.random.seed(5)
    assert np.random.random() == after
    assert torch.equal(first, make_mask(law, (48, 61), 4, 6, seed=(1, 2)))
    assert any(not torch.equal(first, make_mask(law, (48, 61), 4, 6, seed=(1, k))) for k in range(3, 9))


@pytest.mark.parametrize("law", MASK_LAWS)
def test_padding_is_never_sampled(law):
    padding = (7, 90)
    mask = make_mask(law, (80, 96), 3, 8, seed=4, padding=padding)
    assert not mask[:, :7].any() and not mask[:, 90:].any() and mask[:, 7:90].any()
    if law in ("random", "variable-density"):
        assert int(mask.sum()) == round(83 / 3)
        assert true_acceleration(mask, padding) == pytest.approx(83 / round(83 / 3))


def test_padding_that_cuts_the_calibration_lines_keeps_the_count():
    for law in ("random", "variable-density"):
        sampled = lines(law, 96, 3, 8, seed=1, padding=(47, 90))
        assert sampled.sum() == round(43 / 3) and sampled[47:52].all() and not sampled[:47].any()


def test_rows_are_masked_along_the_other_axis():
    across, along = make_mask("random", (96, 64), 4, seed=3, axis=-2), make_mask("random", (64, 96), 4, seed=3)
    assert across.shape == (96, 1) and torch.equal(across.T, along)
    with_padding = make_mask("random", (96, 64), 4, seed=3, axis=-2, padding=(2, 60))
    assert with_padding.shape == (96, 64)
    assert torch.equal(with_padding[:, 30:31], across) and not with_padding[:, 60:].any()
    assert true_acceleration(with_padding, (2, 60)) == true_acceleration(across) == 4


@pytest.mark.parametrize(("shape", "acceleration"), [((128, 96), 4), ((61, 83), 8), ((64, 64), 12)])
def test_poisson_disc_keeps_its_distance_and_its_acceleration(shape, acceleration):
    mask = make_mask("poisson-disc", shape, acceleration, 6, seed=2)
    assert mask.shape == shape
    assert true_acceleration(mask) == pytest.approx(acceleration, rel=0.05)
    rows, cols = ((n - 6 + 1) // 2 for n in shape)
    assert mask[rows : rows + 6, cols : cols + 6].all()
    y, x = np.nonzero(mask.numpy())
    outer = np.hypot((y - shape[0] // 2) / (shape[0] / 2), (x - shape[1] // 2) / (shape[1] / 2)) > 0.6
    points = np.stack([y, x], 1)[outer].astype(float)
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(len(points))
    assert distance.min() >= 1.4  # uniform points at this density would touch: 1.0


@pytest.mark.parametrize("acceleration", [1.05, 1000])
def test_poisson_disc_says_what_it_reaches_instead_of_hanging(acceleration):
    with pytest.raises(InputError, match=r"nearest: .* allowed: 1\.\d+ to below"):
        make_mask("poisson-disc", (64, 64), acceleration, 10)


@pytest.mark.parametrize("law", MASK_LAWS)
@pytest.mark.parametrize("acceleration", [0.5, 0, -3, math.nan, math.inf, 70])
def test_absurd_accelerations_are_refused(law, acceleration):
    with pytest.raises(InputError, match="acceleration"):
        make_mask(law, (64, 64), acceleration, 10)


@pytest.mark.parametrize("law", MASK_LAWS)
def test_calibration_must_fit(law):
    with pytest.raises(InputError, match="calibration"):
        make_mask(law, (64, 64), 2, 65)


@pytest.mark.parametrize(
    ("law", "size", "acceleration", "calibration"),
    [
        ("magic_fraction", 368, 4, round(0.37 * 368)),  # fastMRI: high <= 0
        ("magic_fraction", 368, 4, 92),
        ("equispaced_fraction", 368, 4, 92),  # fastMRI: division by zero
        ("equispaced_fraction", 400, 3.99, 100),
        ("equispaced", 256, 3.5, 10),
        ("magic", 256, 3.5, 10),
    ],
)
def test_where_fastmri_crashes_the_range_is_said(law, size, acceleration, calibration):
    with pytest.raises(InputError, match=rf"mask {law}: (.*allowed: |.*is not a whole number; use )"):
        lines(law, size, acceleration, calibration)


@pytest.mark.parametrize("law", LINE_LAWS)
@pytest.mark.parametrize("size", [63, 64])
def test_every_acceleration_gives_a_mask_or_an_input_error(law, size):
    made = 0
    for acceleration in [*range(1, 70), 1.5, 2.7, 6.3]:
        for calibration in (0, 1, 2, 5, 16, 63):
            try:
                made += bool(lines(law, size, acceleration, calibration).any())
            except InputError:
                continue
    assert made > 60


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(InputError, match="gaussian.*poisson-disc"):
        make_mask("gaussian", (64, 64))
    with pytest.raises(InputError, match="axis"):
        make_mask("random", (64, 64), axis=0)


def test_default_calibration_lines():
    assert [default_calibration_lines(256, r) for r in (4, 6, 8)] == [20, 20, 10]
    assert [default_calibration_lines(368, r) for r in (6, 6.1)] == [29, 15]


def test_mask_seed_is_the_file_name_and_a_number_is_appended():
    assert mask_seed(FILE) == tuple(map(ord, FILE)) == mask_seed("file1000000")
    assert mask_seed(FILE, 7) == (*map(ord, FILE), 7)
    with_number, without = (lines("random", 256, 4, seed=mask_seed(FILE, number)) for number in (7, None))
    assert not np.array_equal(with_number, without)
    with pytest.raises(InputError, match="seed"):
        mask_seed(FILE, -1)


@pytest.mark.parametrize("file", ["mask.npy", "mask.h5"])
@pytest.mark.parametrize("shape", [(21,), (1, 21), (13, 1), (13, 21)])
def test_masks_come_back_from_files(tmp_path, file, shape):
    values = np.random.default_rng(1).random(shape) < 0.5
    values.flat[0] = True
    if file.endswith("npy"):
        np.save(tmp_path / file, values.astype(np.float32))
    else:
        with h5py.File(tmp_path / file, "w") as handle:
            handle["mask"] = values
    mask = read_mask(tmp_path / file, (13, 21))
    assert np.array_equal(mask.numpy(), values.reshape(mask.shape)) and mask.ndim == 2
    assert torch.equal(make_mask(str(tmp_path / file), (13, 21)), mask)


def test_masks_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "mask.npy"
    for values, message in [
        (np.ones(20, bool), r"\(20,\).*\(13, 21\)"),
        (np.full(21, 0.5), "zeros and ones"),
        (np.full(21, np.nan), "zeros and ones"),
        (np.zeros(21), "at least one 1"),
    ]:
        np.save(path, values)
        with pytest.raises(InputError, match=message):
            read_mask(path, (13, 21))
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="numpy.save"):
        read_mask(path, (13, 21))
    with pytest.raises(InputError, match="not a file"):
        read_mask(tmp_path / "absent.h5", (13, 21))


def test_undersample_masks_a_volume_once():
    from mri_score.data.acquisition import Acquisition

    random = torch.Generator().manual_seed(0)
    kspace = torch.randn(3, 2, 16, 96, dtype=torch.complex64, generator=random)
    earlier = torch.ones(1, 1, 1, 96, dtype=torch.bool)
    earlier[..., 48] = False
    scan = undersample(Acquisition("file1000000", kspace=kspace, mask=earlier), "random", 4, 12)
    expected = make_mask("random", (16, 96), 4, 12, seed=mask_seed(FILE))[None, None] & earlier
    assert torch.equal(scan.mask, expected) and scan.mask.shape == (1, 1, 1, 96)
    assert torch.equal(scan.kspace, kspace * expected)
    other = undersample(Acquisition("file1000000", kspace=kspace), "random", 4, 12, seed=1)
    assert not torch.equal(other.mask & earlier, scan.mask)
