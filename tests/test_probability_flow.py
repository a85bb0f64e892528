"""The probability flow: orders of convergence, steps and tolerances of each item, churn."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.models.counted import CountedPrior
from mri_score.noise.schedules import Geometric, Karras
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.numerics.runge_kutta import adaptive, heun
from mri_score.samplers import DDIM, Heun, RungeKutta45
from mri_score.samplers.base import Diverged, Sampler

TOP, END, BATCH = 20.0, 0.02, 30


def gaussian() -> GaussianPrior:
    mean = torch.tensor([0.5 + 0.2j, -0.3j, 1.0], dtype=torch.complex128)
    root = torch.tensor([[0.8, 0.1j, 0.0], [0.2 - 0.3j, 0.4, 0.1], [0.1, -0.2j, 0.3]], dtype=torch.complex128)
    return GaussianPrior(mean, root @ root.mH)


def mixture() -> MixturePrior:
    means = torch.tensor([[-1.5, 0.0, 0.3], [1.5, 0.5, 0.0]]).double()
    return MixturePrior(means, torch.tensor([0.5, 0.6]).double(), torch.tensor([3.0, 7.0]).double())


def blank(model: ScoreModel, count: int = BATCH) -> Tensor:
    return torch.zeros(count, 3, dtype=torch.complex128 if isinstance(model, GaussianPrior) else torch.float64)


@cache
def truth(kind: type) -> Tensor:
    """The end of the flow from each first iterate: in closed form for the Gaussian, to 1e-11 for the mixture."""
    if kind is MixturePrior:
        return walked(RungeKutta45(Karras(END, TOP).levels(2), 1e-12, 1e-12), mixture())
    prior = gaussian()
    x = TOP * noise_like(blank(prior), generators(0, draws=BATCH))
    scale = torch.sqrt((prior.variances + END**2) / (prior.variances + TOP**2))
    along = (x - prior.mean) @ prior.axes.conj() * scale
    return prior.denoise(along @ prior.axes.T + prior.mean, END)


def walked(sampler: Sampler, model: ScoreModel, count: int = BATCH) -> Tensor:
    like = blank(model.prior if isinstance(model, CountedPrior) else model, count)
    return sampler(model, like, generators(0, draws=count))


def error(sampler: Sampler, model: ScoreModel) -> float:
    """Root mean square over the items."""
    kind = type(model.prior) if isinstance(model, CountedPrior) else type(model)
    return float((walked(sampler, model) - truth(kind)).flatten(1).norm(dim=1).square().mean().sqrt())


def euler(levels: Tensor) -> Sampler:
    return DDIM(levels, zeta=0.0)


def uncontrolled(levels: Tensor) -> Sampler:
    """One Dormand-Prince step from level to level, whatever its error."""
    return RungeKutta45(levels, 1e9, 1e9)


# Orders.


@pytest.mark.parametrize("model", [gaussian(), mixture()], ids=["gaussian", "mixture"])
@pytest.mark.parametrize(("solver", "order", "counts"), [
    (euler, 1, (400, 800)), (Heun, 2, (200, 400)),
])  # fmt: skip
def test_halving_the_steps_divides_the_error_by_two_to_the_order(solver, order, counts, model):
    errors = [error(solver(Karras(END, TOP).levels(count + 1)), model) for count in counts]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
    assert errors[1] < 0.05


@pytest.mark.parametrize("model", [gaussian(), mixture()], ids=["gaussian", "mixture"])
def test_dormand_and_princes_steps_are_of_fifth_order_at_least(model):
    errors = [error(uncontrolled(Karras(END, TOP).levels(count + 1)), model) for count in (25, 50)]
    assert math.log2(errors[0] / errors[1]) > 4.8
    assert errors[1] < 1e-7


def test_heun_is_nearer_than_euler_at_the_same_number_of_evaluations():
    one, two = CountedPrior(mixture()), CountedPrior(mixture())
    assert error(Heun(Karras(END, TOP).levels(40)), two) < error(euler(Karras(END, TOP).levels(79)), one) / 3
    assert one.calls == two.calls == 79 * BATCH  # the last of Heun's steps is Euler's


# Steps chosen by their errors.


@pytest.mark.parametrize("model", [gaussian(), mixture()], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("levels", [2, 6])
def test_the_adaptive_flow_keeps_its_tolerance(levels, model):
    tolerances = (1e-3, 1e-5, 1e-7)
    errors = [error(RungeKutta45(Karras(END, TOP).levels(levels), t, t), model) for t in tolerances]
    for tolerance, found in zip(tolerances, errors, strict=True):
        assert found < 20 * tolerance
    assert errors[2] < errors[0] / 100


def test_the_adaptive_flow_is_worth_its_evaluations():
    model = CountedPrior(mixture())
    found = error(RungeKutta45(Karras(END, TOP).levels(2), 1e-5, 1e-5), model)
    assert model.calls < 250 * BATCH
    assert found < error(Heun(Karras(END, TOP).levels(250)), mixture())  # 499 evaluations


class Watched(MixturePrior):
    """Keeps the sigma of each item at each evaluation."""

    def denoise(self, x, sigma):
        self.seen.append(torch.as_tensor(sigma).expand(len(x)).clone())
        return super().denoise(x, sigma)


def watched() -> Watched:
    model = Watched(mixture().means, mixture().stds, mixture().weights)
    model.seen = []
    return model


def test_each_item_goes_its_own_way_down_and_waits_at_the_level():
    model = watched()
    RungeKutta45(torch.tensor([TOP, END]).double(), 1e-5, 1e-5)(model, blank(model), generators(0, draws=BATCH))
    sigmas = torch.stack(model.seen[:-1])[6::6]  # the last stage of each try
    assert bool((sigmas.std(1) > 0).any())
    arrived = (sigmas <= END * (1 + 1e-9)).sum(0)
    assert 1 <= int(arrived.min()) < int(arrived.max())
    assert torch.allclose(sigmas[-1], torch.full((BATCH,), END).double())


def test_an_item_takes_as_many_tries_in_company_as_alone():
    walk, company = RungeKutta45(torch.tensor([TOP, END]).double(), 1e-5, 1e-5), watched()
    walk(company, blank(company, 6), generators(0, draws=6))
    for item in range(6):
        alone = watched()
        walk(alone, blank(alone, 1), generators(0, draws=[item]))
        expected = torch.cat(alone.seen[:-1])
        found = torch.stack(company.seen[:-1])[:, item]
        assert torch.allclose(found[: len(expected)], expected)
        assert torch.allclose(found[len(expected) :], torch.tensor(END).double())  # waiting


def test_levels_are_where_the_adaptive_walk_is_watched_and_projected():
    levels, seen = Karras(END, TOP).levels(4), []
    many = RungeKutta45(levels, 1e-9, 1e-9)(
        mixture(), blank(mixture()), generators(0, draws=BATCH), lambda level, sigma, x: seen.append((sigma, x))
    )
    assert [sigma for sigma, _ in seen] == levels.tolist()
    assert float((many - truth(MixturePrior)).abs().max()) < 1e-6
    half = RungeKutta45(levels[:2], 1e-9, 1e-9)(mixture(), blank(mixture()), generators(0, draws=BATCH))
    assert torch.allclose(mixture().denoise(seen[0][1], float(levels[1])), half)


def test_up_and_down_again_is_where_it_began():
    def slope(sigma, state):
        return ((state[0] - mixture().denoise(state[0], sigma)) / per_item(sigma, state[0]),)

    x = torch.tensor([[-1.3, 0.2, 0.1], [0.4, 0.1, -0.6]]).double()
    up = adaptive(slope, (x,), 0.05, 30.0, 1e-10, 1e-10)
    assert float((up[0] - x).norm()) > 1
    assert torch.allclose(adaptive(slope, up, 30.0, 0.05, 1e-10, 1e-10)[0], x, atol=1e-7)
    ladder = Karras(0.05, 30.0).levels(600).flip(0)
    assert torch.allclose(heun(slope, (x,), ladder)[0], up[0], rtol=1e-3)


def test_the_worst_part_of_a_state_decides_its_steps():
    """y' = 1 / sigma beside z' = 0: the steps that ln sigma needs, however quiet and large z is."""

    def slope(sigma, state):
        return 1 / sigma[:, None], torch.zeros_like(state[1])

    y, z = adaptive(slope, (torch.zeros(2, 1).double(), torch.full((2, 5), 1e6).double()), 0.1, 50.0, 1e-8, 1e-8)
    assert torch.allclose(y, torch.tensor(500.0).log().double(), rtol=1e-6)
    assert torch.equal(z, torch.full((2, 5), 1e6).double())


def test_an_item_that_breaks_ends_the_adaptive_walk_by_its_name():
    class Breaks(GaussianPrior):
        def denoise(self, x, sigma):
            clean = super().denoise(x, sigma)
            clean[2] = torch.where(torch.as_tensor(sigma).expand(len(x))[2] < 1, math.nan, clean[2])
            return clean

    model = Breaks(torch.zeros(3).double(), torch.eye(3).double())
    with pytest.raises(Diverged, match=r"level 1 .*: item 2 of the batch is not finite"):
        RungeKutta45(Geometric(0.02, 20.0).levels(4))(model, torch.zeros(4, 3).double(), generators(0, draws=4))


@pytest.mark.parametrize("tolerances", [(0.0, 1e-5), (1e-5, -1.0), (math.nan, 1e-5)])
def test_refuses_tolerances_that_no_step_can_keep(tolerances):
    with pytest.raises(InputError, match="rtol and atol of the flow are .*; both are positive"):
        RungeKutta45(Karras().levels(5), *tolerances)


# Churn.


def test_churn_raises_the_noise_by_its_share_before_the_step():
    """For white images D = x / (1 + sigma^2): algorithm 2 written out for one step between two levels."""
    prior, again = GaussianPrior(torch.zeros(3).double(), torch.eye(3).double()), generators(0)
    x = 2.0 * noise_like(torch.zeros(1, 3).double(), again)
    high = 2.0 * (1 + 0.5 / 2)
    x = x + 1.1 * (high**2 - 4.0) ** 0.5 * noise_like(x, again)
    slope = x * high / (1 + high**2)
    guess = x + (1.0 - high) * slope
    expected = x + (1.0 - high) * (slope + guess / 2) / 2
    seen: list[Tensor] = []
    walk = Heun(torch.tensor([2.0, 1.0]).double(), churn=0.5, churn_noise=1.1)
    walk(prior, torch.zeros(1, 3).double(), generators(0), lambda level, sigma, iterate: seen.append(iterate))
    assert torch.allclose(seen[0], expected)


def test_churn_is_no_more_than_the_square_root_of_two_and_within_its_range():
    model = watched()
    Heun(torch.tensor([8.0, 4.0, 2.0, 1.0]).double(), churn=100.0, churn_min=2.0, churn_max=4.0)(
        model, blank(model, 1), generators(0)
    )
    first = [float(sigma) for sigma in torch.cat(model.seen)[::2]]
    assert first == pytest.approx([8.0, 4 * 2**0.5, 2 * 2**0.5, 1.0])


def test_a_warm_start_keeps_the_churn_of_each_level():
    walk = Heun(Karras(END, TOP).levels(20), churn=4.0)
    assert walk.below(1.0).rise == walk.rise == 0.2


@pytest.mark.parametrize("options", [{"churn": -1.0}, {"churn_noise": -0.1}, {"churn": math.nan}])
def test_refuses_negative_churn(options):
    with pytest.raises(InputError, match="neither may be below 0"):
        Heun(Karras().levels(5), **options)
