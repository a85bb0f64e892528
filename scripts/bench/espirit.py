"""ESPIRiT coil maps of one slice, against SigPy's and BART's with the same calibration square, kernel and threshold."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import sigpy.mri.app
import torch
from harness import Row, compare, relative_error
from torch import Tensor

from mri_score.data.coils import coil_maps
from mri_score.simulation.phantom import phantom

NAME = "espirit"
COILS = 15
SIZES = {"quick": ((160, 160), (160, 92)), "full": ((320, 320), (640, 368))}
SQUARE, KERNEL, THRESHOLD = 24, 6, 0.02


def run(sizes: str, threads: int) -> list[Row]:
    return [row for shape in SIZES[sizes] for row in rows(shape, sizes)]


def rows(shape: tuple[int, int], sizes: str) -> list[Row]:
    head = phantom(shape, COILS)
    inside = head.image[0].abs() > 0.1
    what = f"coil maps, {COILS} x {shape[0]} x {shape[1]}"

    def ours() -> Tensor:
        lines = {"calibration_lines": SQUARE, "rows": SQUARE}
        return coil_maps(head.kspace, **lines, kernel=KERNEL, threshold=THRESHOLD)[0][0]

    def error(maps: Tensor, witness: Tensor) -> float:
        return difference(maps[:, inside], witness[:, inside])

    shared = {"sizes": sizes, "floor": lambda: matrices(shape), "floor_of": "the pixels' matrices in one product"}
    sigpys = compare(
        what, "SigPy EspiritCalib", ours, lambda: by_sigpy(head.kspace[0]), wanted=8, error=error, bound=1e-4, **shared
    )
    if shutil.which("bart") is None:
        return [sigpys, Row(what, "BART ecalib -m1", wanted=1, note="bart is not installed (Debian package bart)")]
    with tempfile.TemporaryDirectory() as folder:
        kspace = Path(folder) / "kspace"
        write_cfl(kspace, head.kspace[0])
        barts = compare(what, "BART ecalib -m1", ours, lambda: by_bart(kspace), wanted=1, error=error, **shared)
    return [sigpys, barts]


def by_sigpy(kspace: Tensor) -> Tensor:
    app = sigpy.mri.app.EspiritCalib(
        kspace.numpy(), calib_width=SQUARE, thresh=THRESHOLD, kernel_width=KERNEL, crop=0, show_pbar=False
    )
    return torch.from_numpy(np.ascontiguousarray(app.run()))


def by_bart(kspace: Path) -> Tensor:
    """The command line with files and start-up; its threshold is for eigenvalues, and therefore squared."""
    maps = kspace.with_name("maps")
    options = ["-m1", f"-k{KERNEL}", f"-r{SQUARE}", f"-t{THRESHOLD**2:g}", "-c0"]
    subprocess.run(["bart", "ecalib", *options, str(kspace), str(maps)], check=True, capture_output=True)
    return read_cfl(maps)


def write_cfl(path: Path, x: Tensor) -> None:
    """(C, H, W) as BART keeps it: H x W x 1 x C, the first axis fastest."""
    coils, height, width = x.shape
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{height} {width} 1 {coils}\n", encoding="utf-8")
    x.permute(0, 2, 1).numpy().astype(np.complex64).tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> Tensor:
    """(C, H, W) from BART's H x W x 1 x C."""
    height, width, _, coils = map(int, path.with_suffix(".hdr").read_text("utf-8").splitlines()[1].split()[:4])
    x = np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(coils, width, height)
    return torch.from_numpy(x).permute(0, 2, 1)


def difference(maps: Tensor, witness: Tensor) -> float:
    """Relative error, after the reference got the phase of the maps at every pixel: (C, pixels) each."""
    return relative_error(maps, witness * torch.sgn((witness.conj() * maps).sum(0)))


def matrices(shape: tuple[int, int]) -> Tensor:
    """A matrix product of the size of that for the (C, C) matrices of all pixels, in single precision."""
    size = 2 * KERNEL - 1
    waves = torch.ones(shape[0], size, dtype=torch.complex64)
    return waves @ torch.ones(size, COILS**2 * shape[1], dtype=torch.complex64)
