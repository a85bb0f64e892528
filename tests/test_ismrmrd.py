"""ISMRMRD files: from Debian's tools and from the `ismrmrd` package, against the images that were put into them."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from command import mri_score
from mrd import Readout, header, lines_of, write_mrd

from mri_score.data.noise_rings import whiten
from mri_score.data.scan import Scan
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image
from mri_score.readers import open_scan
from mri_score.readers.oversampling import remove_oversampling
from mri_score.simulation.phantom import phantom
from mri_score.writers import ismrmrd as written

NOISE, CALIBRATION, BOTH, REVERSE, NAVIGATION, PHASE_CORRECTION, DUMMY = 19, 20, 21, 22, 23, 24, 27
GENERATOR = "ismrmrd_generate_cartesian_shepp_logan"


def white(*shape, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)


def images(path, number=0):
    """Coil images of a file, as numpy."""
    return ifft(open_scan(path).kspace(number)).numpy()


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Files of Debian's generator


def generated(path, *options):
    if shutil.which(GENERATOR) is None:
        pytest.skip("ismrmrd-tools is not installed: apt-get install ismrmrd-tools")
    size = () if "-m" in options else ("-m", "32")
    subprocess.run([GENERATOR, *size, "-c", "4", "-o", path, *options], check=True, capture_output=True)
    with h5py.File(path) as file:
        phantom, maps = (file[f"dataset/{name}"][0] for name in ("phantom", "csm"))
    together = maps["real"] + 1j * maps["imag"], phantom["real"] + 1j * phantom["imag"]
    return (together[0] * together[1]).transpose(0, 2, 1)  # its images have x, the readout, last


@pytest.mark.parametrize("options", [(), ("-O", "1"), ("-O", "3"), ("-k",), ("-C",), ("-m", "50")])
def test_the_generators_phantom_comes_back_upright(tmp_path, options):
    expected = generated(tmp_path / "scan.h5", "-n", "0", *options)
    file = open_scan(tmp_path / "scan.h5")
    # its header asks for half of the readout, whatever the oversampling
    expected = resize_image(torch.from_numpy(expected), file.image_shape).numpy()
    assert file.mask is None and (file.noise_scan is None) == ("-C" not in options)
    assert difference(images(tmp_path / "scan.h5"), expected) < 1e-5


def test_the_generators_calibration_lines_serve_maps_and_repetitions_stay_apart(tmp_path):
    expected = generated(tmp_path / "scan.h5", "-n", "0", "-a", "2", "-w", "12", "-r", "2")
    file = open_scan(tmp_path / "scan.h5")
    k = fft(torch.from_numpy(expected.astype(np.complex64)))
    assert [str(file.item(number)) for number in (0, 3)] == ["slice 0", "slice 0, repetition 3"]
    mask = file.sampled
    assert mask.shape == (4, 1, 1, 32)
    for number in range(4):
        assert mask[number].nonzero()[:, -1].tolist() == list(range(number % 2, 32, 2))
        assert difference(file.kspace(number).numpy(), (k * mask[number]).numpy()) < 1e-5
        found, measured = file.calibration(number)
        assert measured.all() and found.shape == (4, 32, 12)
        assert difference(found.numpy(), k[:, :, 10:22].numpy()) < 1e-5


# Real scans, written as ISMRMRD files and read back


@pytest.mark.parametrize("name", ["brain_t2_4ch", "brain_flash_16ch", "phantom_oversampled_2ch"])
def test_a_real_scan_is_the_same_through_both_formats(shared, tmp_path, name):
    fastmri = open_scan(shared / f"data/kspace/{name}.h5")
    with h5py.File(fastmri.path) as file:
        stored = file["kspace"][0]
    rows, cols = stored.shape[-2:]
    xml = header((rows, cols, 1), (fastmri.image_shape[0], cols, 1), coils=len(stored))
    file = open_scan(write_mrd(tmp_path / "scan.h5", xml, lines_of(stored)))
    assert file.crop == fastmri.crop and file.mask is None
    assert difference(file.kspace(0).numpy(), fastmri.kspace(0).numpy()) < 1e-5


@pytest.mark.slow
def test_a_scan_with_two_phase_encodes_is_the_same_through_both_formats(shared, tmp_path):
    fastmri = open_scan(shared / "data/kspace/prospective_poisson_8ch.h5")
    kspace, mask = fastmri.kspace(0).numpy(), fastmri.mask
    readouts = [Readout(kspace[:, y, z, None], y, z) for y, z in np.argwhere(mask.numpy())]
    limits = [(0, n - 1, n // 2) for n in kspace.shape[1:]]
    xml = header((1, *kspace.shape[1:]), coils=8, limits=limits[0], limits2=limits[1])
    file = open_scan(write_mrd(tmp_path / "scan.h5", xml, readouts))
    assert torch.equal(file.mask, mask)
    np.testing.assert_allclose(file.kspace(0).numpy(), kspace, atol=1e-5 * np.abs(kspace).max())
    assert file.acquired.shape == (1, 1, 1, 180)


# What scanners do with readouts


def test_order_reversal_discarded_samples_and_other_readouts_change_nothing(tmp_path):
    kspace = white(4, 16, 12)
    readouts = lines_of(kspace)
    for one in readouts[::2]:  # every second line runs backwards
        one.samples, one.flags = one.samples[:, ::-1], (REVERSE,)
    for one in readouts[1::3]:
        before = 2 if REVERSE not in one.flags else 1
        one.samples = np.concatenate([white(4, before), one.samples, white(4, 3 - before)], 1)
        one.fields = {"discard_pre": before, "discard_post": 3 - before, "center_sample": 10}
    odd = [Readout(100 * white(4, 16), 3, flags=(flag,)) for flag in (NAVIGATION, PHASE_CORRECTION, DUMMY)]
    path = write_mrd(tmp_path / "scan.h5", header((16, 12, 1)), [*odd, *readouts[::-1]])
    file = open_scan(path)
    np.testing.assert_array_equal(file.kspace(0).numpy(), kspace)
    assert len(file.notes) == 3 and "phase correction" in file.notes[1]


def test_reversed_readouts_may_state_their_centre_in_the_order_of_the_samples(tmp_path):
    kspace = white(2, 16, 6)
    readouts = lines_of(kspace)
    for one in readouts[::2]:
        one.samples, one.flags, one.fields = one.samples[:, ::-1], (REVERSE,), {"center_sample": 7}
    path = write_mrd(tmp_path / "scan.h5", header((16, 6, 1)), readouts)
    np.testing.assert_array_equal(open_scan(path).kspace(0).numpy(), kspace)


def test_averages_are_averaged_and_items_are_never_mixed(tmp_path):
    kinds = [{}, *({name: 1} for name in ("contrast", "set", "phase", "repetition", "slice"))]
    kinds.append({"slice": 1, "contrast": 1})
    kspace = white(len(kinds), 2, 8, 6)
    readouts = []
    for average, sign in ((0, 1), (1, -1)):
        for number, counters in enumerate(kinds):
            values = kspace[number] + sign * white(2, 8, 6, seed=9)
            readouts += lines_of(values, counters={**counters, "average": average, "segment": average})
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((8, 6, 1)), readouts[::-1]))
    assert file.slices == len(kinds)
    for number in range(file.slices):
        item = {name: value for name, value in vars(file.item(number)).items() if value}
        np.testing.assert_allclose(file.kspace(number).numpy(), kspace[kinds.index(item)], atol=1e-6)
    assert len({str(file.item(number)) for number in range(file.slices)}) == len(kinds)


def test_unequal_averages_are_noted(tmp_path):
    kspace = white(2, 8, 6)
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((8, 6, 1)), lines_of(kspace) + lines_of(kspace, [3])))
    assert any("measured 1 to 2 times" in note for note in file.notes)


def test_partial_fourier_lines_are_unknown_and_symmetric_ones_padding(tmp_path):
    kspace = white(2, 8, 16)
    limits = (0, 11, 4)  # steps -4 to 7 of 16: a quarter is missing at one side
    readouts = [Readout(kspace[:, :, step + 4], step) for step in range(12)]
    file = open_scan(write_mrd(tmp_path / "partial.h5", header((8, 16, 1), limits=limits), readouts))
    assert file.padding == (4, 16) and file.mask is None
    assert file.sampled[0, 0, 0].nonzero().flatten().tolist() == [*range(4, 16)]
    assert any("partial Fourier: 12 of 16" in note and "truth" in note for note in file.notes)
    np.testing.assert_array_equal(file.kspace(0).numpy()[..., 4:], kspace[..., 4:])
    limits = (0, 7, 4)  # steps -4 to 3: a matrix that is larger than what was measured
    file = open_scan(write_mrd(tmp_path / "padded.h5", header((8, 16, 1), limits=limits), readouts[:8]))
    assert file.padding == (4, 12) and not file.notes


@pytest.mark.parametrize(("size", "rows", "missing"), [(64, 32, 16), (63, 40, 11), (64, 64, 10)])
def test_a_partial_readout_gives_the_rows_that_it_determines(tmp_path, size, rows, missing):
    """Signal within the smaller field of view: the measured rows are right to 1 %, where a crop errs by a third."""
    image = np.zeros((3, size, 5), np.complex64)
    start = (size - rows) // 2
    image[:, start : start + rows] = white(3, rows, 5)
    full = fft(torch.from_numpy(image)).numpy()
    expected = fft(torch.from_numpy(image[:, start : start + rows])).numpy()
    xml = header((size, 5, 1), (rows, 5, 1))
    centre = {"center_sample": size // 2 - missing}
    readouts = [Readout(full[:, missing:, line], line, fields=centre) for line in range(5)]
    file = open_scan(write_mrd(tmp_path / "scan.h5", xml, readouts))
    found, inside = file.kspace(0).numpy(), file.acquired[0, 0, :, 0].numpy()
    assert file.mask is None and not found[:, ~inside].any()
    assert abs(int(inside.sum()) - rows * (size - missing) / size) < 4
    assert difference(found[:, inside], expected[:, inside]) < 0.01
    assert any("partial readouts" in note for note in file.notes)


def test_removal_of_oversampling_from_full_readouts_is_the_crop_and_keeps_noise_white():
    matrix, inside = remove_oversampling(64, 40, 0, 64)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(40), atol=1e-12)
    partial, inside = remove_oversampling(64, 40, 14, 64)
    noise = np.linalg.norm(partial[inside], axis=1)
    assert noise.min() > 0.95 and noise.max() < 1.12


def test_a_three_dimensional_scan_is_a_stack_along_the_readout(tmp_path):
    kspace = white(2, 12, 7, 6)
    volume = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, 1), axis=1, norm="ortho"), 1)[:, 3:9]
    sampled = np.random.default_rng(1).random((7, 6)) < 0.6
    readouts = [Readout(kspace[:, :, y, z], y, z) for y, z in np.argwhere(sampled)]
    xml = header((12, 7, 6), (6, 7, 6), limits2=(0, 5, 3), fov=(24, 14, 18))
    file = open_scan(write_mrd(tmp_path / "scan.h5", xml, readouts))
    assert (file.slices, file.image_shape, file.crop) == (6, (7, 6), (7, 6))
    assert np.array_equal(file.mask.numpy(), sampled)
    for number in range(6):
        expected = volume[:, number] * sampled
        np.testing.assert_allclose(file.kspace(number).numpy(), expected, atol=1e-6)
        assert file.item(number).slice == number


def test_partial_readouts_of_three_dimensional_scans_are_zero_filled_and_noted(tmp_path):
    kspace = white(2, 12, 7, 6)
    part = np.zeros_like(kspace)
    part[:, 3:] = kspace[:, 3:]
    volume = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(part, 1), axis=1, norm="ortho"), 1)
    place = {"center_sample": 3}  # the middle of the readout, 6, is the fourth of the nine samples
    readouts = [Readout(kspace[:, 3:, y, z], y, z, fields=place) for y in range(7) for z in range(6)]
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((12, 7, 6), limits2=(0, 5, 3)), readouts))
    np.testing.assert_allclose(file.kspace(4).numpy(), volume[:, 4], atol=1e-6)
    assert "9 of 12 samples; the others are taken as zero" in file.notes[0] and "blurs" in file.notes[0]
    assert "three-dimensional: the new file holds the stack" in mri_score("convert", file.path, tmp_path / "new.mrd")


# Noise and calibration


def test_the_noise_scan_gives_the_covariance_at_the_noise_level_of_the_lines(tmp_path):
    """Twice the dwell time halves the variance, the filter passed 0.8 of it, and two averages halve it again."""
    mix = white(4, 4, seed=3)
    noise = mix @ white(4, 40000, seed=4)  # covariance of each component: mix mix^H
    dwell, bandwidth = 10.0, "<relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>"
    quiet = 1e-6 * white(4, 16, 6)
    starts, more = range(0, 40000, 400), {"sample_time_us": dwell}
    readouts = [Readout(noise[:, first : first + 400], flags=(NOISE,), fields=more) for first in starts]
    readouts += lines_of(quiet) + lines_of(quiet)
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((16, 6, 1), more=bandwidth), readouts))
    found = file.noise_scan
    samples = found.samples.numpy()
    covariance = samples @ samples.conj().T / (2 * samples.shape[1])
    assert found.calibrated and difference(covariance, mix @ mix.conj().T * (10 / 5) / 0.8 / 2) < 0.03


def test_the_scan_is_whitened_with_the_noise_scan(tmp_path):
    mix = white(4, 4, seed=3) + 3 * np.eye(4)
    coils = np.einsum("dc,chw->dhw", mix, white(4, 48, 40, seed=5)).astype(np.complex64)
    coils[:, 20:28, 16:24] += 200
    readouts = [Readout(mix @ white(4, 2000, seed=4), flags=(NOISE,)), *lines_of(coils)]
    scan = Scan(open_scan(write_mrd(tmp_path / "scan.h5", header((48, 40, 1)), readouts)))
    level = float(np.sqrt(np.mean(np.linalg.norm(mix, axis=1) ** 2)))
    assert scan.noise_std == pytest.approx(level, rel=0.03)
    outer = whiten(scan.kspace(0), scan.mixing)[:, :, :12].flatten(1).numpy()
    covariance = outer @ outer.conj().T / (2 * outer.shape[1])
    assert difference(covariance, level**2 * np.eye(4)) < 0.12


@pytest.mark.parametrize(("mode", "sampled"), [("separate", 8), ("embedded", 12)])
def test_separate_calibration_lines_serve_maps_alone_embedded_ones_the_image_too(tmp_path, mode, sampled):
    kspace, other = white(2, 16, 16), white(2, 16, 16, seed=1)
    readouts = lines_of(kspace, range(0, 16, 2))
    for one in readouts[2:6]:
        one.flags = (BOTH,)
    readouts += lines_of(other, range(5, 12, 2), flags=(CALIBRATION,))
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((16, 16, 1), calibration=mode), readouts))
    assert int(file.sampled.sum()) == sampled
    if mode == "embedded":
        assert file.calibration(0) is None
        return
    found, measured = file.calibration(0)
    assert measured.all() and found.shape == (2, 16, 8)
    np.testing.assert_array_equal(found[:, :, ::2].numpy(), kspace[:, :, 4:12:2])
    np.testing.assert_array_equal(found[:, :, 1::2].numpy(), other[:, :, 5:12:2])


@pytest.mark.slow
def test_maps_from_separate_lines_of_the_whole_scan_are_those_of_the_full_scan(shared, tmp_path):
    with h5py.File(shared / "data/kspace/brain_flash_16ch.h5") as file:
        kspace = file["kspace"][0]
    readouts = lines_of(kspace, range(0, 128, 4)) + lines_of(1.5 * kspace, range(52, 76), flags=(CALIBRATION,))
    xml = header((128, 128, 1), coils=16, calibration="separate")
    scan = Scan(open_scan(write_mrd(tmp_path / "scan.h5", xml, readouts)))
    maps, _, region = scan.make_maps(0)
    full, _, _ = Scan(open_scan(shared / "data/kspace/brain_flash_16ch.h5")).make_maps(0)
    assert "separate" in str(region)
    image = np.abs(ifft(torch.from_numpy(kspace)).numpy()).sum(0)
    agreement = (maps.conj() * whiten_like(full, scan)).sum(1).abs()[0][image > 0.2 * image.max()]
    assert float(agreement.mean()) > 0.98


def whiten_like(maps, scan):
    """Maps in the coils of `scan`, with unit norm."""
    mixed = maps if scan.mixing is None else whiten(maps, scan.mixing)
    return mixed / mixed.abs().square().sum(1, keepdim=True).sqrt()


# Geometry


def test_geometry_of_an_oversampled_oblique_slice(tmp_path):
    axes = {"read_dir": (0.0, 0.6, 0.8), "phase_dir": (1.0, 0.0, 0.0), "slice_dir": (0.0, 0.8, -0.6)}
    more = {"fields": {**axes, "position": (5.0, -7.0, 11.0)}}
    xml = header((16, 12, 1), (8, 10, 1), fov=(32, 36, 5), recon_fov=(16, 30, 5))
    place = open_scan(write_mrd(tmp_path / "scan.h5", xml, lines_of(white(2, 16, 12), **more))).geometry(0)
    assert place.oriented and place.matrix == (8, 10) and place.voxel_size == (2.0, 3.0, 5.0)
    np.testing.assert_allclose(place.at(4, 5), (5.0, -7.0, 11.0), atol=1e-5)  # DC's pixel is the centre of the slice
    np.testing.assert_allclose(np.subtract(place.at(5, 5), place.at(4, 5)), (0.0, 1.2, 1.6), atol=1e-5)
    np.testing.assert_allclose(np.subtract(place.at(4, 6), place.at(4, 5)), (3.0, 0.0, 0.0), atol=1e-5)


def test_geometry_of_a_three_dimensional_scan_runs_along_the_readout(tmp_path):
    axes = {"read_dir": (0.0, 0.0, 1.0), "phase_dir": (1.0, 0.0, 0.0), "slice_dir": (0.0, 1.0, 0.0)}
    fields = {**axes, "position": (1.0, 2.0, 3.0)}
    readouts = [Readout(white(2, 12), y, z, fields=fields) for y in range(7) for z in range(6)]
    xml = header((12, 7, 6), (6, 7, 6), limits2=(0, 5, 3), fov=(24, 14, 18))
    file = open_scan(write_mrd(tmp_path / "scan.h5", xml, readouts))
    place = file.geometry(3)  # 6 of 12 samples: the origin is sample 3
    assert place.voxel_size == pytest.approx((2.0, 3.0, 2.0))
    np.testing.assert_allclose(place.at(3, 3), (1.0, 2.0, 3.0), atol=1e-5)
    np.testing.assert_allclose(np.subtract(file.geometry(4).at(3, 3), place.at(3, 3)), (0.0, 0.0, 2.0), atol=1e-5)


# The pipeline and bad input


def test_a_reader_survives_pickling_and_closing(tmp_path):
    kspace = white(2, 8, 6)
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((8, 6, 1)), lines_of(kspace)))
    file.kspace(0)
    copy = pickle.loads(pickle.dumps(file))
    file.close()
    for one in (copy, file):
        np.testing.assert_array_equal(one.kspace(0).numpy(), kspace)


def damaged(name):
    """Readouts and header with one fault, and a part of the message."""
    kspace = white(2, 8, 6)
    readouts, xml = lines_of(kspace), header((8, 6, 1))
    first = readouts[0]
    if name == "line":
        first.line = 6
        return xml, readouts, "outside the header's limits 0 to 5"
    if name == "matrix":
        return header((8, 4, 1), limits=(0, 9, 2)), readouts, "the matrix of 4"
    if name == "samples":
        return header((6, 6, 1)), readouts, "do not fit the encoded matrix of 6"
    if name == "coils":
        return xml, [replace(first, samples=white(3, 8)), *readouts[1:]], "coils; all need the same number"
    if name == "nan":
        first.samples = first.samples * np.nan
        return xml, readouts, "holds NaN or infinity"
    if name == "no image":
        return xml, [replace(one, flags=(NOISE,)) for one in readouts], "none of the 6 readouts is part of an image"
    if name == "compressed":
        return xml, [replace(one, flags=(53,)) for one in readouts], "compressed"
    if name == "encoding":
        return xml, [replace(one, fields={"encoding_space_ref": 1}) for one in readouts], "encoding 1"
    if name == "no header":
        return "<ismrmrdHeader/>", readouts, "has no encoding"
    if name == "entity":
        return '<!DOCTYPE a [<!ENTITY b "c">]>' + xml[21:], readouts, "DOCTYPE"
    if name == "calibration":
        readouts += [*lines_of(kspace, counters={"slice": 1}), replace(first, flags=(CALIBRATION,))]
        return xml, readouts, "slice 1 has no calibration"
    limits, huge = (0, 7, 4), (1 << 15,) * 3
    if name == "absurd centre":
        return header((8, 8, 1), limits=(0, 7, "1e300")), readouts, "counters are 0 to 65535"
    if name == "negative limits":
        return header((8, 8, 1), limits=(-9, 7, 4)), readouts, "counters are 0 to 65535"
    if name == "huge matrix":
        return header(huge, limits=limits, limits2=limits), readouts, "32768 x 32768 points and 2 coils"
    if name == "huge image":
        return header((*huge[:2], 1), trajectory="radial"), readouts, "32768 x 32768 points and 2 coils"
    raise AssertionError(name)


FAULTS = ["line", "matrix", "samples", "coils", "nan", "no image", "compressed", "encoding", "no header", "entity",
          "calibration", "absurd centre", "negative limits", "huge matrix", "huge image"]  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_files_get_one_clear_error(tmp_path, name):
    xml, readouts, message = damaged(name)
    path = write_mrd(tmp_path / "scan.h5", xml, readouts)
    with pytest.raises(InputError, match=message) as error:
        file = open_scan(path)
        for number in range(file.slices):
            file.kspace(number), file.calibration(number)
    assert str(path) in str(error.value)


NOISES = {
    "no samples": (np.zeros((4, 400)), {}, "", "holds no noise"),
    "overflow": (1e30 * white(4, 400), {}, "", "holds no noise"),
    "absurd dwell time": (white(4, 400), {"sample_time_us": 1e-30}, "", "only the covariance"),
    "endless dwell time": (white(4, 400), {"sample_time_us": np.inf}, "", None),
    "negative bandwidth": (white(4, 400), {}, "<relativeReceiverNoiseBandwidth>-1</relativeReceiverNoiseBandwidth>",
                           None),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISES)
def test_an_impossible_noise_scan_does_not_change_the_noise_level(tmp_path, name):
    samples, fields, more, note = NOISES[name]
    lines = lines_of(phantom((48, 40), coils=4).kspace[0].numpy(), fields={"sample_time_us": 5.0})
    one = Scan(open_scan(write_mrd(tmp_path / "plain.h5", header((48, 40, 1)), lines)))
    noise = Readout(samples, flags=(NOISE,), fields=fields)
    other = Scan(open_scan(write_mrd(tmp_path / "scan.h5", header((48, 40, 1), more=more), [noise, *lines])))
    assert other.noise_std == pytest.approx(one.noise_std)
    assert note is None or any(note in text for text in other.notes)


def test_odd_directions_are_noted(tmp_path):
    lines = lines_of(white(4, 8, 8), fields={"read_dir": (1.0, 0.0, 0.0), "phase_dir": (1.0, 0.0, 0.0)})
    file = open_scan(write_mrd(tmp_path / "scan.h5", header((8, 8, 1)), lines))
    assert "8 readouts state directions" in file.notes[0] and not file.geometry(0).oriented


@pytest.mark.slow
def test_a_series_of_many_images_is_opened_at_once(tmp_path):
    one = {"center_sample": 1}
    readouts = (
        written.Readout(white(1, 2), one, {"kspace_encode_step_1": step, "repetition": number})
        for number in range(10_000)
        for step in (1, 2)
    )
    path = written.write_ismrmrd(tmp_path / "scan.h5", header((2, 4, 1), coils=1).encode(), readouts)
    started = time.process_time()
    scan = Scan(open_scan(path))
    assert scan.file.slices == len(scan.frames(0)) == len(scan.frames(9_999)) == 10_000
    assert time.process_time() - started < 10  # comparing every readout with every image takes minutes


def test_truncated_files_get_an_error(tmp_path):
    path = write_mrd(tmp_path / "scan.h5", header((64, 40, 1)), lines_of(white(4, 64, 40)))
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError):
            open_scan(path).kspace(0)


def test_frames_share_the_maps_of_their_average_and_the_noise_is_that_of_the_generator(tmp_path):
    """Four repetitions, each with another quarter of the lines: only their average has calibration lines."""
    expected = torch.from_numpy(generated(tmp_path / "scan.h5", "-a", "4", "-m", "64"))
    scan = Scan(open_scan(tmp_path / "scan.h5"))
    assert scan.noise_std == pytest.approx(0.05, rel=0.05) and scan.acceleration == pytest.approx(4)
    maps, _, region = scan.make_maps(3)
    assert "average of 4 frames" in str(region) and "(64 x 32)" in str(region)
    assert torch.equal(scan.acquisition(0).maps, maps) and torch.equal(scan.acquisition(3).maps, maps)
    mixed = expected[None].to(maps) if scan.mixing is None else whiten(expected[None], scan.mixing)
    explained = maps * (maps.conj() * mixed).sum(1, keepdim=True)
    assert difference(explained.numpy(), mixed.numpy()) < 0.05


def test_noise_scan_and_separate_calibration_of_the_generator(tmp_path):
    generated(tmp_path / "scan.h5", "-a", "2", "-w", "16", "-C", "-m", "64")
    scan = Scan(open_scan(tmp_path / "scan.h5"))
    assert scan.noise_std == pytest.approx(0.05, rel=0.05) and scan.noise.whitening is not None
    assert "separate calibration lines (64 x 16)" in str(scan.make_maps(0)[2])


@pytest.mark.slow
def test_the_report_of_a_series_has_a_film(tmp_path):
    """Three frames of one slice: a film of three, and the file states which frame each image is."""
    generated(tmp_path / "scan.h5", "-a", "3", "-m", "32")
    options = ("--steps", "2", "--samples", "1", "--baselines", "none", "--out", tmp_path / "out")
    mri_score("reconstruct", tmp_path / "scan.h5", *options)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    data = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page)[1])
    places = [(place["title"], place["slice"], place["frame"]) for place in data["places"]]
    assert places == [("Slice 0", 0, 0), ("Slice 0, repetition 1", 0, 1), ("Slice 0, repetition 2", 0, 2)]
    with h5py.File(tmp_path / "out" / "reconstructions" / "scan.h5") as file:
        assert file["frame"][:].tolist() == [0, 1, 2]


def test_the_example_of_the_formats_page_writes_a_scan(tmp_path, monkeypatch):
    pytest.importorskip("ismrmrd", reason="the package ismrmrd is not installed: install the extra mrd")
    page = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
    if not page.exists():
        pytest.skip("the pages are part of a checkout")
    kspace = white(3, 16, 12)
    kspace[:, :, 1:4] = 0
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", kspace)
    (code,) = re.findall(r"```python\n(import ismrmrd.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(code, {})
    file = open_scan(tmp_path / "mine.mrd")
    np.testing.assert_array_equal(file.kspace(0).numpy(), kspace)
    assert file.mask.nonzero().flatten().tolist() == [0, *range(4, 12)]
    assert file.geometry(0).oriented and file.geometry(0).voxel_size == pytest.approx((15.0, 20.0, 5.0))
