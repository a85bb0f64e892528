"""Modules that were renamed: their old paths go on working."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "comparison": ("benchmark.comparison",),
    "data.anatomy": ("simulation.anatomy",),
    "data.borrowed": ("simulation.from_images",),
    "data.combined": ("sources.combined_images",),
    "data.fastmri": ("readers.fastmri",),
    "data.hdf5": ("readers.hdf5",),
    "data.header": ("readers.ismrmrd_header",),
    "data.held_out": ("pipeline.held_out",),
    "data.images": ("sources.magnitude_images", "readers.image_stack"),
    "data.maps": ("readers.maps",),
    "data.phantom": ("simulation.phantom",),
    "data.scans": ("sources.undersampled_scans",),
    "data.simulate": ("simulation.simulate",),
    "data.slices": ("sources.full_scans",),
    "data.transforms": ("sources.augmentation", "data.scale"),
    "data.undersampled": ("sources.simulated_scans",),
    "data.unexplained": ("data.noise_level",),
    "data.whitening": ("data.noise_rings",),
    "dataset": ("noise.parameters",),
    "denoising": ("pipeline.denoise",),
    "evaluation.folders": ("pipeline.folder_scores",),
    "evaluation.comparison": ("benchmark.summary", "benchmark.sections"),
    "evaluation.conformal": ("evaluation.intervals",),
    "evaluation.frechet": ("sample_quality.frechet",),
    "evaluation.ledger": ("benchmark.ledger",),
    "evaluation.memory": ("memory.peak",),
    "evaluation.neighbours": ("sample_quality.neighbours",),
    "evaluation.quality_plot": ("benchmark.quality_plot",),
    "evaluation.sheet": ("evaluation.contact_sheet",),
    "evaluation.statistics": ("benchmark.statistics",),
    "evaluation.unlike": ("evaluation.out_of_distribution",),
    "footprint": ("memory.footprint",),
    "noise_levels": ("noise.ncsnv2_levels",),
    "quality": ("sample_quality.features", "sample_quality.images", "sample_quality.checkpoints"),
    "results": ("pipeline.output", "pipeline.result_file"),
    "schedules": ("noise.schedules",),
    "simulation.borrowed": ("simulation.from_images",),
    "score": (
        "models.base", "models.network", "models.precision", "models.preconditioning", "models.analytic",
        "models.counted",
    ),
    "subject": ("benchmark.subject",),
    "volumes": ("pipeline.volume", "pipeline.result", "pipeline.options", "pipeline.baselines", "pipeline.facts"),
}
"""Old module -> the modules that hold its names today, within the package."""

RENAMED = {
    "data.borrowed.Loan": "simulation.from_images.ScanTemplate",
    "simulation.borrowed.Loan": "simulation.from_images.ScanTemplate",
    "simulation.borrowed.borrow": "simulation.from_images.scan_template",
    "volumes.unlike_note": "pipeline.facts.out_of_distribution_note",
    "data.fastmri.Sampling": "readers.fastmri.StoredSampling",
    "data.fastmri.fastmri_files": "readers.scan_files",
    "data.phantom.noise_level": "simulation.phantom.noise_std_of_snr",
    "denoising.nearest_level": "models.base.clamped",
}
"""Names that were changed on the way."""


class _Moved(ModuleType):
    """A module whose names are looked up where they are today."""

    def __getattr__(self, name: str) -> Any:
        old = self.__name__.removeprefix("mri_score.")
        if (renamed := RENAMED.get(f"{old}.{name}")) is not None:
            home, _, present = renamed.rpartition(".")
            return getattr(import_module(f"mri_score.{home}"), present)
        if not name.startswith("__"):
            for home in MOVED[old]:
                module = import_module(f"mri_score.{home}")
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Finder(MetaPathFinder, Loader):
    """Finds the old paths; the present modules are found before it is asked."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return ModuleSpec(fullname, self) if fullname.removeprefix("mri_score.") in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: the names are looked up on use."""


def install() -> None:
    """Let Python find the old paths."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
