"""Nearest neighbours: copies are found whatever was done to them that does not count, and nothing else is one."""

from __future__ import annotations

import csv

import pytest
import torch

from mri_score.errors import InputError
from mri_score.sample_quality.neighbours import BLOCK, compare, nearest, write_figure, write_table


def images(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def brute_force(sample: torch.Tensor, image: torch.Tensor) -> float:
    """min over s of || |a| - s |b| || / || |a| ||, by least squares."""
    a, b = sample.abs().double().flatten(), image.abs().double().flatten()
    scale = torch.linalg.lstsq(b[:, None], a[:, None]).solution[0, 0]
    return float((a - scale * b).norm() / a.norm())


@pytest.mark.parametrize("shape", [(8, 8), (7, 9)])
@pytest.mark.parametrize("turns", [False, True])
def test_distances_are_those_of_a_search_through_everything(shape, turns):
    training, samples = images(2 * BLOCK + 3, *shape), images(4, *shape, seed=1)

    def versions(image):
        if not turns:
            return [image]
        quarters = range(4) if shape[0] == shape[1] else (0, 2)
        turned = [torch.rot90(image, quarter) for quarter in quarters]
        return turned + [one.T if shape[0] == shape[1] else one.flip(0) for one in turned]

    table = torch.tensor(
        [[min(brute_force(sample, one) for one in versions(image)) for image in training] for sample in samples]
    )
    distances, numbers = nearest(samples, training, k=3, turns=turns)
    wanted, order = table.double().sort(1)
    torch.testing.assert_close(distances, wanted[:, :3], rtol=1e-5, atol=0)
    assert torch.equal(numbers, order[:, :3])


@pytest.mark.parametrize("number", [0, BLOCK - 1, BLOCK, 40])
@pytest.mark.parametrize("shape", [(9, 9), (8, 11)])
def test_a_planted_copy_is_found(number, shape):
    """Scaled, turned by half, flipped and with a phase, among others: at distance 0."""
    training = images(41, *shape)
    copy = 2.7 * torch.rot90(training[number], 2).flip(-1)
    sample = torch.polar(copy, images(1, *shape, seed=2)[0])
    distances, numbers = nearest(sample[None], training, k=2)
    assert int(numbers[0, 0]) == number
    assert float(distances[0, 0]) < 1e-3 < 0.1 < float(distances[0, 1])
    assert float(nearest(sample[None], training, k=1, turns=False)[0]) > 0.1


def test_a_quarter_turn_counts_for_nothing_on_squares():
    training = images(5, 9, 9)
    distances, numbers = nearest(torch.rot90(training, 1, (-2, -1)), training, k=1)
    assert numbers[:, 0].tolist() == [0, 1, 2, 3, 4] and float(distances.max()) < 1e-3


def test_samples_do_not_depend_on_one_another_and_any_iterable_will_do():
    training, samples = images(20, 6, 7), images(5, 6, 7, seed=1)
    together = nearest(samples, training)
    alone = [nearest(sample[None], (image for image in training)) for sample in samples]
    assert torch.allclose(together[0], torch.cat([distances for distances, _ in alone]))
    assert torch.equal(together[1], torch.cat([numbers for _, numbers in alone]))


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="crop them to one size"):
        nearest(images(2, 8, 8), images(9, 8, 9))
    with pytest.raises(InputError, match="there are 3 training images; 5 neighbours"):
        nearest(images(2, 8, 8), images(3, 8, 8))


@pytest.fixture
def found():
    """Three new samples, and one that is a copy."""
    training, held_out = images(30, 9, 9), images(12, 9, 9, seed=1)
    samples = torch.cat([images(3, 9, 9, seed=2), training[17:18].flip(-1)])
    return samples, training, compare(samples, training, held_out, k=2)


def test_ratios_tell_a_copy_from_new_samples_of_the_same_law(found):
    _, _, memorisation = found
    assert float(memorisation.ratios[3]) < 0.01
    assert all(0.8 < ratio < 1.2 for ratio in memorisation.ratios[:3].tolist())
    assert memorisation.suspicious >= 1 and memorisation.numbers[3, 0] == 17


def test_held_out_images_that_were_trained_on_are_refused(found):
    samples, training, _ = found
    with pytest.raises(InputError, match="use images of subjects that the prior was not trained on"):
        compare(samples, training, training[:8].flip(-2))


def test_table_and_figure_show_the_neighbours(found, tmp_path):
    samples, training, memorisation = found
    write_table(tmp_path / "neighbours.csv", memorisation, lambda number: f"training.h5:{number}")
    with open(tmp_path / "neighbours.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and rows[3]["nearest"] == "training.h5:17"
    assert float(rows[0]["ratio"]) == pytest.approx(float(memorisation.ratios[0]), rel=1e-4)
    shown = []

    def image(number):
        shown.append(number)
        return training[number]

    write_figure(tmp_path / "neighbours.png", samples, memorisation, image)
    assert shown[0] == 17 and len(shown) == 8  # the nearest sample first, two neighbours each
    assert (tmp_path / "neighbours.png").read_bytes()[:4] == b"\x89PNG"
