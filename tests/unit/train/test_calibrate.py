"""What a fine-tuned model's folder says of its outputs: what is fitted, and what is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from neurostorm_bids.model.assessment import Calibration
from neurostorm_bids.model.calibration import ConformalIntervals, ConformalSets
from neurostorm_bids.train.calibrate import (
    Embedded,
    RunOutputs,
    calibrate,
    calibrate_outputs,
    draw_runs,
)
from neurostorm_bids.train.uncertainty import fit_conformal_sets

N_PEOPLE = 200
PEOPLE = tuple(f"{number // 2:03d}" for number in range(2 * N_PEOPLE))


def make_target(truth, *, kind="regression", level="run"):
    return SimpleNamespace(level=level, kind=kind, participants=PEOPLE, encode=lambda: truth)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def embedded(rng):
    return Embedded(rng.standard_normal((len(PEOPLE), 4)), PEOPLE)


def fit(target, outputs, embedded, **changes):
    options = {"coverage": 0.8, "seed": 0, "differs_from_folder": False}
    return calibrate(target, outputs, embedded, **(options | changes))


def test_intervals_hold_new_runs_as_often_as_asked(rng, embedded):
    truth = np.repeat(rng.normal(50, 10, N_PEOPLE), 2)
    outputs = truth + rng.normal(0, 3, len(truth))
    calibration, notes = fit(make_target(truth), outputs[:, None], embedded)
    assert isinstance(calibration.conformal, ConformalIntervals)
    assert calibration.conformal.n_participants == N_PEOPLE
    errors = np.abs(rng.normal(0, 3, 20_000))
    assert (errors <= calibration.conformal.half_width).mean() == pytest.approx(0.8, abs=0.06)
    assert calibration.novelty is not None
    assert "80 % of persons like the 200" in " ".join(notes)


def test_classes_get_a_temperature_and_sets(rng, embedded):
    truth = np.repeat(rng.integers(0, 2, N_PEOPLE), 2).astype(float)
    logits = 4 * rng.normal(2 * truth - 1, 2)  # four times as sure as it should be, or more
    first = 1 / (1 + np.exp(logits))
    outputs = np.column_stack([first, 1 - first])
    calibration, _ = fit(make_target(truth, kind="classification"), outputs, embedded)
    assert calibration.temperature.value > 2
    assert isinstance(calibration.conformal, ConformalSets)


def test_sets_hold_the_truth_as_often_as_asked_with_few_people_and_a_temperature(rng):
    n_people, is_held = 19, []
    for _ in range(400):
        truth = rng.integers(0, 4, n_people + 1)
        logits = 5 * (rng.normal(size=(n_people + 1, 4)) + 1.2 * np.eye(4)[truth])
        outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        runs = RunOutputs(outputs[:-1], truth[:-1].astype(float), PEOPLE[:n_people])
        temperature, sets = calibrate_outputs(runs, "classification", coverage=0.8)
        calibration = Calibration(temperature=temperature, conformal=sets)
        is_held.append(calibration.assess(outputs[-1], []).is_in_set[truth[-1]])
    # With 19 people the coverage is 0.8 without rounding; three standard errors are 0.06.
    assert temperature.value > 2
    assert np.mean(is_held) == pytest.approx(0.8, abs=0.06)


def test_sets_do_not_depend_on_the_temperature(rng):
    truth = rng.integers(0, 3, 50).astype(float)
    outputs = rng.dirichlet([1, 1, 1], 50)
    runs = RunOutputs(outputs, truth, PEOPLE[:50])
    _, sets = calibrate_outputs(runs, "classification", coverage=0.8)
    assert sets == fit_conformal_sets(outputs, truth, coverage=0.8)


def test_one_tested_run_of_each_participant_is_drawn():
    outputs = np.arange(len(PEOPLE), dtype=float)[:, None]
    outputs[:10] = np.nan
    truth = np.zeros(len(PEOPLE))
    truth[10] = np.nan
    drawn = draw_runs(RunOutputs(outputs, truth, PEOPLE), seed=0)
    assert drawn.participants == tuple(sorted(set(PEOPLE)))[5:]
    assert drawn.outputs[0, 0] == 11
    assert 0.3 < (drawn.outputs[:, 0] % 2).mean() < 0.7


@pytest.mark.parametrize(
    ("level", "changes", "words"),
    [
        ("clip", {}, "of clips"),
        ("run", {"differs_from_folder": True}, "cannot do so"),
        ("run", {"coverage": 0.999}, "needs 999 participants"),
    ],
)
def test_what_cannot_be_calibrated_is_told(rng, embedded, level, changes, words):
    truth = rng.standard_normal(len(PEOPLE))
    target = make_target(truth, level=level)
    calibration, notes = fit(target, truth[:, None], embedded, **changes)
    assert calibration.conformal is None
    assert calibration.novelty is not None
    assert words in " ".join(notes)


def test_too_few_participants_leave_no_calibration(rng):
    few = Embedded(rng.standard_normal((4, 4)), ("1", "2", "3", "4"))
    outputs = np.full((len(PEOPLE), 1), np.nan)
    outputs[:4] = 0.0
    calibration, notes = fit(make_target(np.zeros(len(PEOPLE))), outputs, few)
    assert calibration is None
    assert len(notes) == 2
