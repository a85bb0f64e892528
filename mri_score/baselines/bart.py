"""Baselines computed by `pics` of BART, the Berkeley Advanced Reconstruction Toolbox, which is run as a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mri_score.baselines.problem import Array, pose
from mri_score.baselines.variation import differences, norm
from mri_score.baselines.wavelets import coefficients
from mri_score.baselines.weights import Transform, find_weight
from mri_score.errors import InputError

TYPICAL_EDGE = 0.05
"""Typical difference of neighbours at an edge. With the penalty weight / TYPICAL_EDGE it converges fast."""
DIMENSIONS = 16
"""Number of dimensions of every BART file."""


def bart_l1_wavelet(
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    weight: float | str = "rule",
    iterations: int = 100,
    *,
    spin: bool = True,
) -> Tensor:
    """`bart pics -w 1 -l1 -r weight -i iterations`; spin=False adds -n, which switches random cycle spinning off.

    Arguments, result and errors as in `l1_wavelet`; also InputError if BART is missing or fails.
    Reference: Uecker et al., Berkeley Advanced Reconstruction Toolbox, ISMRM 2015, 2486.
    """
    weight = _weight(kspace, maps, mask, weight, coefficients, noise_std)
    options = ["-l1", "-r", f"{weight:.9g}", "-i", str(iterations), *([] if spin else ["-n"])]
    return _pics(kspace, maps, mask, options)


def bart_total_variation(
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    weight: float | str = "rule",
    iterations: int = 100,
) -> Tensor:
    """`bart pics -w 1 -R T:3:0:weight -i iterations -u penalty`, with a penalty under which it converges.

    BART's default penalty of 0.5 is for images of another scale: after 100 iterations it is 2 to 3 dB below the
    optimum. Each iteration solves a linear system with up to 10 steps of conjugate gradient. Arguments, result and
    errors as in `total_variation`; also InputError if BART is missing or fails.
    """
    weight = _weight(kspace, maps, mask, weight, lambda x: norm(differences(x)), noise_std)
    penalty = weight / TYPICAL_EDGE
    return _pics(kspace, maps, mask, ["-R", f"T:3:0:{weight:.9g}", "-i", str(iterations), "-u", f"{penalty:.9g}"])


def _weight(
    kspace: Array, maps: Array, mask: Array, weight: float | str, transform: Transform, noise_std: float | Tensor
) -> float:
    A, y = pose(kspace, maps, mask)
    return find_weight(weight, lambda: A.cg_sense(y), transform, noise_std)


def _pics(kspace: Array, maps: Array, mask: Array, options: Sequence[str]) -> Tensor:
    program = shutil.which("bart")
    if program is None:
        raise InputError("BART is not installed, or not on the PATH; on Debian and Ubuntu: apt install bart")
    A, y = pose(kspace, maps, mask)
    samples = y * A.mask
    if not bool(samples.any()):  # BART writes no image of an empty slice
        return torch.zeros(y.shape[-2:], dtype=torch.complex64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Without a pattern BART takes the samples that are not zero as measured.
        pattern = A.mask.to(torch.complex64).expand(1, 1, *y.shape[-2:])
        for file, array in (("kspace", samples), ("maps", A.maps), ("pattern", pattern)):
            write_cfl(folder / file, array[0].permute(1, 2, 0)[:, :, None].numpy())
        files = [str(folder / file) for file in ("kspace", "maps", "image")]
        command = [program, "pics", "-w", "1", *options, "-p", str(folder / "pattern"), *files]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, check=False)
        if done.returncode:
            raise InputError(f"BART failed: {' '.join(command[1:-3])}: {(done.stderr or done.stdout).strip()[-300:]}")
        return torch.from_numpy(read_cfl(folder / "image").reshape(y.shape[-2:]))


def write_cfl(path: Path, array: np.ndarray) -> None:
    """<path>.hdr and <path>.cfl: dimensions as text, and complex64 numbers, the first axis running fastest."""
    shape = (*array.shape, *[1] * (DIMENSIONS - array.ndim))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, shape))}\n", encoding="ascii")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> np.ndarray:
    """The array of <path>.cfl, complex64, without its trailing axes of length 1."""
    lines = path.with_suffix(".hdr").read_text(encoding="ascii").splitlines()
    shape = [int(n) for n in lines[lines.index("# Dimensions") + 1].split()]
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(shape, order="F")
