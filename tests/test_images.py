"""Stacks of magnitude images: what is drawn, how often, at which scale, and that bad files are named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from mri_score.data.scale import percentile
from mri_score.errors import InputError
from mri_score.readers.image_stack import read_stack
from mri_score.sources.augmentation import SCALES, tone
from mri_score.sources.magnitude_images import AUGMENTATIONS, ImageStacks

STACK = (1000 * np.random.default_rng(0).random((10, 24, 20))).astype(np.uint16)
CONTRASTS = ["T1"] + 9 * ["T2"]
PATIENTS = [f"patient{number // 2}" for number in range(10)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write(path, image=STACK, **labels):
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, chunks=(1, *image.shape[1:]), compression="gzip")
        for key, value in labels.items():
            file[key] = value
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "stack.h5", contrast=CONTRASTS, patient=np.array(PATIENTS, "S"))


def which(source: ImageStacks, image: torch.Tensor) -> int:
    """The number of the slice that an unchanged item shows."""
    (number,) = [n for n in range(len(source)) if torch.equal(source.image(n), image)]
    return number


# ---- What is drawn.


def test_images_are_the_slices_with_their_percentile_at_one(path):
    source = ImageStacks([path])
    assert len(source) == 10
    for number in range(10):
        image, expected = source.image(number), torch.from_numpy(STACK[number].astype(np.float32))
        assert image.dtype == torch.complex64 and not image.imag.any()
        assert percentile(image).item() == pytest.approx(1)
        torch.testing.assert_close(image.real * percentile(expected), expected)


def test_samples_follow_their_generator(path):
    source = ImageStacks([path], patch=12)
    first = [source.sample(seeded(seed)).image for seed in range(6)]
    again = [ImageStacks([path], patch=12).sample(seeded(seed)).image for seed in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_groups_are_drawn_equally_often(path, tmp_path):
    other = write(tmp_path / "other.h5", STACK[:2, :, ::-1])  # no contrast: a group of its own
    source = ImageStacks([path, other], augment=False)
    random = seeded(0)
    counts = torch.bincount(torch.tensor([which(source, source.sample(random).image[0]) for _ in range(600)]))
    assert len(counts) == 12 and counts.min() > 0
    groups = torch.stack([counts[0], counts[1:10].sum(), counts[10:].sum()]) / 600
    assert groups == pytest.approx([1 / 3] * 3, abs=0.07)
    assert counts[1:10].max() < 3 * counts[1:10].min()


def test_labels_leave_slices_out(path):
    source = ImageStacks([path], exclude={"patient": ["patient1", "patient4"]}, augment=False)
    everything = ImageStacks([path])
    kept = [which(everything, source.image(number)) for number in range(len(source))]
    assert kept == [0, 1, 4, 5, 6, 7]
    random = seeded(1)
    assert {which(source, source.sample(random).image[0]) for _ in range(200)} == set(range(6))
    with pytest.raises(InputError, match="excluded or empty"):
        ImageStacks([path], exclude={"contrast": ["T1", "T2"]})


def test_empty_slices_are_left_out(tmp_path):
    stack = STACK.copy()
    stack[[2, 5]] = 0
    assert len(ImageStacks([write(tmp_path / "stack.h5", stack)])) == 8


def test_patches_are_windows_of_the_scaled_image(path):
    source = ImageStacks([path], patch=9, augment=False)
    images = torch.stack([source.image(number) for number in range(10)])
    windows = images.unfold(1, 9, 1).unfold(2, 9, 1).flatten(0, 2)
    for seed in range(20):
        patch = source.sample(seeded(seed)).image
        assert (windows == patch).flatten(1).all(1).sum() == 1


def test_augmented_images_are_complex_and_at_a_training_scale(path):
    source = ImageStacks([path], least_resolution=0.99)
    scales = [float(percentile(source.sample(seeded(seed)).image)[0]) for seed in range(100)]
    assert SCALES[0] - 1e-3 < min(scales) < 0.7 and 1.15 < max(scales) < SCALES[1] + 1e-3
    phases = source.sample(seeded(0)).image.angle()
    assert phases.std() > 0.1


def test_augmentations_can_be_left_out(path):
    bare = ImageStacks([path], without=list(AUGMENTATIONS))
    stored = ImageStacks([path], augment=False)
    for seed in range(5):
        image, magnitude = bare.sample(seeded(seed)).image, stored.sample(seeded(seed)).image
        torch.testing.assert_close(image.abs(), magnitude.abs())
        assert image.angle()[image.abs() > 0.1].std() < 1e-5 and abs(float(image.angle()[0, 4, 4])) > 0.01

    turned = ImageStacks([path], without=[name for name in AUGMENTATIONS if name != "flip_and_turn"])
    phase = ImageStacks([path], without=[name for name in AUGMENTATIONS if name != "smooth_phase"])
    assert any(
        not torch.allclose(turned.sample(seeded(k)).image.abs(), bare.sample(seeded(k)).image.abs()) for k in (0, 1)
    )
    assert phase.sample(seeded(0)).image.angle().std() > 0.1
    with pytest.raises(InputError, match="data.without is 'tune'; known names: coarsen, decimate, echo_filter"):
        ImageStacks([path], without=["tune"])


def test_regions_of_another_phase_can_be_left_out(tmp_path):
    """A plane's phase then is smooth: neighbours differ by little."""
    write(tmp_path / "plane.h5", np.ones((1, 48, 48), np.float32))
    bare = [name for name in AUGMENTATIONS if name != "smooth_phase"]

    def largest_step(share: float, seed: int) -> float:
        image = ImageStacks([tmp_path / "plane.h5"], without=bare, phase_steps=share).sample(seeded(seed)).image
        return float((image[..., 1:] * image[..., :-1].conj()).angle().abs().max())

    smooth = max(largest_step(0.0, seed) for seed in range(20))
    assert smooth < 1.0 and sum(largest_step(1.0, seed) > smooth for seed in range(20)) > 5
    with pytest.raises(InputError, match="phase_steps 1.5; the first is a factor"):
        ImageStacks([tmp_path / "plane.h5"], phase_steps=1.5)


def test_phases_can_be_gentler(tmp_path):
    write(tmp_path / "plane.h5", np.ones((1, 48, 48), np.float32))
    bare = [name for name in AUGMENTATIONS if name != "smooth_phase"]

    def turns(strength: float) -> float:
        source = ImageStacks([tmp_path / "plane.h5"], without=bare, phase_steps=0.0, phase_strength=strength)
        images = torch.cat([source.sample(seeded(seed)).image for seed in range(20)])
        return float((images[..., 1:] * images[..., :-1].conj()).angle().square().mean().sqrt())

    assert turns(0.0) < 1e-5 and turns(0.5) == pytest.approx(0.5 * turns(1.0), rel=1e-3)


def test_folders_are_read_with_all_their_stacks(path, tmp_path):
    write(tmp_path / "more.hdf5", STACK[:3])
    (tmp_path / "notes.txt").write_text("no stack")
    assert len(ImageStacks([tmp_path])) == 13


# ---- NIfTI.


@pytest.fixture
def nibabel():
    return pytest.importorskip("nibabel")


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
def test_nifti_comes_back_slice_by_slice(tmp_path, nibabel, name):
    volume = np.random.default_rng(1).standard_normal((6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / name)
    stack, labels = read_stack(tmp_path / name)
    assert stack.shape == (4, 6, 5) and labels == {}
    np.testing.assert_array_equal(stack[3], np.abs(volume[:, :, 3]))
    assert len(ImageStacks([tmp_path])) == 4


def test_nifti_that_is_no_volume_is_named(tmp_path, nibabel):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)), tmp_path / "series.nii")
    with pytest.raises(InputError, match=r"series.nii has shape \(4, 4, 4, 2\)"):
        ImageStacks([tmp_path / "series.nii"])
    (tmp_path / "torn.nii").write_bytes(b"no")
    with pytest.raises(InputError, match="torn.nii cannot be read as NIfTI"):
        ImageStacks([tmp_path / "torn.nii"])


# ---- Bad input.


def test_labels_are_texts_of_the_slices_alone(path):
    with h5py.File(path, "a") as file:
        file["pixel_mm"] = np.ones(10)
        file["author"] = "somebody"
        file["affine"] = np.eye(4)
        file.create_group("extra")
    stack, labels = read_stack(path)
    assert set(labels) == {"contrast", "patient", "pixel_mm"}
    assert labels["contrast"].tolist() == CONTRASTS and labels["patient"].tolist() == PATIENTS
    np.testing.assert_array_equal(stack, STACK)


def test_labels_that_repeat_may_be_compressed_well(tmp_path):
    path = write(tmp_path / "stack.h5", np.ones((2000, 2, 2)))
    with h5py.File(path, "a") as file:
        field = file.create_dataset("field", data=np.full(2000, 3), chunks=(2000,), compression="gzip")
        assert field.id.get_storage_size() < field.nbytes / 100
    assert (read_stack(path)[1]["field"] == 3).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [("image", STACK[0]), ("kspace", STACK), ("image", STACK.astype(np.complex64)), ("image", np.array(["a"], "S"))],
)
def test_files_without_an_image_stack_say_what_they_hold(tmp_path, key, value):
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file[key] = value
    with pytest.raises(InputError, match=rf"stack.h5 has \['{key}'\]; an image stack needs `image`"):
        ImageStacks([tmp_path / "stack.h5"])


def test_bad_places_are_named(tmp_path):
    with pytest.raises(InputError, match="absent.h5 does not exist"):
        ImageStacks([tmp_path / "absent.h5"])
    with pytest.raises(InputError, match=f"{tmp_path.name} holds no image stack"):
        ImageStacks([tmp_path])
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(InputError, match="text.h5: it is not an HDF5 file"):
        ImageStacks([tmp_path])


def test_a_truncated_stack_is_named(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="stack.h5 cannot be read as HDF5"):
        ImageStacks([path])


@pytest.mark.parametrize("key", ["image", "contrast"])
def test_links_to_other_files_are_not_followed(path, tmp_path, key):
    write(tmp_path / "secret.h5", contrast=CONTRASTS)
    with h5py.File(path, "a") as file:
        del file[key]
        file[key] = h5py.ExternalLink(tmp_path / "secret.h5", key)
    with pytest.raises(InputError, match=f"{key} is a link; copy the data into the file"):
        ImageStacks([path])


def test_a_size_bomb_is_refused_before_it_is_read(tmp_path):
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file.create_dataset("image", (100000, 4096, 4096), np.uint16, chunks=(1, 64, 64))
    with pytest.raises(InputError, match="declares .* bytes"):
        ImageStacks([tmp_path])


def test_slices_that_hold_next_to_nothing_are_left_out_and_no_item_explodes(tmp_path):
    """Skull-stripped volumes end in slices of a few pixels, whose 99th percentile is 0."""
    few, faint, small = np.zeros((3, 64, 64), np.float32)
    few[:4, :8] = 1.0  # less than a hundredth
    faint[:20], faint[:2, :8] = 0.02, 1.0  # its 99th percentile is far below its maximum
    small[30:36, 30:37] = 1.0  # little more than a hundredth: zoom pushes it below
    path = write(tmp_path / "stack.h5", np.stack([few, faint, small]))
    for without in ((), [name for name in AUGMENTATIONS if name != "warp"]):
        stacks = ImageStacks([path], without=without)
        assert len(stacks) == 1
        peaks = torch.stack([stacks.sample(seeded(number)).image.abs().max() for number in range(60)])
        assert torch.isfinite(peaks).all() and float(peaks.max()) < 30


def test_tone_never_brightens_more_than_fourfold():
    bright = torch.tensor([[0.0, 1.0, 2.0, 5.0, 50.0]])
    for seed in range(60):
        other = tone(bright, seeded(seed), share=1.0)
        assert float((other / bright.clamp_min(1e-6)).max()) <= 4.001
        assert float(other[0, 0]) == 0 and float(other[0, 1]) == pytest.approx(1.0)


def test_an_image_with_nan_costs_no_other(tmp_path):
    images = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    images[1, 4, 5] = np.nan
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["image"] = images
    source = ImageStacks([tmp_path / "stack.h5"], augment=False)
    assert len(source) == 2 and [note.endswith("image 1 has NaN or infinity") for note in source.notes] == [True]
    assert all(bool(source.image(number).isfinite().all()) for number in range(2))
    with h5py.File(tmp_path / "stack.h5", "r+") as file:
        file["image"][...] = np.inf
    with pytest.raises(InputError, match="NaN or infinity in every image"):
        ImageStacks([tmp_path / "stack.h5"])
