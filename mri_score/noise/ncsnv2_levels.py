"""The automatic noise levels of NCSNv2 (its techniques 1, 2 and 4), and levels for noisy training images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError

# Technique 1: the largest level.


def largest_distance(
    images: Iterable[Tensor], *, global_phase: bool = True, noise_std: float | None = None, block: int = 256
) -> float:
    """Technique 1: the largest Euclidean distance between two training images, over their real components.

    With a random global phase, the supremum over pairs is the sum of the two largest norms; a single image is paired
    with its negative. Otherwise it is the exact maximum over all pairs. `block` images at a time are compared, those
    far from the mean first, until the triangle inequality excludes the rest; this needs a tensor or a sequence.
    For images with noise of noise_std, the mean energy of the noise is subtracted from each squared norm or distance.
    Shapes: images (N, *shape), real or complex.
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """
    if not global_phase and not isinstance(images, (Tensor, Sequence)):
        images = list(images)
    vectors = (vector for _, vector in checked_vectors(images))
    energies, sizes = zip(*((float(vector @ vector), len(vector)) for vector in vectors), strict=True)
    noise = sizes[0] * (noise_std or 0.0) ** 2
    if global_phase:
        return sum_of_two_largest(energies, [noise] * len(energies))
    if len(energies) < 2:
        raise InputError("the largest distance needs two training images; got one")
    return without_noise(_diameter(images, block) ** 2, 2 * noise) ** 0.5  # type: ignore[arg-type]


def sum_of_two_largest(energies: Sequence[float], noise: Sequence[float]) -> float:
    """The sum of the two largest norms, without the energy of the noise of each image; a single image counts twice."""
    largest = sorted(zip(energies, noise, strict=True), key=lambda one: one[0] - one[1], reverse=True)[:2] * 2
    return sum(without_noise(*one) ** 0.5 for one in largest[:2])


def without_noise(energy: float, noise: float) -> float:
    if energy <= noise:
        raise InputError(
            f"training images hold {energy:.4g} of energy, no more than their noise, {noise:.4g}: "
            "check them, or give a smaller noise_std, in their units"
        )
    return energy - noise


ROUNDING = 1e-5
"""Bound for the error of a squared distance in single precision, relative to the square of the sum of both radii."""
CANDIDATES = 16
"""Largest number of pairs of two blocks that are measured in double precision."""


def _diameter(images: Tensor | Sequence[Tensor], block: int) -> float:
    """The largest distance between two of the images, with two blocks in memory.

    Products in single precision select the pairs that may be farthest, which are measured in double precision. If more
    than CANDIDATES pairs are equal in single precision, the result is accurate to that precision.
    """
    mean = torch.zeros_like(_vector(images[0]))
    for image in images:
        mean += _components(image)
    mean /= len(images)
    centre = mean.to(_components(images[0]).dtype)  # the same for all, so that its rounding changes no distance
    radii = torch.stack([torch.linalg.vector_norm(_components(image) - centre, dtype=mean.dtype) for image in images])
    radii, order = radii.sort(descending=True)

    def centred(start: int) -> Tensor:
        chosen = order[start : start + block].tolist()
        rows = torch.empty(len(chosen), len(centre), device=centre.device)
        for row, i in zip(rows, chosen, strict=True):
            torch.sub(_components(images[i]), centre, out=row)
        return rows

    def distance(pair: Tensor) -> float:
        first, second = (_vector(images[int(order[i])]) for i in pair)
        return float(torch.linalg.vector_norm(first - second))

    largest = 0.0
    for i in range(0, len(order), block):
        if 2 * radii[i] <= largest:
            break
        a = centred(i)
        for j in range(i, len(order), block):
            if radii[i] + radii[j] <= largest:
                break
            b = a if j == i else centred(j)
            squared = radii[i : i + block, None].square() + radii[j : j + block].square() - 2 * (a @ b.T)
            farthest = squared.flatten().topk(min(CANDIDATES, squared.numel()))
            near = farthest.values >= max(float(farthest.values[0]), largest**2) - ROUNDING * (radii[i] + radii[j]) ** 2
            pairs = torch.stack([farthest.indices // len(b) + i, farthest.indices % len(b) + j], dim=1)
            largest = max([largest, *map(distance, pairs[near])])
    return largest


def _components(image: Tensor) -> Tensor:
    """The real components of one image."""
    return (torch.view_as_real(image.resolve_conj()) if image.is_complex() else image).flatten()


def _vector(image: Tensor) -> Tensor:
    """The real components of one image, float64."""
    return _components(image).double()


def checked_vectors(images: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each image and its vector. Errors: InputError for images that cannot be measured."""
    size = 0
    for number, image in enumerate(images):
        vector = _vector(image)
        size = size or len(vector)
        if len(vector) != size:
            raise InputError(
                f"training image {number} has {len(vector)} real components, but image 0 has {size}: "
                "crop or pad all to one size"
            )
        if not torch.isfinite(vector.sum()):
            raise InputError(f"training image {number} holds numbers that are not finite; leave it out")
        yield image, vector
    if not size:
        raise InputError("there are no training images to measure")


# Technique 2: the number of levels.

PUBLISHED_OVERLAP = 0.5668
"""The overlap with which the published configurations of NCSNv2 have 232, 500, 788, 1086 and 2311 levels."""


def level_overlap(dimension: int, ratio: float) -> float:
    """The overlap of neighbouring levels: Phi(a (g - 1) + 3 g) - Phi(a (g - 1) - 3 g).

    It is the probability of the noise of one level in the range of the next. ratio: g, of neighbouring levels.
    dimension: D, the number of real components, with a = sqrt(2 D).
    """
    from scipy.special import ndtr  # scipy is slow to import, and most schedules need none of this

    a = math.sqrt(2 * dimension)
    return float(ndtr(a * (ratio - 1) + 3 * ratio) - ndtr(a * (ratio - 1) - 3 * ratio))


def level_ratio(dimension: int, overlap: float = 0.5) -> float:
    """Technique 2: the ratio > 1 of neighbouring levels at which they overlap by `overlap`.

    The published levels of NCSNv2 have the overlap PUBLISHED_OVERLAP, not the 0.5 of the paper.
    Errors: InputError for fewer than 5 dimensions, where levels always overlap, and for an impossible overlap.
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """
    from scipy.optimize import brentq

    if dimension < 5:
        raise InputError(f"technique 2 needs images of at least 5 real dimensions; got {dimension}")
    if not 0 < overlap < level_overlap(dimension, 1.0):
        raise InputError(f"overlap is {overlap}; it must lie between 0 and 0.997")
    a = math.sqrt(2 * dimension)
    beyond = (a + 40) / (a - 3)  # here a (g - 1) - 3 g = 40: no overlap is left
    return brentq(lambda ratio: level_overlap(dimension, ratio) - overlap, 1.0, beyond, xtol=1e-14)


def level_count(sigma_max: float, sigma_min: float, ratio: float) -> int:
    """The number of levels from sigma_max to sigma_min, both included, whose ratio is nearest to `ratio`; at least 2.
    """
    if not (0 < sigma_min < sigma_max and ratio > 1):
        raise InputError(f"levels need 0 < sigma_min < sigma_max and ratio > 1; got {sigma_min}, {sigma_max}, {ratio}")
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ratio)))


# Technique 4: the step size.


def step_size(ratio: float, sigma_min: float, repeats: int) -> float:
    """Technique 4: the step at sigma_min with which `repeats` Langevin steps per level best keep the noise at its
    level.

    It minimizes `excess_variance` over e = step / sigma_min^2 in (0, 2).
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """
    from scipy.optimize import minimize_scalar

    if not (ratio > 1 and sigma_min > 0 and repeats >= 1):
        raise InputError(f"a step needs ratio > 1, sigma_min > 0 and repeats >= 1; got {ratio}, {sigma_min}, {repeats}")

    def objective(log_e: float) -> float:
        return excess_variance(math.exp(log_e), ratio, repeats)

    grid = torch.linspace(math.log(1e-9), math.log(1.999), 1000, dtype=torch.float64).tolist()
    best = min(range(1, len(grid) - 1), key=lambda k: objective(grid[k]))
    bounds = grid[best - 1], grid[best + 1]
    return math.exp(minimize_scalar(objective, bounds=bounds, method="bounded").x) * sigma_min**2


def excess_variance(e: float, ratio: float, repeats: int) -> float:
    """(1 - e)^(2 T) (g^2 - b) + b - 1 with b = 2 / (2 - e): excess after T Langevin steps of e = step / sigma^2.

    It is the variance above sigma^2, in units of sigma^2, for noise that had the variance g^2 at first. Never zero.
    """
    b = 2 / (2 - e)
    return (1 - e) ** (2 * repeats) * (ratio**2 - b) + e / (2 - e)


# Levels for images with noise.


def ratio_to_noise(sigma_max: float, noise_std: float, count: int) -> float:
    """(noise_std / sigma_max)^(1 / count) < 1: the ratio of levels with `count` steps from sigma_max to noise_std.

    Reference: `sigma_rate_sure` of SURE-Score, Aali et al., Asilomar 2023.
    """
    if not (0 < noise_std < sigma_max and count >= 2):
        raise InputError(
            f"levels above the noise need 0 < noise_std < sigma_max and a count of at least 2;"
            f" got {noise_std}, {sigma_max} and {count}"
        )
    return (noise_std / sigma_max) ** (1 / count)


def levels_above_noise(sigma_max: float, noise_std: float, count: int) -> Tensor:
    """sigma_max r^k - noise_std for k = 0 .. count - 1, r from `ratio_to_noise`: (count,), float64, decreasing.

    The noise to add to images that have noise of noise_std already. As in the published code, standard deviations are
    subtracted, not variances: the levels are empirical, and their last ratio is near 2, not r.
    Reference: `get_sigmas_sure` of SURE-Score. It starts at k = 1, and thus has one level fewer than the `count` of its
    network and sampler.
    """
    ratio = ratio_to_noise(sigma_max, noise_std, count)
    return sigma_max * ratio ** torch.arange(count, dtype=torch.float64) - noise_std
