"""Modules that were renamed: every old path and name goes on working."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from mri_score._moved import MOVED, RENAMED

NAMES = {
    "comparison": "Plan Cell Outcome Weights Comparison REFERENCE SUPERVISED TITLES",
    "data.anatomy": "Head",
    "data.borrowed": "simulate_like extend fit",
    "data.combined": "Combined CachedImages cached_images CENTRE",
    "data.fastmri": "FastMRI find_sampling write_fastmri",
    "data.hdf5": "open_hdf5 new_hdf5 plain_dataset plain_datasets reading write_arrays",
    "data.header": "Header build_header parse_header",
    "data.held_out": "Misfit hold_out misfit",
    "data.images": "ImageStacks read_stack AUGMENTATIONS",
    "data.maps": "read_maps write_maps cached_maps cache_key normalise_maps finished_maps",
    "data.phantom": "phantom",
    "data.scans": "UndersampledScans filled_image",
    "data.simulate": "simulate write_simulated check_folder UNIT",
    "data.slices": "Slices usable",
    "data.transforms": "percentile PERCENTILE SCALES crop between log_between smooth_phase rescale",
    "data.undersampled": "UndersampledImages",
    "data.unexplained": "noise_level unexplained_noise",
    "data.whitening": "NoiseLevel measure_noise whiten whitening_matrix evenly_spaced measured_points",
    "dataset": "Parameters measure read_parameters write_parameters",
    "denoising": "Denoised denoise_slice check_full",
    "evaluation.comparison": "QUALITY plain write_summary summarise markdown",
    "evaluation.conformal": "Factor Intervals TARGETS conformal_factor covered predicted_std read_intervals",
    "evaluation.folders": "FolderScores score_folders",
    "evaluation.frechet": "Gaussian Distance frechet_distance measure best",
    "evaluation.ledger": "Ledger identity read_rows",
    "evaluation.memory": "PeakMemory resident",
    "evaluation.neighbours": "nearest compare Memorisation",
    "evaluation.quality_plot": "write_plot",
    "evaluation.sheet": "magnitude_sheet phase_sheet colour_sheet tiled",
    "evaluation.statistics": "Estimate Unit mean_interval cell_key resampling_unit",
    "evaluation.unlike": "misfit_ratio expected_error threshold_at",
    "footprint": "walk_bytes train_bytes reconstruct_bytes available fitting",
    "noise_levels": "largest_distance level_overlap level_ratio level_count step_size levels_above_noise",
    "quality": "RealImages prepare read_samples Extractor OwnFeatures FileFeatures extract checkpoints draw",
    "results": "write_volume finished read_scores score_rows",
    "schedules": "Schedule Geometric Karras LogNormal VP SubVP Uniform Automatic AboveNoise",
    "simulation.borrowed": "simulate_like extend fit",
    "score": "ScoreModel NetworkPrior CountedPrior GaussianPrior MixturePrior PRECONDITIONINGS find_precision",
    "subject": "Subject Subjects",
    "volumes": "Options Volume reconstruct_volume BASELINES OPERATORS ahead counted",
}
"""What could be imported from each module before it was renamed."""


def test_every_old_path_is_looked_at():
    assert set(NAMES) == set(MOVED)


@pytest.mark.parametrize("old", NAMES)
def test_old_names_are_the_present_ones(old):
    module = importlib.import_module(f"mri_score.{old}")
    homes = [importlib.import_module(f"mri_score.{home}") for home in MOVED[old]]
    for name in NAMES[old].split():
        assert getattr(module, name) is next(getattr(home, name) for home in homes if hasattr(home, name))


@pytest.mark.parametrize("old", RENAMED)
def test_names_that_changed_on_the_way_are_found(old):
    (module, _, name), (home, _, present) = old.rpartition("."), RENAMED[old].rpartition(".")
    found = getattr(importlib.import_module(f"mri_score.{module}"), name)
    assert found is getattr(importlib.import_module(f"mri_score.{home}"), present)


def test_a_name_that_never_was_is_refused():
    with pytest.raises(ImportError, match="cannot import name 'NoSuchPrior'"):
        from mri_score.score import NoSuchPrior  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="mri_score.no_such_module"):
        importlib.import_module("mri_score.no_such_module")


def test_old_paths_load_nothing_until_a_name_is_used():
    code = "import sys, mri_score.score, mri_score.data.fastmri; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
