"""Training: runs that resume to the bit, stop on signals, survive bad numbers and damaged files."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.files import DiskFull
from mri_score.losses import Denoising
from mri_score.models.analytic import GaussianPrior
from mri_score.models.network import NetworkPrior
from mri_score.networks.unet import UNet
from mri_score.noise.schedules import Geometric
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.store import build_prior
from mri_score.training import checkpoint
from mri_score.training.batches import Batches, join
from mri_score.training.ema import Ema
from mri_score.training.loop import PATIENCE, Interrupted, _ramp, train
from mri_score.training.validation import SIGMAS, Stopped, denoising_errors, validate

SIZE = (8, 9)
STEPS = 30


class Smooth:
    """Random images of low frequencies, some with a noise level."""

    def sample(self, random: Generator) -> TrainingItem:
        y = torch.zeros(1, *SIZE, dtype=torch.complex64)
        y[:, 3:6, 3:6] = torch.randn(1, 3, 3, generator=random, dtype=torch.complex64)
        return TrainingItem("smooth", image=2 * ifft(y), noise_std=torch.rand(1, generator=random))


class Eventful(Denoising):
    """Denoising score matching to which something happens at some steps."""

    def __init__(self, events: dict[int, Any] | None = None) -> None:
        super().__init__(Geometric(0.05, 5.0))
        self.events = events or {}

    def __call__(self, model, batch, random, step):
        value = super().__call__(model, batch, random, step)
        event = self.events.get(step, lambda x, _: x)
        return event(value, model)


def fresh_prior(widths: tuple[int, ...] = (6, 8)) -> NetworkPrior:
    torch.manual_seed(0)
    return build_prior({"name": "unet", "widths": widths, "blocks": 1, "embedding": 8}, sd=0.5)


def validation() -> list[TrainingItem]:
    return [join([Smooth().sample(one) for one in generators(9, "validation", draws=6)])]


def run(folder: Path, loss: Denoising | None = None, **changes) -> NetworkPrior:
    """A short training run; what it leaves lies in the folder."""
    prior = changes.pop("prior", None) or fresh_prior()
    options: dict[str, Any] = {"steps": STEPS, "batch_size": 4, "learning_rate": 5e-3, "warmup": 5, "workers": 0,
                               "log_every": 5, "save_every": 10, "ema_decay": 0.9, "quiet": True,
                               "validation": validation(), "seed": 3}  # fmt: skip
    train(prior, loss or Eventful(), Smooth(), folder, changes.pop("save_prior", lambda *_: None), **options | changes)
    return prior


def entries(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def tensors(state: Any, path: str = "") -> dict[str, Any]:
    """A nested state as flat names and values."""
    if isinstance(state, dict):
        return {key: value for name, part in state.items() for key, value in tensors(part, f"{path}/{name}").items()}
    return {path: state}


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, average, optimizer and log, bit for bit."""
    left, right = (tensors(checkpoint.load(checkpoint.found(folder)[-1])) for folder in (one, other))
    assert left.keys() == right.keys()
    for name, value in left.items():
        equal = torch.equal(value, right[name]) if isinstance(value, Tensor) else value == right[name]
        assert equal, name
    assert entries(one) == entries(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


# The run.


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_the_loss_falls_and_the_average_denoises_better(tmp_path):
    averaged: list[NetworkPrior] = []
    folder, prior = tmp_path / "new" / "folder", fresh_prior(widths=(16, 16))
    run(folder, prior=prior, steps=400, batch_size=16, learning_rate=1e-2,
        save_prior=lambda prior, about: averaged.append(copy.deepcopy(prior)))  # fmt: skip
    log = entries(folder)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 80 and sum(losses[-10:]) < 0.75 * sum(losses[:10])
    first, last = (denoising_errors(prior, validation()) for prior in (fresh_prior(), averaged[-1]))
    assert first[0.3] == pytest.approx(1, abs=0.3) and last[0.3] < 0.5
    reported = [entry for entry in log if "denoising_errors" in entry][-1]
    assert reported["images"] == 6400 and reported["denoising_errors"]["1.0"] == last[1.0]


def test_a_log_is_possible_before_the_first_checkpoint(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "new", Eventful({3: cut_off}), log_every=1, save_every=1000)
    assert [entry["step"] for entry in entries(tmp_path / "new")] == [1, 2, 3]


def test_each_log_line_is_the_mean_since_the_last(tmp_path):
    run(tmp_path / "each", log_every=1, save_every=100, validation=None)
    run(tmp_path / "five", log_every=5, save_every=100, validation=None)
    each = [entry["loss"] for entry in entries(tmp_path / "each")]
    five = [entry["loss"] for entry in entries(tmp_path / "five")]
    assert five == pytest.approx([sum(each[i : i + 5]) / 5 for i in range(0, STEPS, 5)])


def test_workers_change_nothing(whole, tmp_path):
    run(tmp_path, workers=1)
    assert_same_run(whole, tmp_path)


def test_the_seed_changes_the_run(whole, tmp_path):
    run(tmp_path, seed=4)
    assert entries(whole)[0] != entries(tmp_path)[0]


def test_the_published_learning_rate_is_used(tmp_path):
    seen: dict[int, float] = {}

    def watch(prior, about):
        (group,) = checkpoint.load(checkpoint.found(tmp_path)[-1])["optimizer"]["param_groups"]
        seen[about["step"]] = group["lr"]

    run(tmp_path, save_every=1, watch=watch, validation=None, steps=20, learning_rate=0.01, warmup=4, decay=0.5)
    expected = [0.25, 0.5, 0.75, 1] + [1] * 7 + [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert [seen[step] for step in range(1, 21)] == pytest.approx([0.01 * value for value in expected])


@pytest.mark.parametrize(("step", "value"), [(0, 0.005), (99, 0.5), (199, 1), (500, 1), (850, 0.5), (999, 1 / 300)])
def test_the_ramp_rises_stays_and_falls(step, value):
    assert _ramp(step, steps=1000, warmup=200, decay=0.3) == pytest.approx(value)


def test_the_ramp_can_be_left_out():
    assert [_ramp(step, steps=5, warmup=0, decay=0.0) for step in range(5)] == [1, 1, 1, 1, 1]


def test_refuses_an_unknown_precision(tmp_path):
    with pytest.raises(InputError, match="training.precision is 'float8'; known names: auto, bfloat16, float32"):
        run(tmp_path, precision="float8")


# Stopping and resuming.


def cut_off(value, model):
    raise RuntimeError("power cut")


def kill(number: int):
    def event(value, model):
        os.kill(os.getpid(), number)
        return value

    return event


def steps_of(folder: Path) -> list[int]:
    return [checkpoint.load(path)["step"] for path in checkpoint.found(folder)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_writes_a_checkpoint_and_the_resumed_run_is_the_uninterrupted_one(whole, tmp_path, number, code):
    ignored = signal.signal(number, signal.SIG_DFL)  # a suite in the background of a shell ignores SIGINT
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"stopped by {number.name}") as stop:
        run(tmp_path, Eventful({16: kill(number)}))
    assert stop.value.code == code and steps_of(tmp_path) == [10, 17]
    assert signal.getsignal(number) is before
    signal.signal(number, ignored)
    run(tmp_path)
    assert_same_run(whole, tmp_path)


def test_a_signal_while_saving_is_kept(whole, tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, watch=lambda prior, about: os.kill(os.getpid(), signal.SIGTERM))
    assert steps_of(tmp_path) == [10]
    run(tmp_path)
    assert_same_run(whole, tmp_path)


def test_a_killed_run_resumes_from_its_newest_checkpoint(whole, tmp_path):
    """Step 15 was logged after the checkpoint of step 10, and a line was cut off: both go."""
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, Eventful({17: cut_off}))
    assert steps_of(tmp_path) == [10] and entries(tmp_path)[-1]["step"] == 15
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 17, "lo')
    run(tmp_path)
    assert_same_run(whole, tmp_path)


def test_resuming_a_finished_run_does_nothing(whole, tmp_path):
    run(tmp_path)
    run(tmp_path, Eventful(dict.fromkeys(range(STEPS), cut_off)))
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize("step", [10, STEPS])
def test_what_follows_a_checkpoint_is_done_again_on_resume(whole, tmp_path, step):
    saved: list[int] = []

    def save(prior, about, *name):
        saved.append(about["step"])
        if saved.count(step) == 1 and about["step"] == step:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, save_prior=save)
    assert steps_of(tmp_path)[-1] == step and saved[-1] == step
    run(tmp_path, save_prior=save)
    assert saved.count(step) == 2 and saved[-1] == STEPS
    assert_same_run(whole, tmp_path)


def test_a_full_disk_costs_the_older_checkpoint_before_it_ends_the_run(tmp_path, monkeypatch):
    write = checkpoint._write

    def full(path, state):
        if state["step"] > 2 and len(list(tmp_path.glob("*.pt"))) == 2:
            raise DiskFull("the disk is full")
        write(path, state)

    monkeypatch.setattr(checkpoint, "_write", full)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state_of(step))
    assert steps_of(tmp_path) == [2, 3]
    monkeypatch.setattr(checkpoint, "_write", lambda *_: (_ for _ in ()).throw(DiskFull("the disk is full")))
    with pytest.raises(DiskFull):
        checkpoint.save(tmp_path, state_of(4))
    assert steps_of(tmp_path)[-1] == 3


def test_a_checkpoint_without_running_losses_still_resumes(whole, tmp_path):
    """As the first releases wrote them."""
    with pytest.raises(Interrupted):
        run(tmp_path, Eventful({19: kill(signal.SIGTERM)}))
    (*_, path) = checkpoint.found(tmp_path)
    state = checkpoint.load(path)
    assert state.pop("losses") == []
    checkpoint.save(tmp_path, state)
    run(tmp_path)
    left, right = (checkpoint.load(checkpoint.found(folder)[-1])["ema"] for folder in (whole, tmp_path))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_images_are_counted_over_batch_sizes(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, Eventful({19: kill(signal.SIGTERM)}))
    seen = []
    run(tmp_path, batch_size=2, save_prior=lambda _, about, *__: seen.append(about["images"]))
    assert seen[-1] == 20 * 4 + 10 * 2


def test_trains_beside_the_main_thread(whole, tmp_path):
    """Where Python lets no one set signal handlers."""
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert_same_run(whole, tmp_path)


def test_refuses_the_checkpoint_of_another_network(tmp_path):
    run(tmp_path, steps=1)
    with pytest.raises(InputError, match="checkpoint-00000001.pt has a network other than the config's"):
        run(tmp_path, prior=fresh_prior(widths=(6, 10)))


# Numbers that are not finite.


def nan_loss(value, model):
    return value * math.nan


def infinite_loss(value, model):
    return value + math.inf  # its gradient alone would pass


def nan_gradient(value, model):
    zero = sum((p * 0).sum() for p in model.parameters())
    return value + torch.sqrt(zero)  # adds 0; its slope there has no value


def states(folder: Path, loss: Denoising, steps: int) -> list[dict[str, Tensor]]:
    """Weights and average after each step."""
    found: list[dict[str, Tensor]] = []

    def watch(*_) -> None:
        state = checkpoint.load(checkpoint.found(folder)[-1])
        found.append({**tensors(state["model"]), **tensors(state["ema"], "ema"), **tensors(state["optimizer"])})

    run(folder, loss, steps=steps, save_every=1, validation=None, watch=watch)
    return found


@pytest.mark.parametrize("event", [nan_loss, infinite_loss, nan_gradient])
def test_a_step_that_is_not_finite_is_skipped(tmp_path, event):
    found = states(tmp_path, Eventful({2: event}), 4)
    moved = [any(isinstance(b[k], Tensor) and not torch.equal(a[k], b[k]) for k in b)
             for a, b in zip(found, found[1:], strict=False)]  # fmt: skip
    assert moved == [True, False, True]
    assert all(bool(torch.isfinite(value).all()) for value in found[-1].values() if isinstance(value, Tensor))


def test_gives_up_when_patience_ends(tmp_path):
    bad = dict.fromkeys(range(3, 100), nan_loss)
    with pytest.raises(InputError, match=f"step {3 + PATIENCE}: the loss .* not been finite for {PATIENCE + 1} steps"):
        run(tmp_path, Eventful(bad), steps=100, validation=None)


def test_patience_starts_anew_after_a_good_step(tmp_path):
    bad = dict.fromkeys([*range(PATIENCE), *range(PATIENCE + 1, 2 * PATIENCE + 1)], nan_loss)
    run(tmp_path, Eventful(bad), steps=2 * PATIENCE + 2, validation=None)
    assert steps_of(tmp_path)[-1] == 2 * PATIENCE + 2
    assert [entry["step"] for entry in entries(tmp_path)] == [25]  # lines without a finite loss are left out


# The average.


@pytest.mark.parametrize(("updates", "decay"), [(0, 0.1), (8, 0.5), (80, 0.9), (10_000, 0.95)])
def test_the_average_warms_up(updates, decay):
    """(1 + n) / (10 + n), at most the decay asked for."""
    model = fresh_prior()
    ema = Ema(model, decay=0.95)
    old = copy.deepcopy(ema.model)
    for value in (*model.parameters(), *model.buffers()):
        value.data = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    ema.update(model, updates)
    for mine, before, new in zip(ema.model.parameters(), old.parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, decay * before + (1 - decay) * new, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(ema.model.buffers(), model.buffers(), strict=True))
    assert not any(p.requires_grad for p in ema.model.parameters()) and not ema.model.training


# Checkpoints.


def state_of(step: int) -> dict[str, Any]:
    weights = torch.arange(3000.0) + step
    return {"step": step, "model": {"w": weights}, "ema": {"w": weights / 2}, "optimizer": {"state": {}}}


def test_two_checkpoints_stay(tmp_path):
    for step in (2, 10, 9_999_999, 100):
        checkpoint.save(tmp_path, state_of(step))
    assert steps_of(tmp_path) == [100, 9_999_999]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "text", "short", "shorter", "flipped weight", "flipped pickle"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = checkpoint.save(tmp_path, state_of(5))
    data = bytearray(path.read_bytes())
    if damage.startswith("flipped"):
        place = data.index(b"model") if damage.endswith("pickle") else data.index(torch.arange(5.0, 8005.0).numpy()[:8])
        data[place + 2] ^= 4
    path.write_bytes({"empty": b"", "text": b"hello\n", "short": data[:-20], "shorter": data[:99]}.get(damage, data))
    with pytest.raises(InputError, match=r"checkpoint-00000005.pt cannot be read .*remove it to resume"):
        checkpoint.load(path)


def test_a_damaged_checkpoint_stops_a_run_and_the_one_before_serves(whole, tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, Eventful({16: kill(signal.SIGTERM)}))
    newest = checkpoint.found(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(InputError, match=newest.name):
        run(tmp_path)
    newest.unlink()
    run(tmp_path)
    assert_same_run(whole, tmp_path)


class Harmful:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_code_in_a_checkpoint_is_run(tmp_path):
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Harmful(trap)))
    assert trap.exists()  # as a plain unpickler would do
    trap.unlink()
    path = checkpoint.save(tmp_path, {**state_of(1), "model": Harmful(trap)})
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)
    assert not trap.exists()


@pytest.mark.parametrize("state", [{}, {"step": 3}, [1, 2], {"model": {}, "ema": {}, "optimizer": {}}])
def test_refuses_what_is_no_training_state(tmp_path, state):
    path = tmp_path / "checkpoint-00000001.pt"
    torch.save(state, path)
    with pytest.raises(InputError, match="is not a checkpoint of a training run: it lacks"):
        checkpoint.load(path)


def half_a_file(last_deed):
    def save(state, file) -> None:
        file.write(b"PK half a file")
        file.flush()
        last_deed()

    return save


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state_of(1))

    def fail() -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", half_a_file(fail))
    with pytest.raises(RuntimeError, match="disk full"):
        checkpoint.save(tmp_path, state_of(2))
    assert steps_of(tmp_path) == [1] and len(list(tmp_path.iterdir())) == 1


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state_of(1))
    monkeypatch.setattr(checkpoint.torch, "save", half_a_file(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    if not (child := os.fork()):
        checkpoint.save(tmp_path, state_of(2))
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert steps_of(tmp_path) == [1] and len(list(tmp_path.iterdir())) == 2  # the other is the half file


# Batches.


def images(batches: Batches, first: int, last: int, workers: int = 0) -> list[Tensor]:
    return [batch.image for batch in batches.loader(first, last, workers)]


def test_batches_depend_on_seed_step_and_place_alone():
    batches = Batches(Smooth(), 4, seed=1)
    all_steps = images(batches, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(images(batches, 3, 5), all_steps[3:], strict=True))
    assert torch.equal(images(Batches(Smooth(), 2, seed=1), 3, 4)[0], all_steps[3][:2])
    assert not torch.equal(images(Batches(Smooth(), 4, seed=2), 3, 4)[0], all_steps[3])
    everything = torch.cat(all_steps).flatten(1)
    assert len(torch.unique(torch.view_as_real(everything)[:, 0, 0])) == 20  # no image comes twice


def test_workers_make_the_same_batches_in_order():
    batches = Batches(Smooth(), 3, seed=1)
    for here, there in zip(images(batches, 2, 8), images(batches, 2, 8, workers=1), strict=True):
        assert torch.equal(here, there)


def test_join_stacks_images_and_levels():
    items = [Smooth().sample(one) for one in generators(0, draws=3)]
    batch = join(items)
    assert torch.equal(batch.image, torch.stack([item.image[0] for item in items]))
    assert torch.equal(batch.noise_std, torch.stack([item.noise_std[0] for item in items]))
    bare = TrainingItem("bare", image=items[0].image)
    assert join([items[0], bare]).noise_std is None


def test_join_refuses_images_of_several_sizes():
    items = [TrainingItem("a", image=torch.zeros(1, 4, 6)), TrainingItem("b", image=torch.zeros(1, 5, 6))]
    with pytest.raises(InputError, match=r"training images have sizes \[\(4, 6\), \(5, 6\)\]; set data.size"):
        join(items)


# Validation.


def white_images(sd: float, count: int = 400) -> TrainingItem:
    return TrainingItem("white", image=sd * noise_like(torch.zeros(count, 6, 7).cdouble(), generators(1, draws=count)))


def test_the_unit_of_denoising_errors_is_the_white_gaussian():
    prior = GaussianPrior(torch.zeros(6, 7).cdouble(), 0.25 * torch.eye(42).cdouble())
    errors = denoising_errors(prior, [white_images(0.5, 150), white_images(0.5, 250)])
    assert tuple(errors) == SIGMAS
    assert list(errors.values()) == pytest.approx([1] * len(SIGMAS), rel=0.03)


def test_a_run_is_validated_at_the_levels_that_it_learns():
    network = UNet(widths=(4,), blocks=1, embedding=8)
    batch = [TrainingItem("white", image=noise_like(torch.zeros(2, 8, 8, dtype=torch.cfloat), generators(1, draws=2)))]
    for ends, levels in (((0.02, 5.0), (0.03, 0.1, 0.3, 1.0, 3.0)), ((0.4, 0.9), (0.6,))):
        prior = NetworkPrior(network, sigma_min=ends[0], sigma_max=ends[1])
        assert tuple(validate(prior, batch)["denoising_errors"]) == levels


def test_validation_ends_before_the_next_call_when_it_is_told_to():
    prior = NetworkPrior(UNet(widths=(4,), blocks=1, embedding=8), sigma_min=0.02, sigma_max=5.0)
    image = noise_like(torch.zeros(2, 8, 8, dtype=torch.cfloat), generators(1, draws=2))
    batches = [TrainingItem("white", image=image)] * 2
    calls: list[int] = []
    prior.register_forward_hook(lambda *_: calls.append(1))
    prior.network.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(Stopped):
        validate(prior, batches, lambda: len(calls) >= 3)
    assert len(calls) == 3


def test_denoising_errors_repeat_and_fall_with_knowledge():
    """Images of one line: the prior that knows it leaves 1 / 42 of the error."""
    direction = torch.ones(42).cdouble() / 42**0.5
    prior = GaussianPrior(torch.zeros(6, 7).cdouble(), 42 * 0.25 * torch.outer(direction, direction))
    batch = TrainingItem("line", image=prior.sample(generators(2, draws=400)))
    errors = denoising_errors(prior, [batch])
    assert errors == denoising_errors(prior, [batch])
    for sigma, error in errors.items():
        exact = sigma**2 * 42 * 0.25 / (sigma**2 + 42 * 0.25) / 42
        assert error == pytest.approx(exact / (sigma**2 * 0.25 / (sigma**2 + 0.25)), rel=0.15)
