"""Echo-planar readouts against an object whose Fourier transform is known, sampled on the ramps of a gradient."""

from __future__ import annotations

import numpy as np
import pytest
from mrd import Readout, header, write_mrd

from mri_score.errors import InputError
from mri_score.readers import open_scan
from mri_score.readers.epi import Trapezoid, direction_phase, readout_fit

SIZE, ROWS, COLS, COILS, SAMPLES = 48, 24, 20, 3, 60
TIMES = {"rampUpTime": 120, "flatTopTime": 300, "rampDownTime": 100}
DESCRIPTION = TIMES | {"acqDelayTime": 20, "numSamples": SAMPLES}
DWELL = 8.0
OFFSET, SLOPE = 0.9, 0.17
"""Phase of lines that are read backward, in radians, and radians a pixel."""
REVERSE, PHASE_CORRECTION, NOISE = 22, 24, 19
SPOTS = (((-5.0, 3.0), 1.0, 1.6), ((4.0, -4.0), 0.7, 2.2), ((1.5, 5.0), 0.5, 1.3))
"""Centre (row, column), height and width of the Gaussian spots of the object, in pixels."""


def signal(k_read, k_phase):
    """Samples (coils, n) of the object, a Gaussian sum, at positions in cycles per field of view."""
    total = []
    for coil in range(COILS):
        parts = [
            height * (1 + 0.3j * coil * number) * 2 * np.pi * width**2
            * np.exp(-2 * (np.pi * width) ** 2 * ((k_read / SIZE) ** 2 + (k_phase / COLS) ** 2))
            * np.exp(-2j * np.pi * (k_read * row / SIZE + k_phase * col / COLS))
            for number, ((row, col), height, width) in enumerate(SPOTS)
        ]  # fmt: skip
        total.append(np.sum(parts, 0))
    return np.array(total) / np.sqrt(SIZE * COLS)


def positions():
    """Positions of the samples by summing the gradient in steps of a hundredth of a microsecond."""
    time = (np.arange(52_000) + 0.5) / 100
    gradient = np.interp(time, [0, 120, 420, 520], [0, 1, 1, 0])
    area = np.cumsum(gradient)
    at = area[(100 * (20 + DWELL * (np.arange(SAMPLES) + 0.5))).astype(int) - 1]
    begin, end = area[1999], area[100 * 20 + 100 * 480 - 1]
    return SIZE / (end - begin) * (at - area[-1] / 2)


def describe(xml, names=DESCRIPTION):
    longs = "".join(
        f"<userParameterLong><name>{name}</name><value>{value}</value></userParameterLong>"
        for name, value in names.items()
    )
    dwell = f"<userParameterDouble><name>dwellTime</name><value>{DWELL}</value></userParameterDouble>"
    text = f"<trajectoryDescription><identifier>ConventionalEPI</identifier>{longs}{dwell}</trajectoryDescription>"
    return xml.replace("</trajectory>", f"</trajectory>{text}")


def echo(number, k_phase, k_read=None, flags=(), **more):
    """An echo of the train: every second one is read backward, with another phase."""
    k_read = positions() if k_read is None else k_read
    if number % 2:
        values = np.exp(-1j * OFFSET) * signal(-k_read + SLOPE * SIZE / (2 * np.pi), k_phase)
        return Readout(values, flags=(REVERSE, *flags), **more)
    return Readout(signal(k_read, k_phase), flags=flags, **more)


def train(k_read=None, navigators=3):
    found = [echo(number, 0.0, k_read, (PHASE_CORRECTION,)) for number in range(navigators)]
    return found + [echo(line, line - COLS // 2, k_read, line=line) for line in range(COLS)]


def scan(path, readouts, description=DESCRIPTION, recon=ROWS):
    xml = header((SIZE, COLS, 1), (recon, COLS, 1), coils=COILS, trajectory="epi")
    return open_scan(write_mrd(path, xml if description is None else describe(xml, description), readouts))


def expected(recon=ROWS):
    rows = (np.arange(recon) - recon // 2) * SIZE / recon
    grid = np.meshgrid(rows, np.arange(COLS) - COLS // 2, indexing="ij")
    return signal(*[axis.ravel() for axis in grid]).reshape(COILS, recon, COLS) * np.sqrt(SIZE / recon)


def error(file, recon=ROWS):
    found, wanted = file.kspace(0).numpy(), expected(recon)
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_ramp_samples_of_both_directions_give_the_transform_of_the_object(tmp_path):
    file = scan(tmp_path / "scan.h5", train())
    assert file.image_shape == file.crop == (ROWS, COLS) and file.mask is None and not file.notes
    assert error(file) < 0.01
    samples, points = file.stored(0)
    assert np.array_equal(samples, file.kspace(0).numpy()) and points.all()


def test_even_samples_need_no_description(tmp_path):
    """Whether backward readouts hold the same positions or their mirror images is part of the navigators' phase."""
    forward = np.arange(SIZE) - SIZE // 2
    mirrored = train(forward)
    assert error(scan(tmp_path / "mirrored.h5", mirrored, None, SIZE), SIZE) < 0.01
    for number, one in enumerate(mirrored):
        if REVERSE in one.flags:
            k_phase = 0.0 if number < 3 else number - 3 - COLS // 2
            one.samples = np.exp(-1j * OFFSET) * signal(forward[::-1] + SLOPE * SIZE / (2 * np.pi), k_phase)
    assert error(scan(tmp_path / "same.h5", mirrored, None, SIZE), SIZE) < 0.01


def test_the_phase_is_that_of_the_navigators_and_ghosts_are_never_silent(tmp_path):
    wrong = train()
    wrong[1].samples = wrong[1].samples * np.exp(0.5j)
    assert error(scan(tmp_path / "b.h5", wrong)) > 0.1  # so the tests above can fail
    random = np.random.default_rng(0)
    wrong[1].samples = random.standard_normal((COILS, SAMPLES)) * (1 + 0j)
    assert "ghosts may remain" in scan(tmp_path / "c.h5", wrong).notes[0]
    one_way = [echo(0, line - COLS // 2, line=line) for line in range(COLS)]
    assert error(scan(tmp_path / "d.h5", one_way)) < 0.01


FAULTS = {
    "no navigators": (lambda: train(navigators=0), DESCRIPTION, "image would have ghosts"),
    "navigators of one direction": (lambda: train(navigators=1), DESCRIPTION, "image would have ghosts"),
    "no description": (train, None, "60 samples, but the header describes 48"),
    "other count": (train, DESCRIPTION | {"numSamples": 50}, "60 samples, but the header describes 50"),
    "part of a description": (train, TIMES, "without acqDelayTime, numSamples"),
    "longer than the gradient": (train, DESCRIPTION | {"rampDownTime": 10}, "no samples under a trapezoid"),
    "huge": (train, DESCRIPTION | {"numSamples": 10**9}, "no samples under a trapezoid"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_would_give_ghosts_is_one_clear_error(tmp_path, name):
    readouts, description, message = FAULTS[name]
    with pytest.raises(InputError, match=message):
        scan(tmp_path / "scan.h5", readouts(), description)


def test_samples_too_far_apart_are_refused():
    with pytest.raises(InputError, match="too far"):
        readout_fit(2.0 * np.arange(-12, 12), 48, 48, "a scan")


def test_noise_of_fitted_lines_has_the_level_of_the_noise_scan(tmp_path):
    random = np.random.default_rng(1)

    def noise(*shape):
        return random.standard_normal(shape) + 1j * random.standard_normal(shape)

    lines = [Readout(noise(COILS, SAMPLES), line=line) for line in range(COLS)]
    file = scan(tmp_path / "scan.h5", [Readout(noise(COILS, 4096), flags=(NOISE,)), *lines])
    level = np.sqrt(np.mean(np.abs(file.kspace(0).numpy()) ** 2))
    assert level == pytest.approx(float(file.noise_scan.samples.abs().square().mean().sqrt()), rel=0.05)


def test_a_trapezoid_without_ramps_is_even_and_the_line_of_phases_is_found():
    even = Trapezoid(0, 160, 0, 0, 10, 16).positions(16)
    np.testing.assert_allclose(even, np.arange(16) - 7.5, atol=1e-12)
    image = np.random.default_rng(2).standard_normal((2, 30)) + 0j
    wanted = 2.0 - 0.4 * (np.arange(30) - 15)
    found, share = direction_phase(image * np.exp(1j * wanted), image)
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * wanted), atol=1e-9)
    assert share == pytest.approx(1)
