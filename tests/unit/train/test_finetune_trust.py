"""Coverage is measured on participants that intervals and sets were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.train.finetune_trust import measure_coverage

N = 1000
PEOPLE = [f"{number:04d}" for number in range(N)]
FOLDS = [f"fold-{number % 5}" for number in range(N)]


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_intervals_and_sets_cover_as_often_as_asked_for(coverage):
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=N)
    numbers = measure_coverage(
        predicted[:, None], predicted + rng.normal(size=N), PEOPLE, folds=FOLDS, coverage=coverage
    )
    probabilities = rng.dirichlet(np.ones(3), size=N)
    classes = (rng.random(N)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    sets = measure_coverage(
        probabilities, classes.astype(float), PEOPLE, folds=FOLDS, coverage=coverage
    )
    assert numbers.share == pytest.approx(coverage, abs=0.05)
    assert sets.share > coverage - 0.05  # the most probable class is always in a set
    assert numbers.n_participants == sets.n_participants == N
    assert 0 < sets.size < 3


def test_a_fold_that_is_unlike_the_others_is_found_out():
    truth = np.zeros(N)
    predicted = np.where(np.array(FOLDS) == "fold-0", 50.0, 0.0)
    held = measure_coverage(predicted[:, None], truth, PEOPLE, folds=FOLDS, coverage=0.75)
    assert held.share == pytest.approx(0.8)


def test_one_fold_or_too_few_people_tell_nothing():
    truth, outputs = np.zeros(N), np.zeros((N, 1))
    assert measure_coverage(outputs, truth, PEOPLE, folds=["a"] * N, coverage=0.9) is None
    few = slice(0, 6)
    found = measure_coverage(outputs[few], truth[few], PEOPLE[few], folds=FOLDS[few], coverage=0.9)
    assert found is None
