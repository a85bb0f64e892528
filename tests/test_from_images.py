"""Scans simulated from image stacks: what they take from a real scan, and that nothing else enters."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mri_score.cli import main
from mri_score.errors import InputError
from mri_score.numerics.fourier import ifft
from mri_score.readers.fastmri import FastMRI
from mri_score.simulation.from_images import ScanTemplate, extend, fit, scan_template, simulate_like
from mri_score.simulation.simulate import UNIT, simulate

SHAPE = (63, 50)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan to take coil maps and phase from: a head with four coils and visible noise."""
    return simulate(tmp_path_factory.mktemp("scan"), volumes=1, slices=1, size=64, coils=4, noise=40.0)[0]


def disc(shape, radii, centre=None):
    middle = centre or (shape[0] // 2, shape[1] // 2)
    rows, cols = (torch.arange(size) - place for size, place in zip(shape, middle, strict=True))
    return (rows[:, None] / radii[0]).square() + (cols / radii[1]).square() < 1


@pytest.fixture
def stack(tmp_path):
    """Six slices of two patients and two contrasts, stored out of order, and one without signal."""
    random = np.random.default_rng(0)
    head = disc(SHAPE, (26, 20)).numpy()
    image = (head * random.uniform(100, 1000, (7, *SHAPE))).astype(np.uint16)
    image[6] = 0
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["image"] = image
        file["patient"] = np.array(["a", "a", "a", "a", "b", "b", "b"], dtype="S")
        file["contrast"] = np.array(["T1", "T1", "T1", "T2", "T2", "T2", "T2"], dtype="S")
        file["slice"] = [2, 0, 1, 0, 0, 1, 2]
    return tmp_path / "stack.h5", image


def magnitudes(path):
    return torch.stack([FastMRI(path).target(number) for number in range(FastMRI(path).slices)]).numpy()


def test_without_noise_the_rss_is_the_magnitude_of_the_stack(tmp_path, stack, scan):
    path, image = stack
    files = simulate_like(tmp_path / "out", path, scan, noise=np.inf)
    assert [file.stem for file in files] == [f"{name}_{scan.stem}" for name in ("a_T1", "a_T2", "b_T2")]
    for file, numbers in zip(files, ([1, 2, 0], [3], [4, 5]), strict=True):
        wanted = image[numbers].astype(float)
        place = np.sort(wanted.ravel())[int(np.ceil(0.99 * wanted.size)) - 1]
        np.testing.assert_allclose(magnitudes(file), wanted * UNIT / place, atol=1e-4 * UNIT)


def test_coil_images_have_the_phase_and_the_coils_of_the_scan(tmp_path, stack, scan):
    path = simulate_like(tmp_path / "out", stack[0], scan, noise=np.inf, only={"patient": ["b"]})[0]
    coils = ifft(FastMRI(path).kspace(0))
    magnitude = coils.abs().square().sum(0).sqrt()
    head = magnitude > 0.1 * UNIT
    profiles = fit(scan_template(scan), torch.from_numpy(magnitudes(path)))
    torch.testing.assert_close((coils / magnitude)[:, head], profiles[:, head], atol=1e-3, rtol=0)


def test_the_noise_is_white_at_the_scans_level_and_the_same_for_a_slice_alone(tmp_path, stack, scan):
    def noise(folder, **chosen):
        noisy, clean = (
            FastMRI(simulate_like(tmp_path / folder / str(snr), stack[0], scan, noise=snr, **chosen)[0])
            for snr in (None, np.inf)
        )
        return torch.stack([noisy.kspace(i) - clean.kspace(i) for i in range(noisy.slices)]), noisy

    every, file = noise("all")
    stated = file.attributes["noise_std"]
    assert stated == pytest.approx(FastMRI(scan).attributes["noise_std"], rel=0.1)  # both have their percentile at UNIT
    for part in (every.real, every.imag, ifft(every)[..., :10].real):
        assert part.std().item() == pytest.approx(stated, rel=0.04)
    last, _ = noise("last", slices=lambda count: [count - 1])
    torch.testing.assert_close(last[0], every[-1], atol=1e-3 * stated, rtol=0)


def test_the_same_arguments_write_the_same_samples_and_seeds_others(tmp_path, stack, scan):
    first, again, other = (
        FastMRI(simulate_like(tmp_path / name, stack[0], scan, seed=seed)[0]).kspace(0)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_files_say_what_they_are(tmp_path, stack, scan):
    file = FastMRI(simulate_like(tmp_path / "out", stack[0], scan, only={"contrast": ["T2"]})[0])
    assert file.acquisition.startswith("simulated T2: magnitudes of stack.h5")
    assert scan.stem in file.acquisition
    assert (file.attributes["patient_id"], file.attributes["slices"]) == ("a", "3")
    assert bool(file.attributes["simulated"])


def test_undersampled_ones_hold_a_mask_and_no_truth(tmp_path, stack, scan):
    file = FastMRI(simulate_like(tmp_path / "out", stack[0], scan, undersample=3)[0])
    assert file.mask is not None and not file.has_target
    assert int(file.mask.sum()) == round(SHAPE[1] / 3)


def test_a_stack_without_labels_is_one_volume(tmp_path, scan):
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["image"] = np.stack([disc((48, 48), (20, 15)).numpy()] * 3).astype(np.float32)
    (path,) = simulate_like(tmp_path / "out", tmp_path / "plain.h5", scan)
    assert path.stem == f"plain_{scan.stem}"
    assert FastMRI(path).slices == 3


def test_profiles_explain_the_scan_that_lent_them(scan):
    template = scan_template(scan)
    torch.testing.assert_close(template.profiles.abs().square().sum(0), torch.ones(64, 64))
    coils = ifft(FastMRI(scan).kspace(0))
    image = (template.profiles.conj() * coils).sum(0)
    inside = template.head
    missed = (coils - template.profiles * image).abs().square()[:, inside].sum() / coils.abs().square()[:, inside].sum()
    assert missed < 0.01
    assert image.angle()[inside].abs().median() < 0.05  # radians: its phase is in the profiles


@pytest.mark.parametrize("shape", [(64, 64), SHAPE])
def test_an_extended_constant_is_constant_and_a_smooth_field_is_kept(shape):
    known = disc(shape, (20, 15))
    constant = torch.full((2, *shape), 0.6 - 0.8j)
    torch.testing.assert_close(extend(constant * known, known), constant)
    ramp = torch.polar(torch.ones(shape), torch.linspace(-3, 3, shape[1]).expand(shape))[None]
    error = (torch.sgn(extend(ramp * known, known)) * ramp.conj()).angle().abs()
    assert error[0, known].max() < 0.25
    assert error[0, disc(shape, (14, 9))].max() < 0.02


def test_what_lies_outside_the_known_region_does_not_leak_in():
    known = disc((48, 40), (15, 12))
    field = torch.randn(3, 48, 40, dtype=torch.complex64)
    torch.testing.assert_close(extend(field * known, known), extend(torch.where(known, field, 100 * field), known))


def angled(shape, head, centre):
    """One coil whose phase tells the place in the head: radians from -1 to 1 along the columns."""
    phase = ((torch.arange(shape[1]) - centre[1]) / head[1]).expand(shape)
    return torch.polar(torch.ones(shape), phase)[None]


@pytest.mark.parametrize(
    ("shape", "radii", "centre"), [((64, 64), (24, 16), (32, 32)), ((91, 120), (40, 20), (44, 71))]
)
def test_profiles_follow_the_head(shape, radii, centre):
    there = ScanTemplate("scan", angled((64, 48), (24, 16), (30, 22)), disc((64, 48), (24, 16), (30, 22)), 0.01)
    head = disc(shape, radii, centre)
    found = fit(there, head[None].float())
    expected = angled(shape, radii, centre)
    assert ((found * expected.conj()).angle().abs()[0, head]).max() < 0.05


def test_a_wide_head_takes_the_profiles_of_a_tall_one_turned():
    there = ScanTemplate("scan", angled((64, 48), (24, 16), (30, 22)), disc((64, 48), (24, 16), (30, 22)), 0.01)
    head = disc((64, 64), (16, 24))
    found = fit(there, head[None].float())
    expected = torch.polar(torch.ones(64, 64), ((torch.arange(64) - 32) / 16)[:, None].expand(64, 64))[None]
    assert ((found * expected.conj()).angle().abs()[0, head]).max() < 0.05


def test_bad_input_is_named(tmp_path, stack, scan):
    path, _ = stack
    with pytest.raises(InputError, match="no labels 'sex'"):
        simulate_like(tmp_path / "out", path, scan, only={"sex": ["f"]})
    with pytest.raises(InputError, match="no slice with signal of patient z"):
        simulate_like(tmp_path / "out", path, scan, only={"patient": ["z"]})
    with pytest.raises(InputError, match="is a file"):
        simulate_like(path, path, scan)
    (under,) = simulate(tmp_path / "under", volumes=1, slices=1, size=64, coils=4, undersample=3)
    with pytest.raises(InputError, match="fully sampled"):
        scan_template(under)
    (noisy,) = simulate(tmp_path / "noisy", volumes=1, slices=1, size=64, coils=4, noise=0.0)
    with pytest.raises(InputError, match="too noisy"):
        scan_template(noisy)


def run(*arguments):
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_the_command_picks_parts_of_each_volume(tmp_path, stack, scan):
    chosen = ("--only", "patient=a", "--pick", "0%,90%")
    done = run("--images", stack[0], "--like", scan, "--out", tmp_path / "out", *chosen)
    assert done.exit_code == 0, done.output
    names = [line.rsplit("/", 1)[1] for line in done.output.split()]
    assert names == [f"a_T1_{scan.name}", f"a_T2_{scan.name}"]
    assert FastMRI(tmp_path / "out" / names[0]).attributes["slices"] == "1,0"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--images", "x.h5"], "--like"),
        (["--pick", "3"], "--pick is for --images"),
        (["--images", "x.h5", "--like", "y.h5", "--coils", "4"], "--coils is for simulated heads"),
    ],
)
def test_options_that_do_not_go_together_are_refused(more, named):
    done = run(*more)
    assert done.exit_code == 2 and named in done.output


def test_parts_beyond_the_volume_are_refused(stack, scan, tmp_path):
    done = run("--images", stack[0], "--like", scan, "--out", tmp_path, "--pick", "140%")
    assert done.exit_code == 2 and "140%" in done.output


@pytest.mark.parametrize(("name", "noise"), [("brain_t2_4ch", 0.0079), ("brain_flash_16ch", 0.0110)])
def test_coil_maps_of_real_scans_explain_them(shared, name, noise):
    path = shared / f"data/kspace/{name}.h5"
    template = scan_template(path)
    coils = ifft(FastMRI(path).kspace(0))
    missed = coils - template.profiles * (template.profiles.conj() * coils).sum(0)
    part = missed.abs().square()[:, template.head].sum() / coils.abs().square()[:, template.head].sum()
    assert part < 0.012  # sixteen noisy coils: noise is most of it
    assert template.noise_std == pytest.approx(noise, rel=0.02)
