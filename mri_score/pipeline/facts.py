"""Text about a volume for its report: origin, settings, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mri_score.baselines import BASELINES
from mri_score.data.coils import MOST_LINES, calibration_region
from mri_score.data.noncartesian import NonCartesianScan
from mri_score.data.scan import Scan
from mri_score.evaluation.report import MethodScores
from mri_score.methods import METHODS
from mri_score.models.base import Work
from mri_score.pipeline.held_out import LEAST_LINES, WORSE, Misfit
from mri_score.pipeline.options import Options

CG_SENSE = BASELINES["cg-sense"].title
FEW_LINES = 8
"""Maps from fewer calibration lines are warned of: those of 6 lines leave up to 1.6 times what noise alone leaves."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as `1 slice` or `2 slices`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def work_text(work: Work, draws: int) -> str:
    """The work of one of `draws` draws in words, such as "37 network calls and 15 Jacobian products"."""
    calls, products = (round(number / draws) for number in (work.calls, work.products))
    return counted(calls, "network call") + (f" and {counted(products, 'Jacobian product')}" if products else "")


def volume_facts(
    scan: Scan, options: Options, levels: list[float], slices: Sequence[int], work: Work
) -> dict[str, str]:
    """Name -> text about the reconstruction of slices of a scan.

    levels: noise_std of each slice, in scaled units. work: of all draws of these slices.
    """
    file = scan.file
    method = METHODS[options.method]
    steps = method.steps if options.steps is None else options.steps
    warm, walked = {}, f"{steps} levels"
    if options.warm_start is not None:
        walked += ", only those of the warm start"
        warm["Warm start"] = f"at sigma {options.warm_start:g}, about CG-SENSE"
    cost = f"{walked}, {work_text(work, len(slices) * options.samples)} per draw"
    along = isinstance(scan, NonCartesianScan)
    return {
        "File": file.path.name,
        "Acquisition": f"{file.acquisition}, {counted(file.slices, 'slice')}, {counted(file.coils, 'coil')},"
        f" {file.rows} x {file.cols}",
        **_sampling(scan, slices),
        "Coil maps": _source_of_maps(scan, slices),
        "Coils": "whitened" if scan.noise.whitening is not None and scan.mixing is not None else "as stored",
        "Noise": f"{scan.noise_std * scan.unit:.4g} in the file's units; {np.mean(levels):.4f} of the image scale",
        "Method": f"{options.method}, {cost}",
        **warm,
        "Draws": str(options.samples),
        "Seed": str(options.seed),
        "Precision": options.precision,
        "Operator": "non-uniform Fourier transform" if along else options.operator,
    }


def _sampling(scan: Scan, slices: Sequence[int]) -> dict[str, str]:
    if isinstance(scan, NonCartesianScan):
        trajectory = scan.trajectory
        return {
            "Sampling": f"{trajectory.name} trajectory, {counted(len(trajectory.coordinates), 'sample')} a coil,"
            f" {scan.source}",
            "Acceleration": f"{scan.acceleration:.2f}",
        }
    nominal, seed = scan.sampling.nominal, scan.sampling.seed
    each = [f"{scan.acceleration_of([number]):.2f}" for number in slices]
    spread = "" if len(set(each)) == 1 else f" ({min(each, key=float)} to {max(each, key=float)} by slice)"
    return {
        "Sampling": scan.sampling.law if scan.sampling.acceleration is not None else "as acquired",
        "Acceleration": f"{scan.acceleration_of(slices):.2f}"
        + spread
        + ("" if nominal is None else f" (nominal {nominal:g})"),
        "Mask seed": "from the file name" if seed is None else str(seed),
    }


def _source_of_maps(scan: Scan, slices: Sequence[int]) -> str:
    if isinstance(scan, NonCartesianScan):
        return "ESPIRiT from the samples near the centre of k-space"
    if scan.given_maps is not None:
        return f"given ({Path(scan.given_maps).name})"
    if scan.full_maps:
        return "ESPIRiT from full k-space (for studies only)"
    lines = calibration_lines(scan, slices)
    region = "calibration region" if lines is None else f"{lines} calibration lines"
    return f"ESPIRiT from the {region} of the sampled data"


def calibration_lines(scan: Scan, slices: Sequence[int]) -> int | None:
    """The least number of lines that the coil maps of these slices come from.

    None where they come from elsewhere: given maps, full k-space, separate lines, several frames, masks of points.
    """
    if isinstance(scan, NonCartesianScan) or scan.given_maps is not None or scan.full_maps:
        return None
    found = []
    for number in slices:
        if len(scan.frames(number)) > 1 or scan.file.calibration(number) is not None:
            return None
        sampled = scan.mask_of(number)[0, 0].expand(scan.file.image_shape)
        region = calibration_region(sampled, scan.sampling.calibration_lines or MOST_LINES)
        if region is None:
            return None
        found.append(min(part.stop - part.start for part in region))
    return min(found, default=None)


def few_lines(lines: int | None) -> str | None:
    """The warning that coil maps come from few calibration lines; None if they do not.

    lines: from `calibration_lines`.
    """
    if lines is None or lines >= FEW_LINES:
        return None
    return (
        f"the coil maps come from {lines} calibration lines. With fewer than {FEW_LINES} they are often wrong: every"
        " method then leaves fold-over in the image, and the standard deviation does not show it. Acquire more lines at"
        " the centre, or give --maps of these coils"
    )


def worse_than_nothing(scores: Sequence[MethodScores]) -> str | None:
    """The warning that a result is worse than the zero-filled image, in the foreground; None if it is not.

    scores: of all methods against one target, the result last.
    """
    simple = next((one for one in scores if one.method == "zero-filled"), None)
    if simple is None or (loss := simple.foreground["psnr"] - scores[-1].foreground["psnr"]) <= 0:
        return None
    return (
        f"the result is {loss:.1f} dB worse than the zero-filled image: the prior does not fit this scan or is hardly"
        " trained, or --steps is too small; try another --prior, such as brain"
    )


def worse_than_cg_sense(held_out: Mapping[str, Misfit], estimate: str, lines: int) -> str | None:
    """The warning that the method predicts left-out samples worse than CG-SENSE; None if it does not.

    held_out: title -> misfit of the same left-out samples. estimate: title of the method. lines: the least number of
    lines, or points, that were left out of a slice; fewer than LEAST_LINES decide nothing.
    """
    simple, own = held_out.get(CG_SENSE), held_out.get(estimate)
    if simple is None or own is None or lines < LEAST_LINES or own.misfit <= WORSE * simple.misfit:
        return None
    return (
        f"the method predicts k-space that was left out worse than CG-SENSE does: misfit {own.misfit:.1f} against"
        f" {simple.misfit:.1f} (1 is noise alone). The prior does not fit this scan, or its coil maps, scale or lines"
        " are wrong, and details of the image may be invented: compare it with --baselines cg-sense, give other --maps,"
        " or try another --prior"
    )


def out_of_distribution_note(
    ratios: Sequence[float], threshold: float | None, basis: Mapping[str, object]
) -> str | None:
    """The warning that a volume may be out of distribution for the prior; None if all slices are below the threshold.

    ratios: `misfit_ratio` of each slice. threshold: from `threshold_at`; None gives no warning. basis: the data that
    the threshold was calibrated on, as recorded by `scripts/out_of_distribution.py`.
    """
    above = [] if threshold is None else [ratio for ratio in ratios if ratio > threshold]
    if not above:
        return None
    measured = ""
    if {"slices", "law"} <= set(basis):
        measured = f" (calibrated on {basis['slices']} slices, {basis['law']} masks)"
    size = " and matrix size" if "power" in basis else ""
    where = "" if len(ratios) == 1 else f"; {len(above)} of {len(ratios)} slices are above that"
    return (
        f"this scan may be out of distribution for the prior: misfit ratio {max(above):.1f}, expected below"
        f" {threshold:.1f} at this acceleration{size}{measured}{where}. The prior may"
        " then invent or remove details, and the standard deviation does not show it: compare with --baselines"
        " l1-wavelet, check the coil maps, or try another --prior"
    )
