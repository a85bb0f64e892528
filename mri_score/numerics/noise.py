"""Noise whose standard deviation is that of each real component, from one generator an item."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mri_score.keys import key


class Antithetic(NamedTuple):
    """The random numbers of one of several draws whose noises add up to zero.

    Draws of a group take e_i - mean(e), times sqrt(G / (G - 1)) for G draws: each noise alone is standard normal, and
    what is linear in the noise cancels in the mean of the group. Of two draws one has the other's noise, negated.
    Reference: Hammersley and Morton, A new Monte Carlo technique: antithetic variates, Proc. Camb. Phil. Soc. 1956.
    """

    group: tuple[Generator, ...]
    """The generators of all draws of the group; draws that share a batch share this object."""
    place: int
    """Which of them is this draw."""
    complete: bool = True
    """Whether all draws of the group are drawn, so that their noises cancel in the average of the results."""


Random = Generator | Antithetic
"""What gives the noise of one item."""


def noise_like(x: Tensor, random: Sequence[Random]) -> Tensor:
    """Standard normal noise of the shape of x (B, *shape), unit variance in *each* real component.

    `torch.randn` of a complex tensor has half of that variance; nothing else here draws Gaussian noise.
    Item i uses random[i] alone, on the CPU, so that a draw does not depend on its batch mates or the device. Items are
    drawn side by side by as many threads as torch has: one alone leaves a GPU waiting, 12 ms an item of 15 x 320 x 320.
    """
    if len(random) != len(x):
        raise ValueError(f"{len(x)} items need {len(x)} generators, not {len(random)}")
    plain = [one for one in random if isinstance(one, Generator)]
    if len(plain) == len(random):
        return _normal(x, plain)
    noise = torch.empty_like(x)
    for group in {id(one.group): one.group for one in random if isinstance(one, Antithetic)}.values():
        items = [item for item, one in enumerate(random) if isinstance(one, Antithetic) and one.group is group]
        each = _normal(x[:1].expand(len(group), *x.shape[1:]), group)
        each = (each - each.mean(0)) * (len(group) / (len(group) - 1)) ** 0.5
        noise[items] = each[[random[item].place for item in items]]  # type: ignore[union-attr]
    single = [item for item, one in enumerate(random) if isinstance(one, Generator)]
    if single:
        noise[single] = _normal(x[single], plain)
    return noise


def _normal(x: Tensor, random: Sequence[Generator]) -> Tensor:
    shape = (*x.shape[1:], 2) if x.is_complex() else x.shape[1:]
    noise = torch.empty(len(random), *shape, dtype=x.real.dtype)
    threads = torch.get_num_threads()
    apart = len({id(one) for one in random}) == len(random)
    run = _threads(threads, os.getpid()).map if threads > 1 and apart else map
    for _ in run(lambda item, one: item.normal_(generator=one), noise, random):
        pass
    return (torch.view_as_complex(noise) if x.is_complex() else noise).to(x.device)


@cache
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Those of this process: threads do not cross a fork."""
    return ThreadPoolExecutor(count)


def signs_like(x: Tensor, random: Sequence[Random]) -> Tensor:
    """Rademacher signs of the shape of x, one for each real component: probes for divergences."""
    return torch.view_as_complex(_sign(noise_like(x, random))) if x.is_complex() else _sign(noise_like(x, random))


def _sign(x: Tensor) -> Tensor:
    parts = torch.view_as_real(x) if x.is_complex() else x
    return torch.where(parts >= 0, 1.0, -1.0).to(parts.dtype)


def uniform(random: Sequence[Random]) -> Tensor:
    """One number in [0, 1) for each generator, float64; antithetic draws take independent ones.

    All generators of a group give a number, also for draws that are not in the batch: they stay at one place of their
    sequence, so that a draw does not depend on its batch mates.
    """
    groups = {id(one.group): one.group for one in random if isinstance(one, Antithetic)}
    of_groups = {number: [_uniform(one) for one in group] for number, group in groups.items()}
    return torch.stack(
        [_uniform(one) if isinstance(one, Generator) else of_groups[id(one.group)][one.place] for one in random]
    )


def _uniform(random: Generator) -> Tensor:
    return torch.rand((), generator=random, dtype=torch.float64)


def generators(seed: int, name: str = "", slice: int = 0, draws: int | Sequence[int] = 1) -> list[Generator]:
    """One CPU generator for each draw, keyed by (seed, name, slice, draw) alone.

    name: of the scan or file. slice: its number in the volume. draws: how many, or their numbers.
    """
    numbers = range(draws) if isinstance(draws, int) else draws
    return [torch.Generator().manual_seed(key(seed, name, slice, draw)) for draw in numbers]


def antithetic_generators(seed: int, name: str, slice: int, draws: Sequence[int], size: int) -> list[Antithetic]:
    """The random numbers of some draws of a slice, draw d in group d // size; keyed by (seed, name, slice, draw).

    draws: all draws of the slice that are made, in this batch or in another.
    """
    groups = {
        number: tuple(generators(seed, name, slice, range(number * size, (number + 1) * size)))
        for number in {draw // size for draw in draws}
    }
    drawn = set(draws)
    whole = {number: drawn.issuperset(range(number * size, (number + 1) * size)) for number in groups}
    return [Antithetic(groups[draw // size], draw % size, whole[draw // size]) for draw in draws]
