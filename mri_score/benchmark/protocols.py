"""Rows of published tables, by their own preparation of data, masks, scale and metrics, and by ours."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import coil_maps, truth_image
from mri_score.data.scan import LEAST_NOISE, from_arrays
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.metrics import foreground, psnr, ssim
from mri_score.numerics.fourier import fft, ifft, resize_image
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers import open_scan, scan_files
from mri_score.reconstruction import WalkOptions, sample_posterior

ZERO_FILLED = "zero-filled"
LEAST_LINES = 10
"""Lines at the centre of our masks, which coil maps need."""
ROWS = ("conventions", "method", "acceleration", "true acceleration", "PSNR", "SSIM", "misfit", "slices", "draws")


@dataclass(frozen=True)
class Protocol:
    """How the table of a paper was made.

    title: of the paper. data: files and slices that it used. size: side of its square images. law: of its line mask,
    see `line_mask`. simulated: whether k-space is made anew from the combined image, without noise of the scanner.
    scale: what becomes 1: truth-99 (99th percentile of the true magnitude), truth-max, or masked-99 (99th percentile
    of the zero-filled magnitude). snr: of complex noise that is added to the samples, in dB; None for none. clipped:
    whether the prediction is clipped to [0, largest true value] before it is scored. published: rows of the table,
    (method, acceleration, PSNR, SSIM). traps: what differs from this project's conventions, for readers.
    """

    title: str
    data: str
    size: int
    law: str
    simulated: bool
    scale: str
    clipped: bool
    snr: float | None = None
    published: Sequence[tuple[str, int, float, float]] = ()
    traps: Sequence[str] = field(default_factory=tuple)


FULL_MAPS = "coil maps come from full k-space, which no scan at this acceleration has"
PROTOCOLS = {
    "inversebench": Protocol(
        "InverseBench, ICLR 2025",
        "fastMRI knee, multi-coil; 96 test slices",
        320, "random", True, "truth-99", True,
        traps=(FULL_MAPS, "k-space is made anew from the combined image, so that it has no noise and fits the maps",
               "the scale comes from the truth", "predictions are clipped to the range of the truth",
               "one mask for all slices"),
    ),
    "snap": Protocol(
        "SNaP preprint, table 3",
        "fastMRI brain AXT2, multi-coil; 100 test slices, of volumes split 615/77/77",
        320, "random", True, "truth-max", False, snr=30.0,
        published=(
            (ZERO_FILLED, 4, 25.37, 0.793), (ZERO_FILLED, 8, 21.99, 0.694), ("CSGM", 4, 32.39, 0.802),
            ("CSGM", 8, 28.33, 0.754), ("DAPS", 4, 32.44, 0.782), ("DAPS", 8, 28.01, 0.714),
            ("PnP-DM", 4, 33.39, 0.786), ("PnP-DM", 8, 29.00, 0.712), ("MSE network", 4, 33.85, 0.912),
            ("MSE network", 8, 30.73, 0.878), ("SNaP, mean of 16", 4, 34.05, 0.924),
            ("SNaP, mean of 16", 8, 30.09, 0.869),
        ),
        traps=(FULL_MAPS, "the scale comes from the truth", "published rows are of 30 dB",
               "of what the decibels are is not known: here of the mean power of the samples",
               "its mask law is not known: here random lines"),
    ),
    "csgm": Protocol(
        "Jalal et al., NeurIPS 2021 (the published code)",
        "fastMRI brain T2 at 384 x 384, brain T1 and FLAIR and knees at 320 x 320",
        384, "equispaced-added", False, "masked-99", False,
        traps=(FULL_MAPS, "equispaced lines come in addition to the centre, so that the true acceleration is lower",
               "no table of the paper is known; its metrics are those of a notebook"),
    ),
}  # fmt: skip
"""Protocols by name."""


def line_mask(law: str, size: int, acceleration: float, seed: int = 0, least: int = 0) -> NDArray[np.bool_]:
    """The sampled lines of `size` by the laws of CSGM and InverseBench.

    law: random, floor(size / R) lines with the central ones among them; equispaced-added, every int(R)-th of the outer
    lines and the central ones. The centre has 8 % of the lines up to R = 6, and 4 % above; at least `least`. seed: of
    random lines.
    Returns: bool (size,). Errors: InputError for an unknown law, and where the centre has more lines than the budget.
    """
    centre = max(least, math.floor((0.08 if 1 < acceleration <= 6 else 0.04) * size))
    start = (size - centre) // 2
    mask = np.zeros(size, bool)
    mask[start : start + centre] = True
    outer = np.flatnonzero(~mask)
    if law == "equispaced-added":
        mask[outer[:: int(acceleration)]] = True
    elif law == "random":
        left = math.floor(size / acceleration) - centre
        if left < 0:
            raise InputError(
                f"R = {acceleration:g} samples {left + centre} of {size} lines, but the centre has {centre}; lower R"
            )
        mask[np.random.RandomState(seed).choice(outer, left, replace=False)] = True
    else:
        raise unknown_name("the mask law", law, ("random", "equispaced-added"))
    return mask


@dataclass(frozen=True)
class Problem:
    """A slice as a protocol prepares it: what a method gets, and the truth (H, W) in the scan's scaled units."""

    scan: Acquisition
    truth: Tensor
    acceleration: float


def prepare(protocol: Protocol, kspace: Tensor, acceleration: float, name: str, seed: int = 0) -> Problem:
    """A slice of full k-space as the paper prepares it.

    protocol: its rules. kspace: (C, H, W) complex, without readout oversampling. acceleration: nominal. name: of the
    slice, for messages and the noise. seed: of mask and noise.
    Errors: InputError for images that are smaller than the protocol's, and as in `coil_maps`.
    """
    side = min(protocol.size, *kspace.shape[-2:])
    full = fft(resize_image(ifft(kspace[None]), (side, side)))
    maps, _, _ = coil_maps(full)
    truth = truth_image(full, maps)
    samples = fft(maps * truth[:, None]) if protocol.simulated else full
    lines = torch.from_numpy(line_mask(protocol.law, side, acceleration, seed))
    mask = lines.reshape(1, 1, 1, side)
    noise_std = 0.0
    if protocol.snr is not None:
        power = float((samples * mask).abs().square().sum() / (mask.sum() * side * samples.shape[1]))
        noise_std = math.sqrt(power * 10 ** (-protocol.snr / 10) / 2)
        samples = samples + noise_std * noise_like(samples, generators(seed, name))
    y = samples * mask
    magnitude = {
        "truth-99": lambda: torch.quantile(truth.abs().flatten(), 0.99),
        "truth-max": lambda: truth.abs().max(),
        "masked-99": lambda: torch.quantile((maps.conj() * ifft(y)).sum(1).abs().flatten(), 0.99),
    }
    scale = magnitude[protocol.scale]()
    scan = Acquisition(
        name=name, kspace=y / scale, maps=maps, mask=mask, scale=scale[None],
        noise_std=(torch.tensor([noise_std]) / scale).clamp_min(LEAST_NOISE),
    )  # fmt: skip
    return Problem(scan, truth[0] / scale, side / int(lines.sum()))


def prepare_ours(protocol: Protocol, kspace: Tensor, acceleration: float, name: str, seed: int = 0) -> Problem:
    """The slice by this project's conventions: raw samples at full width, maps and scale from what is sampled, the
    noise measured; the mask law alone is the paper's, with LEAST_LINES lines or more at the centre.

    protocol, kspace, acceleration, name, seed: as in `prepare`. Errors: InputError as in `from_arrays`.
    """
    width = kspace.shape[-1]
    lines = torch.from_numpy(line_mask(protocol.law, width, acceleration, seed, LEAST_LINES))
    mask = lines.reshape(1, 1, 1, width)
    samples = kspace[None]
    if protocol.snr is not None:
        power = float((samples * mask).abs().square().sum() / (mask.sum() * samples.shape[1] * samples.shape[2]))
        added = math.sqrt(power * 10 ** (-protocol.snr / 10) / 2)
        samples = samples + added * noise_like(samples, generators(seed, name))
    scan = from_arrays(samples * mask, mask, None, None, name)
    return Problem(scan, truth_image(kspace[None])[0] / scan.scale[0], width / int(lines.sum()))


Method = Callable[[Acquisition], Tensor]
"""The image (H, W), complex, that a method makes of an acquisition, in its scaled units."""


def zero_filled(scan: Acquisition) -> Tensor:
    """The adjoint of the operator at the samples. scan: one slice."""
    return scan.operator().adjoint(scan.kspace)[0]


def by_sampling(prior: Any, options: WalkOptions, number: int = 0) -> Method:
    """The mean of draws by a method of this project. prior: a score model. options: method, steps, draws, seed.

    number: of the slice, for the random numbers.
    """

    def method(scan: Acquisition) -> Tensor:
        found = sample_posterior(scan, prior, options, slices=[number])
        return found.samples.mean(0)[0] / scan.scale[0]

    return method


def their_scores(protocol: Protocol, problem: Problem, image: Tensor) -> dict[str, float]:
    """PSNR and SSIM of magnitudes with the slice's own largest true value as range, and the misfit ||A x - y||.

    protocol: decides whether the prediction is clipped. problem: with the truth. image: (H, W) complex. SSIM has the
    default window of scikit-image, 7 x 7.
    """
    operator = problem.scan.operator()
    misfit = float((operator(image[None]) - problem.scan.kspace).abs().square().sum().sqrt())
    truth, found = problem.truth.abs().double().numpy(), image.abs().double().numpy()
    most = float(truth.max())
    found = found.clip(0, most) if protocol.clipped else found
    error = float(np.mean((truth - found) ** 2))
    return {
        "PSNR": 10 * math.log10(most**2 / error) if error else math.inf,
        "SSIM": float(structural_similarity(truth, found, data_range=most)),
        "misfit": misfit,
    }


def our_scores(problems: Sequence[Problem], images: Sequence[Tensor]) -> dict[str, float]:
    """PSNR and SSIM of magnitudes inside the foreground, with the largest value of all slices as range.

    problems: with the truths, in units of their own scales. images: (H, W) complex, one for each.
    """
    scales = [float(problem.scan.scale[0]) for problem in problems]
    truth = np.stack([problem.truth.abs().numpy() * scale for problem, scale in zip(problems, scales, strict=True)])
    found = np.stack([image.abs().numpy() * scale for image, scale in zip(images, scales, strict=True)])
    inside = foreground(truth)
    return {"PSNR": psnr(truth, found, inside), "SSIM": ssim(truth, found, inside)}


def table(
    protocol: Protocol,
    slices: Sequence[tuple[str, Tensor]],
    accelerations: Iterable[float],
    methods: Mapping[str, Method],
    seed: int = 0,
    draws: int = 1,
) -> list[dict[str, Any]]:
    """Rows of both conventions: each method at each acceleration, averaged over the slices.

    slices: name and full k-space (C, H, W) of each. methods: by name. seed: of masks and noise. draws: that the
    methods average, for the table. Errors: as in `prepare`; InputError for slices of other sizes.
    """
    rows = []
    for acceleration in accelerations:
        both = {
            "paper": [prepare(protocol, kspace, acceleration, name, seed) for name, kspace in slices],
            "ours": [prepare_ours(protocol, kspace, acceleration, name, seed) for name, kspace in slices],
        }
        for conventions, problems in both.items():
            if len({problem.truth.shape for problem in problems}) > 1:
                raise InputError("the slices have several sizes; give files of one protocol at a time")
            for title, method in methods.items():
                images = [method(problem.scan) for problem in problems]
                if conventions == "paper":
                    each = [their_scores(protocol, *pair) for pair in zip(problems, images, strict=True)]
                    scores = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
                else:
                    scores = our_scores(problems, images)
                row = {"conventions": conventions, "method": title, "acceleration": acceleration, **scores}
                true = float(np.mean([problem.acceleration for problem in problems]))
                count = draws if title != ZERO_FILLED else 1
                rows.append({**row, "true acceleration": true, "slices": len(problems), "draws": count})
        rows.extend(
            {"conventions": "published", "method": title, "acceleration": at, "PSNR": db, "SSIM": similarity}
            for title, at, db, similarity in protocol.published
            if at == acceleration
        )
    return rows


def full_slices(data: str | Path, number: str = "middle") -> list[tuple[str, Tensor]]:
    """Name and k-space (C, H, W) of slices of every fully sampled file.

    data: a file or folder of scans. number: middle, one slice of each file, or all.
    Errors: InputError for undersampled files.
    """
    found: list[tuple[str, Tensor]] = []
    for path in scan_files(data):
        file = open_scan(path)
        if file.mask is not None:
            raise InputError(f"{path} is undersampled; the tables are of fully sampled scans")
        chosen = range(file.slices) if number == "all" else [file.slices // 2]
        found.extend((f"{file.name}, slice {one}", file.kspace(one)) for one in chosen if not file.empty(one))
        file.close()
    return found


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text of comma-separated values. rows: as from `table`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ROWS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
