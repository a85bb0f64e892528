"""Orientations: their group, their law, and that a walk asks a prior in them only where the prior allows it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from gaussian import gaussian_problem

from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior
from mri_score.models.counted import CountedPrior
from mri_score.numerics.noise import generators, noise_like
from mri_score.numerics.orientation import random_orientations, turned, turned_back
from mri_score.posteriors import MatchedDraw
from mri_score.priors.record import add_to_record, find_prior, read_record
from mri_score.priors.store import load_prior


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("shape", [(6, 6), (4, 7)])
def test_turning_back_undoes_turning_and_keeps_shape_and_norm(shape, dtype):
    x = noise_like(torch.zeros(40, *shape, dtype=dtype), generators(1, draws=40))
    some = random_orientations(x, generators(2, draws=40))
    there = turned(x, some)
    assert there.shape == x.shape and there.dtype == dtype
    torch.testing.assert_close(turned_back(there, some), x)
    torch.testing.assert_close(there.abs().square().sum((1, 2)), x.abs().square().sum((1, 2)))


@pytest.mark.parametrize(("shape", "count"), [((3, 3), 8), ((2, 3), 4)])
def test_all_orientations_of_the_group_occur_equally_often(shape, count):
    """Of an image of different values, each orientation is another image: there are 8, or 4 if it is not square."""
    many = 800
    x = torch.arange(1.0, 1 + shape[0] * shape[1]).reshape(1, *shape).expand(many, *shape)
    images = turned(x, random_orientations(x, generators(3, draws=many)))
    found = Counter(tuple(one.flatten().tolist()) for one in images)
    assert len(found) == count
    assert max(abs(times - many / count) for times in found.values()) < 5 * (many / count) ** 0.5


def test_the_phase_is_uniform_and_an_item_uses_its_own_generator_alone():
    x = torch.ones(2000, 2, 2, dtype=torch.complex64)
    some = random_orientations(x, generators(4, draws=2000))
    torch.testing.assert_close(some.phase.abs(), torch.ones(2000))
    for power in (1, 2):
        assert abs(complex((some.phase**power).mean())) < 5 / 2000**0.5
    one = random_orientations(x[:1], generators(4, draws=[7]))
    assert one.turns[0] == some.turns[7] and one.phase[0] == some.phase[7]


class Recorded(CountedPrior):
    """A prior that keeps what it is asked."""

    def denoise(self, x, sigma):
        self.asked = x
        return super().denoise(x, sigma)


def asked(any_orientation: bool):
    problem = gaussian_problem(16)
    white = GaussianPrior(torch.zeros(1, 16, dtype=torch.complex128), 0.09 * torch.eye(16, dtype=torch.complex128))
    prior = Recorded(white)  # the same in every orientation
    prior.any_orientation = any_orientation
    posterior = MatchedDraw(prior, problem.operator, problem.kspace.expand(3, -1, -1, -1), problem.noise_std)
    x, beside = (noise_like(torch.zeros(n, 1, 16, dtype=torch.complex128), generators(n, draws=n)) for n in (3, 2))
    low = torch.tensor([True, False, True])
    levels = torch.full((3,), 0.05, dtype=torch.float64)
    denoised = posterior._denoise_both(x, beside, levels, low, generators(6, draws=3))
    return prior.asked, x, beside, denoised


def test_a_prior_is_asked_in_other_orientations_only_if_it_allows_them():
    given, x, beside, plain = asked(any_orientation=False)
    assert torch.equal(given, torch.cat([x, beside]))
    given, x, beside, found = asked(any_orientation=True)
    assert torch.equal(given[1], x[1])  # an item whose mean is not walked yet
    for place, item in ((0, x[0]), (2, x[2]), (3, beside[0]), (4, beside[1])):
        assert not torch.allclose(given[place], item)
        torch.testing.assert_close(given[place].abs().sum(), item.abs().sum())
    for one, other in zip(found, plain, strict=True):  # a prior that is the same in all orientations answers the same
        torch.testing.assert_close(one, other)


def test_the_record_of_a_prior_says_whether_it_knows_all_orientations(tmp_path):
    assert load_prior("brain").any_orientation and CountedPrior(load_prior("brain")).any_orientation
    assert not load_prior("brain-heads").any_orientation  # it was told the place of each pixel
    source = find_prior("brain-fast")
    for end in (".safetensors", ".json"):
        (tmp_path / f"own{end}").write_bytes(source.with_suffix(end).read_bytes())
    own = tmp_path / "own.safetensors"
    assert read_record(own)["about"]["any_orientation"] is True
    add_to_record(own, any_orientation="yes")
    with pytest.raises(InputError, match=r"any_orientation is 'yes'; it should be true or false"):
        load_prior(own)
