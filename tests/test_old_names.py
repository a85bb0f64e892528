"""Names that changed within their module: the old ones go on working."""

from __future__ import annotations

import importlib
import pickle
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from command import mri_score

from mri_score import Acquisition, TrainingItem, experiment, phantom, reconstruct, undersample
from mri_score.cli import main
from mri_score.generation import GenerationOptions, sample_prior
from mri_score.models.analytic import GaussianPrior
from mri_score.simulation.simulate import simulate
from mri_score.training.batches import Batches

FORMER = {
    "data.coils.Calibration": "CalibrationRegion",
    "data.scan.Sampling": "Undersampling",
    "evaluation.uncertainty.Calibration": "EnsembleCalibration",
    "posteriors.Daps": "DAPS",
    "posteriors.Dds": "DDS",
    "posteriors.DiffPir": "DiffPIR",
    "posteriors.daps.Daps": "DAPS",
    "posteriors.dds.Dds": "DDS",
    "posteriors.diffpir.DiffPir": "DiffPIR",
    "reconstruction.METHODS": "METHODS",
    "samplers.Ddim": "DDIM",
    "samplers.ddim.Ddim": "DDIM",
}


@pytest.mark.parametrize("old", FORMER)
def test_former_class_names_are_the_present_ones(old):
    module, _, name = old.rpartition(".")
    found = importlib.import_module(f"mri_score.{module}")
    assert getattr(found, name) is getattr(found, FORMER[old])
    assert getattr(getattr(found, name), "__name__", FORMER[old]) == FORMER[old]


@pytest.mark.parametrize(("former", "present"), experiment.FORMER_SOURCES.items())
def test_configs_of_earlier_runs_name_their_data_as_before(tmp_path, former, present):
    kind = experiment.SOURCES[present]
    simulate(tmp_path, volumes=1, slices=1, size=48, coils=2)
    stack = tmp_path / "stack"
    stack.mkdir()
    write_stack(stack / "images.h5")
    paths = [str(tmp_path if present == "undersampled_scans" else stack)]
    section = {"paths": paths} | ({"acceleration": 3} if present == "undersampled_scans" else {"accelerations": [3]})
    sources = [experiment.make_source({"data": {"name": name, **section}}) for name in (former, present)]
    assert [type(source) for source in sources] == [kind, kind]
    one, other = (source.sample(torch.Generator().manual_seed(1)) for source in sources)
    parts = ("kspace", "image", "estimate")
    assert any(getattr(one, part) is not None for part in parts)
    for part in parts:
        if getattr(one, part) is not None:
            assert torch.equal(getattr(one, part), getattr(other, part))


def test_training_items_are_still_made_and_given_as_acquisitions():
    former = Acquisition("toy", image=torch.ones(1, 4, 4), noise_std=torch.ones(1))
    assert isinstance(former, TrainingItem) and former.noise_std == 1
    scan = undersample(phantom(32, coils=2), acceleration=2)
    assert torch.equal(pickle.loads(pickle.dumps(scan)).kspace, scan.kspace)

    class Former:
        def sample(self, random):
            return replace(scan, image=None)

    batch = Batches(Former(), 2, seed=0)[0]
    assert torch.equal(batch.cartesian.kspace, scan.kspace.expand(2, -1, -1, -1)) and batch.mask.shape[0] == 2


def write_stack(path):
    import h5py

    row, column = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    image = torch.exp(-4 * (row**2 + column**2))
    with h5py.File(path, "w") as file:
        file["image"] = torch.stack([image, 2 * image]).numpy()


def test_sampler_is_still_a_name_of_method_in_python():
    scan = undersample(phantom(32, coils=2), acceleration=2)
    quick = {"steps": 2, "samples": 1, "device": "cpu"}
    arrays = scan.kspace, scan.maps, scan.mask
    one, other = (reconstruct(*arrays, **{name: "langevin"}, **quick) for name in ("sampler", "method"))
    assert torch.equal(one.samples, other.samples)
    default = reconstruct(*arrays, **quick)
    assert not torch.equal(one.samples, default.samples)
    ratios = torch.ones(1, 1)
    assert replace(default, misfit_ratios=ratios).unlike is ratios

    prior = GaussianPrior(torch.zeros(1, 3), torch.eye(3))
    settings = {"steps": 3, "dtype": torch.float32}
    one, other = (sample_prior(prior, 2, (1, 3), **{name: "ancestral"}, **settings) for name in ("sampler", "method"))
    assert torch.equal(one, other)
    assert torch.equal(one, sample_prior(prior, 2, (1, 3), GenerationOptions("ancestral", 3), dtype=torch.float32))


@pytest.mark.parametrize("command", ["reconstruct", "intervals", "sample", "fid"])
def test_sampler_is_still_an_option_of_the_command_line(command):
    assert "--method, --sampler" in mri_score(command, "--help")


def test_either_option_chooses_the_method(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=48, coils=2)
    for option in ("--method", "--sampler"):
        arguments = ["reconstruct", str(path), "--accel", "3", "--dry-run", "--out", str(tmp_path), option]
        assert "by exact-draw" in CliRunner().invoke(main, [*arguments, "exact-draw"]).output
