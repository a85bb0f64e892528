"""Products with a Jacobian that is never formed, and with its square root."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import inner, per_item, squared_norm

Product = Callable[[Tensor], Tensor]


def linearise(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Product]:
    """f(x), and the map v -> J^T v with J = df/dx over real components; the map keeps f's graph in memory.

    Items of f must be independent: v (B, *shape) has one vector per item.
    Errors: InputError if torch finds no dependence of f(x) on x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
    if not value.requires_grad:
        raise InputError(
            "the prior's denoised image carries no gradient, and this posterior needs its Jacobian;"
            " take no_grad and detach out of the prior, or choose a sampler without Jacobian, e.g. exact-draw"
        )

    def product(v: Tensor) -> Tensor:
        # grad(value, x, v) is the same number, but imports sympy, which takes half a second.
        with torch.enable_grad():
            along = inner(v, value).sum()
        (gradient,) = torch.autograd.grad(along, x, retain_graph=True)
        return gradient

    return value.detach(), product


def square_root(product: Product, b: Tensor, steps: int) -> Tensor:
    """J^(1/2) b for a symmetric positive J by Lanczos: |b| V H^(1/2) e1 after `steps` products with J.

    V spans b, J b, J^2 b, ... and H = V^T J V. One step gives the right length, |J^(1/2) b|^2 = b . J b, so that the
    resulting noise has the trace of J; more steps improve the directions.
    Jacobians of networks are only nearly symmetric and positive: H is the symmetric part, with negative eigenvalues set
    to zero.
    Reference: Chow and Saad, Preconditioned Krylov subspace methods for sampling multivariate Gaussian distributions,
    SIAM J. Sci. Comput. 2014.
    """
    length = squared_norm(b).sqrt()
    basis, images = [b / per_item(length, b)], [product(b) / per_item(length, b)]
    while len(basis) < steps:
        basis.append(_beyond(basis, images[-1]))
        images.append(product(basis[-1]))
    h = torch.stack([torch.stack([inner(v, image) for image in images], -1) for v in basis], -2)
    values, vectors = torch.linalg.eigh((h + h.mT) / 2)
    weights = (vectors * (values.clamp_min(0).sqrt() * vectors[:, 0])[:, None]).sum(-1)
    return torch.stack([per_item(length * weights[:, k], v) * v for k, v in enumerate(basis)]).sum(0)


def _beyond(basis: list[Tensor], q: Tensor) -> Tensor:
    """The direction of q outside of an orthonormal basis, item by item; zero where there is only rounding left."""
    least = 1e3 * torch.finfo(q.real.dtype).eps * squared_norm(q).sqrt()
    for _ in range(2):  # once would leave the rounding of long parts taken away
        for v in basis:
            q = q - per_item(inner(v, q), q) * v
    length = squared_norm(q).sqrt()
    scale = torch.where(length > least, 1 / length, 0.0)
    return per_item(scale, q) * q
