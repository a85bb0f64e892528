"""The exact solution of (A^H A + weight) x = b for a draw at one noise level, against SigPy's CG app."""

from __future__ import annotations

import numpy as np
import sigpy.app
import sigpy.mri.linop
import torch
from harness import Row, compare, timed
from torch import Tensor

from mri_score.data.masks import make_mask
from mri_score.operators.sense import Sense, Solver
from mri_score.simulation.phantom import phantom

NAME = "solve"
SIZES = {"quick": (15, 160), "full": (15, 320)}
TOLERANCE = 1e-5
"""Tolerance of the residual, relative to b, for both."""
CASES: list[tuple[str, Solver, float]] = [
    ("variable-density", "cg", 1e-2),
    ("variable-density", "direct", 1e-2),
    ("variable-density", "direct", 1e-3),
    ("poisson-disc", "cg", 1e-2),
]
"""Mask law, our solver, weight = noise_std^2 / sigma^2."""


def run(sizes: str, threads: int) -> list[Row]:
    coils, size = SIZES[sizes]
    head = phantom(size, coils)
    with torch.no_grad():
        return [case(head.kspace, head.maps, *one, sizes=sizes) for one in CASES]


def case(kspace: Tensor, maps: Tensor, law: str, solver: Solver, weight: float, sizes: str) -> Row:
    mask = make_mask(law, tuple(maps.shape[-2:]))
    y, operator = mask * kspace, Sense(maps, mask, solver)
    b, note = operator.adjoint(y), ""
    if solver == "direct":
        note = f"factors made before, in {timed(lambda: operator.solve(b, weight))[0]:.2g} s with the first solution"
    kind = "points" if law == "poisson-disc" else "columns"
    return compare(
        f"solve, {' x '.join(map(str, maps.shape[1:]))}, mask of {kind}, weight {weight:g}, {solver}",
        f"SigPy LinearLeastSquares, residual {TOLERANCE:g}",
        lambda: operator.solve(operator.adjoint(y), weight, tolerance=TOLERANCE),
        lambda: by_sigpy(maps[0].numpy(), mask.float().numpy(), y[0].numpy(), weight),
        sizes=sizes,
        floor=lambda: operator.normal(b),
        floor_of="one A^H A",
        wanted=4,
        error=lambda ours, theirs: max(residual(x, maps, mask, b, weight) for x in (ours, torch.from_numpy(theirs))),
        bound=2 * TOLERANCE,
        note=note,
    )


def by_sigpy(maps: np.ndarray, mask: np.ndarray, y: np.ndarray, weight: float) -> np.ndarray:
    A = sigpy.mri.linop.Sense(maps, weights=mask)
    goal = TOLERANCE * float(np.linalg.norm(A.H(y)))
    app = sigpy.app.LinearLeastSquares(A, y, lamda=weight, tol=goal, max_iter=1000, show_pbar=False)
    return app.run()


def residual(x: Tensor, maps: Tensor, mask: Tensor, b: Tensor, weight: float) -> float:
    """|b - (A^H A + weight) x| / |b|, in double precision."""
    x, b = (z.to(torch.complex128).reshape(1, *maps.shape[-2:]) for z in (x, b))
    exact = Sense(maps.to(torch.complex128), mask)
    return float((b - exact.normal(x) - weight * x).norm() / b.norm())
