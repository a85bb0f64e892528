"""The training loop."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.files import cannot_write, claimed, no_link, write_text
from mri_score.losses.base import Loss
from mri_score.models.network import NetworkPrior
from mri_score.models.precision import AUTO, check_precision, find_precision, precision_note
from mri_score.numerics.noise import generators
from mri_score.progress import LOG, progress
from mri_score.training import checkpoint
from mri_score.training.batches import Batches, Source
from mri_score.training.ema import Ema, decays_of
from mri_score.training.log import read_log
from mri_score.training.processes import joined
from mri_score.training.validation import Stopped, validate

PATIENCE = 20
"""Largest number of successive steps with a loss or gradient that is not finite."""


class Interrupted(Exception):
    """The run was stopped by a signal, after its checkpoint was written. number: of the signal."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; the checkpoint is written, the same command resumes")
        self.code = 128 + number


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a training run: the keys of a config's section `training`. Errors: InputError for invalid values."""

    steps: int = 10_000
    batch_size: int = 16
    """Items per step, over all processes."""
    learning_rate: float = 1e-3
    warmup: int = 200
    """Steps of linear increase of the learning rate."""
    decay: float = 0.3
    """Share of the steps, at the end, over which the learning rate decreases linearly to 0."""
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-8
    """Epsilon of Adam."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float | Sequence[float] = 0.999
    """Decay of the weight average. With several, the first gives the prior; the others are saved beside it."""
    precision: str = "float32"
    """float32; bfloat16, by autocast; or auto: bfloat16 on devices with instructions for it, float32 on others."""
    workers: int = 1
    """Number of processes that prepare batches."""
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    """Steps between checkpoints, each with a validation."""
    keep_every: int | None = None
    """Keep the averaged prior of every n-th checkpoint, in kept/; None keeps none."""
    device: torch.device | str = "cpu"
    quiet: bool = False

    def __post_init__(self) -> None:
        check_precision(self.precision, "training.precision")
        decays_of(self.ema_decay)
        if self.keep_every is not None and self.keep_every < 1:
            raise InputError(
                f"training.keep_every is {self.keep_every}; use 1 for every checkpoint, or leave it out for none"
            )


DEFAULTS = TrainingOptions()


def train(
    prior: NetworkPrior,
    loss: Loss,
    source: Source,
    folder: Path,
    save_prior: Callable[..., None],
    options: TrainingOptions = DEFAULTS,
    *,
    validation: list[TrainingItem] | None = None,
    watch: Callable[[NetworkPrior, dict[str, Any]], None] | None = None,
    **changes: Any,
) -> None:
    """Train a prior; resumes from the newest checkpoint in the folder if there is one.

    What follows a checkpoint (validation, averaged priors, figures) is done again on resume, because the run may have
    been killed before it was complete. One process has the folder; see `claimed`.

    prior: trained in place. loss, source: the loss and the training items. folder: for checkpoints and log.
    save_prior: called with an averaged prior, a dict about it, and a file name if it is not the main prior. options:
    settings. validation: batches for denoising errors, or for PSNR. watch: called with prior and log entry at each
    checkpoint; the entry has as `curves` the losses since the last one, with learning rate, norm of the gradient and
    items per second. changes: fields of `options` to replace.
    When started by torchrun, all processes train one model: `batch_size` is their joint batch, and the first process
    writes the files. Batches, noise and learning rate depend on (seed, step) only: a run that was killed and resumed
    gives bit for bit the result of an uninterrupted one, with the same number of threads.
    Errors: Interrupted after SIGTERM, SIGINT or SIGHUP; InputError if loss or gradient are not finite for PATIENCE
    steps, if another process has the folder, or if it cannot be written.
    """
    o = replace(options, **changes)
    decays = decays_of(o.ema_decay)
    with ExitStack() as stack:
        processes, place = stack.enter_context(joined(torch.device(o.device)))
        stopped = stack.enter_context(_stop_signals())
        kind, text = find_precision(o.precision, device=place), precision_note(o.precision, place)
        if text is not None and processes.first:
            LOG.log(logging.INFO if o.precision == AUTO else logging.WARNING, "%s", text)
        if processes.first:
            stack.enter_context(claimed(folder))
        prior.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(prior.parameters(), lr=o.learning_rate, betas=o.betas, eps=o.epsilon)
        averages = [Ema(prior, decay) for decay in decays]

        # Resume.
        first, seen, failures = 0, 0, 0
        losses: list[float] = []  # since the last log entry
        if found := checkpoint.found(folder):
            state = checkpoint.load(found[-1])
            first = state["step"]
            seen = state.get("images", first * o.batch_size)  # a resumed run may have another batch size
            losses = state.get("losses", [])
            _restore(found[-1], prior, averages, optimizer, state)
            LOG.debug("resumed from %s", found[-1])

        processes.agree(prior)

        log = folder / "log.jsonl"
        curves: list[dict[str, Any]] = []

        def halted() -> bool:
            return bool(stopped) and processes.count == 1  # several processes agree on it between two steps

        def follow(step: int, images: int, batch_loss: float | None, brief: bool = False) -> None:
            """What follows a checkpoint: validation, averaged priors, figures; if `brief`, the priors only."""
            known: dict[str, Any] = {"step": step, "images": images, "batch_loss": batch_loss}
            found_errors: list[dict[str, Any]] = [{} for _ in averages]
            regular = step % o.save_every == 0 or step == o.steps  # else the run was stopped by a signal
            if validation and regular and not brief:
                try:
                    found_errors = [validate(ema.model, validation, halted) for ema in averages]
                    others = dict(zip(map(str, decays[1:]), found_errors[1:], strict=True))
                    _append(log, known | found_errors[0] | ({"averages": others} if others else {}))
                except Stopped:
                    brief = True
            first_average, about = averages[0].model, known | found_errors[0]
            save_prior(first_average, about)
            for ema, errors in zip(averages[1:], found_errors[1:], strict=True):
                save_prior(ema.model, known | errors | {"ema_decay": ema.decay}, f"prior-{ema.decay}")
            if o.keep_every and step % (o.keep_every * o.save_every) == 0:
                save_prior(first_average, about, checkpoint.kept_name(step))
            if watch is not None and not brief:
                watch(first_average, about | {"curves": curves.copy()})
                curves.clear()

        if processes.first:
            _forget_after(log, first)
            if first:
                follow(first, seen, state.get("batch_loss"))
        share = processes.share(o.batch_size)
        loader = Batches(source, o.batch_size, o.seed, share).loader(first, o.steps, o.workers)
        hidden = o.quiet or not processes.first
        started = logged = time.monotonic()
        last_logged, shown = first, math.nan

        with progress(o.steps, "step", initial=first, quiet=hidden) as bar:
            for step, batch in enumerate(loader, start=first):
                # One step.
                batch = batch.to(place)
                random = generators(o.seed, "loss", step, share)
                mixed = nullcontext() if kind == torch.float32 else torch.autocast(place.type, kind)
                with mixed:
                    value = loss(prior, batch, random, step).sum() / o.batch_size
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                value = processes.sum_gradients(prior.parameters(), value)
                norm = nn.utils.clip_grad_norm_(prior.parameters(), o.clip)
                if bool(torch.isfinite(norm)) and bool(torch.isfinite(value)):
                    failures = 0
                    for group in optimizer.param_groups:
                        group["lr"] = o.learning_rate * _ramp(step, o.steps, o.warmup, o.decay)
                    optimizer.step()
                    for ema in averages:
                        ema.update(prior, step)
                    losses.append(float(value))
                else:
                    failures += 1
                    if failures > PATIENCE:
                        raise InputError(
                            f"step {step}: the loss or its gradient has not been finite for {failures} steps; lower"
                            " training.learning_rate or training.clip, or look for NaN in the data with: mri-score info"
                        )
                done, seen = step + 1, seen + o.batch_size
                bar.update(1, **({} if math.isnan(shown) else {"loss": shown}))

                # Log, validate, save.
                halt = processes.any(bool(stopped), place)
                if done % o.log_every == 0 and losses:
                    now = time.monotonic()
                    shown = sum(losses) / len(losses)
                    entry = {"step": done, "loss": shown, "seconds": now - started}
                    if processes.first:
                        _append(log, entry)
                        rate = o.learning_rate * _ramp(step, o.steps, o.warmup, o.decay)
                        speed = (done - last_logged) * o.batch_size / (now - logged)
                        curves.append(entry | {"learning_rate": rate, "gradient_norm": float(norm), "speed": speed})
                    logged, last_logged = now, done
                    losses.clear()
                if not (done % o.save_every == 0 or done == o.steps or halt):
                    continue
                if processes.first:
                    saved = _state(done, seen, prior, averages, optimizer, losses) | {"batch_loss": float(value)}
                    checkpoint.save(folder, saved)
                    follow(done, seen, float(value), brief=halt)
                if halt or halted():  # here, after the checkpoint was written
                    raise Interrupted(stopped[0] if stopped else signal.SIGTERM)


def _ramp(step: int, steps: int, warmup: int, decay: float) -> float:
    """Factor of the learning rate: linear warm-up, constant, linear decrease to 0 over the last share `decay`."""
    rise = (step + 1) / max(warmup, 1)
    fall = (steps - step) / max(decay * steps, 1)
    return min(rise, 1.0, fall)


def _state(
    step: int,
    images: int,
    prior: nn.Module,
    averages: list[Ema],
    optimizer: torch.optim.Optimizer,
    losses: list[float],
) -> dict[str, Any]:
    state = {
        "step": step,
        "images": images,
        "model": prior.state_dict(),
        "ema": averages[0].model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": losses,
    }
    others = {str(ema.decay): ema.model.state_dict() for ema in averages[1:]}
    return state | ({"averages": others} if others else {})


def _restore(
    path: Path, prior: nn.Module, averages: list[Ema], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Load a checkpoint. An average that it does not have starts from its first average."""
    others = state.get("averages", {})
    try:
        prior.load_state_dict(state["model"])
        for ema in averages:
            ema.model.load_state_dict(others.get(str(ema.decay), state["ema"]))
        own = optimizer.state_dict()["param_groups"]  # its numbers are those of the config, not those of a file
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": own})
        for parameter, moments in optimizer.state.items():
            if any(moment.numel() not in (1, parameter.numel()) for moment in moments.values()):
                raise ValueError("the optimizer's moments have other shapes")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} has a network other than the config's ({error}); use the config.yaml of the run, or another --out"
        ) from error


def _append(log: Path, entry: dict[str, Any]) -> None:
    try:
        with open(log, "a+", encoding="utf-8", opener=no_link) as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise cannot_write(log, error) from error


def _forget_after(log: Path, step: int) -> None:
    """Remove log entries after the checkpoint that the run resumes from, its validation, and incomplete lines."""
    if not log.exists():
        return
    kept = [one for one in read_log(log) if one["step"] < step or (one["step"] == step and "images" not in one)]
    write_text(log, "".join(json.dumps(entry) + "\n" for entry in kept))


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM, SIGINT and SIGHUP in the list that is yielded: the loop stops at the end of a step."""
    caught: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    try:
        old = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in numbers}
    except ValueError:  # not in the main thread, which alone may set handlers
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
