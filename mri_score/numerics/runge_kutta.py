"""Ordinary differential equations in sigma with a step size for each item of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mri_score.numerics.channels import per_item, real_size, squared_norm

State = tuple[Tensor, ...]
"""What is integrated together: parts (B, *shape), real or complex, shapes may differ."""

Slope = Callable[[Tensor, State], State]
"""The derivative of each part at sigma (B,)."""

STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # of fifth order: the step itself
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # less that of fourth order


def adaptive(slope: Slope, state: State, sigma: float, end: float, rtol: float, atol: float) -> State:
    """`state` at sigma > 0 brought to `end`, above or below, by steps that keep the estimated error within

        rms(error) <= atol + rtol rms(part)    for every part of every item, by real components.

    An item chooses its steps alone, the first half of sigma; one that has arrived waits, and is evaluated with the
    others. Six calls of `slope` a try, one more at the start. An item that is not finite any more comes back so.
    Reference: Dormand and Prince, A family of embedded Runge-Kutta formulae, J. Comp. Appl. Math. 1980; step control
    as in Hairer, Norsett and Wanner, Solving ordinary differential equations I, section II.4.
    """
    first = state[0]
    now = torch.full((len(first),), sigma, dtype=torch.float64, device=first.device)
    last = torch.full_like(now, end)
    step = (now / 2).copysign(last - now)
    k = slope(now, state)
    while bool((now != last).any()):
        rest = last - now
        step = torch.where(step.abs() < rest.abs(), step, rest)
        moved, slopes = state, [k]
        for weights in STAGES:
            moved = _combine(state, step, weights, slopes)
            slopes.append(slope(now + sum(weights) * step, moved))
        error = _error(state, moved, _combine(tuple(0 * part for part in state), step, ERROR, slopes), rtol, atol)
        good = ~(error > 1)  # NaN counts as good: no step would mend it
        now = torch.where(good, torch.where(step == rest, last, now + step), now)
        state, k = _choose(good, moved, state), _choose(good, slopes[-1], k)
        step = step * (0.9 * error.clamp_min(1e-12) ** -0.2).clamp(0.2, 5.0)
    return state


def heun(slope: Slope, state: State, sigmas: Tensor) -> State:
    """`state` at the first of `sigmas` (L,), all positive, brought to the last by steps of second order: 2 calls each.

    Reference: Hairer, Norsett and Wanner, Solving ordinary differential equations I, section II.1.
    """
    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        now, after = sigma.expand(len(state[0])), sigma_next.expand(len(state[0]))
        k = slope(now, state)
        guess = _combine(state, after - now, (1.0,), [k])
        state = heun_step(slope, state, (now, after), k, guess)
    return state


def heun_step(slope: Slope, state: State, ends: tuple[Tensor, Tensor], k: State, guess: State) -> State:
    """From one sigma to the next by the mean of two slopes: k at `state`, and that at Euler's `guess` of the end."""
    now, after = ends
    return _combine(state, after - now, (0.5, 0.5), [k, slope(after, guess)])


def _combine(state: State, step: Tensor, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """state + step sum_i weights_i slopes_i."""
    moves = [sum(w * k[part] for w, k in zip(weights, slopes, strict=True) if w) for part in range(len(state))]
    return tuple(part + per_item(step, part) * move for part, move in zip(state, moves, strict=True))


def _error(state: State, moved: State, errors: State, rtol: float, atol: float) -> Tensor:
    """The largest error of an item over what it may be: (B,), float64."""
    ratios = [_rms(error) / (atol + rtol * torch.maximum(_rms(before), _rms(after)))
              for before, after, error in zip(state, moved, errors, strict=True)]  # fmt: skip
    return torch.stack(ratios).amax(0)


def _rms(part: Tensor) -> Tensor:
    return (squared_norm(part).double() / real_size(part)).sqrt()


def _choose(good: Tensor, new: State, old: State) -> State:
    return tuple(torch.where(good.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))
