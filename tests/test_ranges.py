"""Numbers that make no sense are one clear error in Python too, with the ranges that configs have."""

from __future__ import annotations

import copy
import inspect
import math
import pickle

import pytest
import torch

from mri_score.errors import InputError
from mri_score.losses import LOSSES
from mri_score.noise.schedules import Geometric, Karras, LogNormal
from mri_score.ranges import RANGES
from mri_score.samplers import SAMPLERS
from mri_score.samplers.langevin import Langevin

LEVELS = torch.tensor([1.0, 0.5])
SCHEDULES = {"geometric": Geometric, "karras": Karras, "lognormal": LogNormal}


MAKERS = {
    "sampler": (SAMPLERS, lambda kind, **given: SAMPLERS[kind](LEVELS, **given)),
    "loss": (LOSSES, lambda kind, **given: LOSSES[kind](Karras(), **given)),
    "schedule": (SCHEDULES, lambda kind, **given: SCHEDULES[kind](**{"sigma_min": 0.01, "sigma_max": 5.0} | given)),
}


def numbers():
    """(section, class, argument) for every argument of a public class that has a range."""
    for section, (table, make) in MAKERS.items():
        for kind, target in table.items():
            for key in inspect.signature(target).parameters:
                if key in RANGES[section]:
                    yield pytest.param(make, kind, section, key, id=f"{kind}-{key}")


@pytest.mark.parametrize(("make", "kind", "section", "key"), list(numbers()))
def test_numbers_out_of_range_are_refused_by_every_constructor(make, kind, section, key):
    least, most = RANGES[section][key]
    for value in (math.nan, least - max(1.0, abs(least)), 2 * most):
        with pytest.raises(InputError, match=r"\w"):
            make(kind, **{key: value})


def test_the_error_names_class_argument_value_and_range():
    with pytest.raises(InputError, match=r"^Langevin.step_size is nan; allowed are numbers from 1e-12 to 1e\+06$"):
        Langevin(LEVELS, step_size=math.nan)


def test_checked_classes_are_copied_and_pickled_and_keep_their_signatures():
    sampler = pickle.loads(pickle.dumps(copy.deepcopy(Langevin(LEVELS, repeats=2))))
    assert sampler.repeats == 2 and torch.equal(sampler.sigmas, LEVELS)
    assert list(inspect.signature(Langevin).parameters)[:3] == ["sigmas", "repeats", "step_size"]
