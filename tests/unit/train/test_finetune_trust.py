"""Coverage is measured on participants that intervals and sets were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.train.calibrate import RunOutputs
from neurostorm_bids.train.finetune_trust import measure_coverage

N = 1000
PEOPLE = [f"{number:04d}" for number in range(N)]
FOLDS = {label: f"fold-{int(label) % 5}" for label in PEOPLE}


def measure(outputs, truth, *, folds=FOLDS, coverage, people=PEOPLE):
    return measure_coverage(RunOutputs(outputs, truth, people), folds=folds, coverage=coverage)


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_intervals_and_sets_cover_as_often_as_asked_for(coverage):
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=N)
    numbers = measure(predicted[:, None], predicted + rng.normal(size=N), coverage=coverage)
    probabilities = rng.dirichlet(np.ones(3), size=N)
    classes = (rng.random(N)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    sets = measure(probabilities, classes.astype(float), coverage=coverage)
    assert numbers.share == pytest.approx(coverage, abs=0.05)
    assert sets.share > coverage - 0.05  # the most probable class is always in a set
    assert numbers.n_participants == sets.n_participants == N
    assert 0 < sets.n_classes < 3
    assert numbers.n_classes is None


def test_a_fold_that_is_unlike_the_others_is_found_out():
    truth = np.zeros(N)
    predicted = np.where(np.array(list(FOLDS.values())) == "fold-0", 50.0, 0.0)
    held = measure(predicted[:, None], truth, coverage=0.75)
    assert held.share == pytest.approx(0.8)


def test_one_fold_or_too_few_people_tell_nothing():
    truth, outputs = np.zeros(N), np.zeros((N, 1))
    assert measure(outputs, truth, folds=dict.fromkeys(PEOPLE, "a"), coverage=0.9) is None
    assert measure(outputs[:6], truth[:6], people=PEOPLE[:6], coverage=0.9) is None
