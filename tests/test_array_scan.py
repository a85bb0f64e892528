"""Scans in arrays: NumPy, MATLAB and BART files against the arrays that were put into them, and BART as a witness."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from command import mri_score, refused

from mri_score.benchmark.ledger import read_rows
from mri_score.benchmark.summary import QUALITY
from mri_score.cli.options import data_changes
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators
from mri_score.readers import open_scan, scan_files
from mri_score.readers.array_scan import open_cfl
from mri_score.readers.fastmri import write_fastmri
from mri_score.simulation.phantom import phantom
from mri_score.sources.full_scans import Slices
from mri_score.sources.undersampled_scans import UndersampledScans
from mri_score.writers.cfl import write_cfl

NAMES = ("coils", "rows", "cols", "slices")


def white(*shape, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)


def write_array(path, array):
    """Write by NumPy, SciPy (MATLAB v5), h5py as MATLAB v7.3 does, or BART's format."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.name.endswith("v5.mat"):
        scipy.io.savemat(path, {"kspace": array, "note": "a text"})
    elif path.suffix == ".mat":
        parts = np.empty(array.T.shape, [("real", "f4"), ("imag", "f4")])
        parts["real"], parts["imag"] = array.T.real, array.T.imag
        with h5py.File(path, "w", userblock_size=512) as file:
            file["kspace"] = parts
    else:
        write_cfl(path.with_suffix(""), array)
    return path


@pytest.mark.parametrize("name", ["scan.npy", "scan_v5.mat", "scan_v73.mat", "scan.cfl"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 2, 0), (2, 0, 3, 1)])
def test_axes_are_named_in_any_order(tmp_path, name, order):
    kspace = white(3, 8, 6, 2)
    path = write_array(tmp_path / name, kspace.transpose(order))
    file = open_scan(path, axes=[NAMES[axis] for axis in order])
    assert (file.slices, file.coils, file.image_shape, file.mask) == (2, 3, (8, 6), None)
    for number in range(2):
        np.testing.assert_array_equal(file.kspace(number).numpy(), kspace[..., number])
        assert str(file.item(number)) == f"slice {number}"


def test_a_series_is_numbered_with_the_slice_running_fastest_and_averages_are_averaged(tmp_path):
    kspace = white(2, 8, 6, 2, 3, 2, 4)  # coils, rows, cols, slices, repetitions, contrasts, averages
    path = write_array(tmp_path / "scan.npy", kspace)
    file = open_scan(path, axes=["coils", "rows", "cols", "slices", "repetitions", "contrasts", "averages"])
    for number, (contrast, repetition, part) in enumerate(itertools.product(range(2), range(3), range(2))):
        expected = kspace[:, :, :, part, repetition, contrast].mean(-1)
        np.testing.assert_allclose(file.kspace(number).numpy(), expected, atol=1e-6)
        item = file.item(number)
        assert (item.contrast, item.repetition, item.slice) == (contrast, repetition, part)
    assert file.slices == 12


def test_each_frame_has_the_mask_of_its_samples(tmp_path):
    kspace = white(2, 8, 12, 3)
    for frame in range(3):
        kspace[:, :, [column for column in range(12) if column % 3 != frame], frame] = 0
    file = open_scan(write_array(tmp_path / "scan.npy", kspace), axes=("coils", "rows", "cols", "repetitions"))
    assert file.mask.shape == (3, 1, 12)
    for frame in range(3):
        assert file.mask[frame, 0].nonzero().flatten().tolist() == list(range(frame, 12, 3))


def test_partitions_make_a_stack_of_images_along_the_readout(tmp_path):
    kspace = white(8, 6, 5, 2)
    sampled = np.random.default_rng(1).random((6, 5)) < 0.7
    kspace *= sampled[:, :, None]
    file = open_scan(write_array(tmp_path / "scan.cfl", kspace))  # BART's order: read, two phase encodes, coils
    stack = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, 0), axis=0, norm="ortho"), 0)
    assert (file.slices, file.image_shape) == (8, (6, 5)) and np.array_equal(file.mask.numpy(), sampled)
    for number in range(8):
        np.testing.assert_allclose(file.kspace(number).numpy(), stack[number].transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("kind", [".npy", ".v5.mat", ".mat", ".cfl"])
def test_an_array_gives_the_acquisition_of_the_fastmri_file(tmp_path, kind):
    """The mask too: random masks depend on the name without its suffix."""
    kspace = phantom((48, 45), coils=4, slices=2).kspace
    write_fastmri(tmp_path / "head.h5", kspace)
    array, axes = kspace.numpy(), ("slices", "coils", "rows", "cols")
    if kind == ".cfl":
        array, axes = array.transpose(2, 3, 1, 0).reshape(48, 45, 1, 4, *[1] * 9, 2), None
    path = write_array(tmp_path / f"head{kind}", array).rename(tmp_path / f"head.{kind.rpartition('.')[2]}")
    files = [open_scan(tmp_path / "head.h5"), open_scan(path, axes=axes)]
    one, other = (Scan(file, Undersampling(2.0)).acquisition(1) for file in files)
    for part in ("kspace", "maps", "mask", "noise_std", "scale"):
        assert torch.equal(getattr(one, part), getattr(other, part)), part


def test_the_command_line_names_axes_and_finds_pairs_without_a_suffix(tmp_path):
    write_array(tmp_path / "scan.npy", white(3, 8, 6))
    assert "coils 3, rows 8, cols 6" in mri_score("info", tmp_path / "scan.npy", "--axes", "coils,rows,cols")
    assert "--axes coils,rows,cols" in refused("info", tmp_path / "scan.npy")
    write_array(tmp_path / "pair.cfl", white(8, 6, 1, 3))
    assert scan_files(tmp_path / "pair") == scan_files(tmp_path) == [tmp_path / "pair.cfl"]
    assert "rows 8, cols 6" in mri_score("info", tmp_path / "pair")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same full scan as a fastMRI file and, with its axes in another order, as an array."""
    folder = tmp_path_factory.mktemp("both")
    kspace = phantom((48, 48), coils=3, slices=2).kspace
    write_fastmri(folder / "fastmri" / "head.h5", kspace)
    (folder / "array").mkdir()
    np.save(folder / "array" / "head.npy", kspace.numpy().transpose(1, 3, 0, 2))
    return folder


AXES = ("coils", "cols", "slices", "rows")
SOURCES = {"full": Slices, "undersampled": partial(UndersampledScans, acceleration=2.0)}


@pytest.mark.parametrize("name", SOURCES)
def test_training_takes_arrays_with_named_axes(both, tmp_path, name):
    one = SOURCES[name]([both / "fastmri"], quiet=True)
    other = SOURCES[name]([both / "array"], axes=AXES, cache=tmp_path, quiet=True)
    assert len(one) == len(other) == 2
    found, expected = (source.sample(generators(3, "item")[0]) for source in (one, other))
    for part in ("image", "kspace", "maps", "mask", "noise_std"):
        assert (getattr(found, part) is None) == (getattr(expected, part) is None)
        assert getattr(found, part) is None or torch.equal(getattr(found, part), getattr(expected, part)), part
    config = tmp_path / "config.yml"
    config.write_text("dataset: mine\ndata: {name: full_scans, paths: [here]}\nvalidation: {paths: [here]}\n")
    assert data_changes(str(config), None, AXES) == [
        f'{section}.axes=["coils", "cols", "slices", "rows"]' for section in ("data", "validation")
    ]


COMMANDS = {
    "compare": ("--methods", "none", "--baselines", "zero-filled", "--mask-seeds", "0", "--accel", "2", "--out", "out"),
    "intervals": ("--prior", "brain-fast", "--method", "exact-draw", "--steps", "2", "-n", "2", "--level", "0.5",
                  "--slices", "0", "--out", "out/intervals.json"),
    "simulate": ("--images", "stack.h5", "--out", "out", "--like"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name == "simulate" else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_commands_take_arrays_with_named_axes(both, tmp_path, monkeypatch, name):
    results = []
    for kind, more in (("fastmri", ()), ("array", ("--axes", ",".join(AXES)))):
        (tmp_path / kind).mkdir()
        monkeypatch.chdir(tmp_path / kind)
        (scan,) = (both / kind).iterdir()
        with h5py.File("stack.h5", "w") as file:
            file["image"] = np.random.default_rng(0).random((1, 48, 48))
        mri_score(name, *COMMANDS[name], scan, *more)
        results.append({
            "compare": lambda: [row[QUALITY] for row in read_rows(Path("out/cells.jsonl"))],
            "intervals": lambda: json.loads(Path("out/intervals.json").read_text()),
            "simulate": lambda: open_scan(next(Path("out").glob("*.h5"))).kspace(0).numpy().tobytes(),
        }[name]())  # fmt: skip
    assert results[0] == results[1] and results[0]


def test_cached_maps_are_those_of_the_axes_that_are_named(both, tmp_path):
    (path,) = (both / "array").iterdir()
    swapped = tuple({"rows": "cols", "cols": "rows"}.get(name, name) for name in AXES)
    one, other = (
        Scan(open_scan(path, axes=axes), Undersampling(2.0), cache=tmp_path).acquisition(0).maps
        for axes in (AXES, swapped)
    )
    assert not torch.allclose(one, other, atol=0.1)


FAULTS = {
    "unknown": (white(3, 8, 6), ("coils", "rows", "lines"), "axes lines are not known; known: coils, rows, cols"),
    "count": (white(3, 8, 6), ("rows", "cols"), r"has the shape \(3, 8, 6\)"),
    "twice": (white(3, 8, 6), ("rows", "rows", "cols"), "a different name for each"),
    "no rows": (white(3, 8, 6), ("coils", "slices", "cols"), "rows and cols among them"),
    "real": (white(3, 8, 6).real, ("coils", "rows", "cols"), "not complex"),
    "zero": (0 * white(3, 8, 6), ("coils", "rows", "cols"), "zero everywhere"),
    "nan": (np.nan * white(3, 8, 6), ("coils", "rows", "cols"), "NaN or infinity"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_axes_that_do_not_fit_get_one_clear_error(tmp_path, name):
    array, axes, message = FAULTS[name]
    path = write_array(tmp_path / "scan.npy", array)
    with pytest.raises(InputError, match=message) as error:
        file = open_scan(path, axes=axes)
        assert file.mask is None
        file.kspace(0)
    assert str(path) in str(error.value)


def test_damaged_pairs_and_matrices_get_one_clear_error(tmp_path):
    path = write_array(tmp_path / "scan.cfl", white(8, 6, 1, 3))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="incomplete or forged"):
        open_scan(path)
    path.with_suffix(".hdr").write_text("# Dimensions\n8 -6 1 3\n")
    with pytest.raises(InputError, match="incomplete or forged"):
        open_scan(path)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(InputError, match="needs its header scan.hdr"):
        open_scan(path)
    several = write_array(tmp_path / "several.cfl", white(8, 6, 1, 3, 2))
    with pytest.raises(InputError, match="dimension 4 has several entries"):
        open_scan(several)
    broken = tmp_path / "broken.mat"
    broken.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    scipy.io.savemat(tmp_path / "two.mat", {"a": white(3, 8, 6), "b": white(3, 8, 6)})
    messages = {"broken.mat": "MATLAB file|holds: nothing", "two.mat": r"Name it kspace; it holds: a \(3, 8, 6\)"}
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            open_scan(tmp_path / name, axes=("coils", "rows", "cols"))


def test_raw_data_of_vendors_are_named_with_their_converter(tmp_path):
    for name, vendor in {"meas.dat": "siemens", "P12345.7": "ge", "a.lab": "philips", "fid": "bruker"}.items():
        (tmp_path / name).write_bytes(b"raw")
        assert f"{vendor}_to_ismrmrd" in refused("info", tmp_path / name)


# BART as a witness


def bart(*command, folder):
    if shutil.which("bart") is None:
        pytest.skip("BART is not installed (Debian: apt install bart)")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(["bart", *map(str, command)], cwd=folder, env=environment, check=True, capture_output=True)


def test_barts_own_kspace_gives_barts_own_image(tmp_path):
    """A phantom of 4 coils by `bart phantom`, transformed by `bart fft`; our transform of the file is its image."""
    bart("phantom", "-x", "48", "-s", "4", "-k", "kspace", folder=tmp_path)
    bart("fft", "-u", "-i", "3", "kspace", "image", folder=tmp_path)
    file = open_scan(tmp_path / "kspace.cfl")
    assert (file.coils, file.image_shape, file.mask) == (4, (48, 48), None)
    theirs = open_cfl(tmp_path / "image.cfl")[()].reshape(48, 48, 4).transpose(2, 0, 1)
    np.testing.assert_allclose(ifft(file.kspace(0)).numpy(), theirs, atol=1e-5 * np.abs(theirs).max())


def test_maps_by_ecalib_are_read_and_pics_agrees_with_cg_sense(tmp_path):
    """`bart pics` with the maps of `bart ecalib`, both read here: the same SENSE image."""
    bart("phantom", "-x", "48", "-s", "4", "-k", "full", folder=tmp_path)
    keep = [column for column in range(48) if column % 2 == 0 or 16 <= column < 32]
    full = open_cfl(tmp_path / "full.cfl")[()]
    kspace = np.zeros_like(full)
    kspace[:, keep] = full[:, keep]
    write_cfl(tmp_path / "kspace", kspace)
    bart("ecalib", "-m", "1", "-c", "0", "-r", "16", "kspace", "maps", folder=tmp_path)
    bart("pics", "-w", "1", "-l2", "-r", "0.001", "-i", "200", "kspace", "maps", "image", folder=tmp_path)
    scan = Scan(open_scan(tmp_path / "kspace.cfl"), maps=tmp_path / "maps.cfl").acquisition(0)
    operator = scan.operator()
    image = operator.solve(operator.adjoint(scan.kspace), weight=0.001, tolerance=1e-7, max_iterations=500)
    image = (image * scan.scale[:, None, None])[0].numpy()
    theirs = open_cfl(tmp_path / "image.cfl")[()].reshape(48, 48)
    scale = np.vdot(image, theirs) / np.vdot(image, image)
    assert np.linalg.norm(scale * image - theirs) < 0.01 * np.linalg.norm(theirs)
    assert abs(scale) == pytest.approx(1, abs=0.01)
