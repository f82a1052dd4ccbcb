from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.calibration import (
    ConformalIntervals,
    ConformalSets,
    Novelty,
    Temperature,
)

NOVELTY = Novelty(
    mean=np.array([1.0, -2.0]),
    whitening=np.diag([0.5, 2.0]),
    reference=np.array([0.0, 1.0, 3.0]),
)


@pytest.mark.parametrize(
    "calibration",
    [
        Temperature(value=1.7, n_participants=40),
        ConformalSets(coverage=0.9, threshold=0.4, n_participants=40),
        ConformalIntervals(coverage=0.8, half_width=7.5, n_participants=40),
    ],
)
def test_reading_gives_back_what_was_written(calibration):
    written = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert type(calibration).from_dict(written) == calibration


def test_novelty_is_kept_as_arrays():
    again = Novelty.from_arrays(load(save(NOVELTY.to_arrays())))
    for name in ("mean", "whitening", "reference"):
        np.testing.assert_allclose(getattr(again, name), getattr(NOVELTY, name))
        assert getattr(again, name).dtype == np.float64


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (Temperature, {"value": 0.0, "n_participants": 3}, "finite number from 0.05 to 20"),
        (Temperature, {"value": float("nan"), "n_participants": 3}, "finite number"),
        (Temperature, {"value": 1.0}, r"missing \['n_participants'\]"),
        (Temperature, {"value": 1.0, "n_participants": True}, "whole number"),
        (Temperature, [1.0], "expected named values"),
        (ConformalSets, {"coverage": 1.0, "threshold": 0.1, "n_participants": 3}, "between 0"),
        (ConformalSets, {"coverage": 0.9, "threshold": 2.0, "n_participants": 3}, "from 0.0 to 1"),
        (
            ConformalIntervals,
            {"coverage": 0.9, "half_width": -1.0, "n_participants": 3},
            "half_width",
        ),
        (
            ConformalIntervals,
            {"coverage": 0.9, "half_width": 1.0, "n_participants": 3, "run": "rm"},
            r"unexpected \['run'\]",
        ),
    ],
)
def test_what_a_stranger_wrote_is_checked(kind, values, words):
    with pytest.raises(DataError, match=words):
        kind.from_dict(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": np.zeros((2, 1), np.float32)}, "found the shapes"),
        ({"mean": np.zeros(3, np.float32)}, "found the shapes"),
        ({"whitening": np.zeros((2, 3), np.float32)}, "found the shapes"),
        ({"mean": np.array([np.inf, 0], np.float32)}, "not finite"),
        ({"reference": np.array([2.0, 1.0], np.float32)}, "do not rise"),
        ({"reference": np.zeros(20_000, np.float32)}, "found the shapes"),
        ({"mean": np.array(["a", "b"])}, "of real numbers"),
        ({"more": np.zeros(1, np.float32)}, "Expected the arrays"),
    ],
)
def test_arrays_that_a_stranger_wrote_are_checked(change, words):
    with pytest.raises(DataError, match=words):
        Novelty.from_arrays({**NOVELTY.to_arrays(), **change})


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_keeps_the_order_of_classes(temperature):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 50)
    applied = Temperature(value=temperature, n_participants=1).apply(probabilities)
    np.testing.assert_allclose(applied.sum(axis=1), 1)
    np.testing.assert_array_equal(applied.argsort(axis=1), probabilities.argsort(axis=1))
    surer = applied.max(axis=1) - probabilities.max(axis=1)
    assert (np.sign(np.round(surer, 12)) == np.sign(1 - temperature)).all()


def test_certainty_has_a_finite_logit():
    applied = Temperature(value=2.0, n_participants=1).apply([[1.0, 0.0]])
    assert np.isfinite(applied).all()
    assert applied[0, 0] > 0.99


def test_a_set_is_never_empty_and_grows_with_the_threshold():
    probabilities = np.array([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05]])
    sets = [
        ConformalSets(coverage=0.9, threshold=threshold, n_participants=1).find_sets(probabilities)
        for threshold in (0.0, 0.7, 1.0)
    ]
    np.testing.assert_array_equal(sets[0], [[True, False, False], [True, False, False]])
    np.testing.assert_array_equal(sets[1], [[True, True, True], [True, False, False]])
    assert sets[2].all()


def test_an_interval_lies_around_the_prediction():
    intervals = ConformalIntervals(coverage=0.9, half_width=2.0, n_participants=1)
    np.testing.assert_allclose(intervals.find_intervals([5.0, 0.0]), [[3, 7], [-2, 2]])


def test_the_distance_is_that_of_mahalanobis_per_feature():
    distances = NOVELTY.measure([[1.0, -2], [3.0, -2], [1.0, -1]])
    np.testing.assert_allclose(distances, [0, 1 / np.sqrt(2), 2 / np.sqrt(2)])
    np.testing.assert_allclose(NOVELTY.rank([0.0, 0.5, 1.0, 2.0, 99.0]), [0, 0.25, 0.5, 0.75, 1])


def test_embeddings_of_another_model_are_refused():
    with pytest.raises(DataError, match="of 2 features, found 3"):
        NOVELTY.measure([[1.0, 2, 3]])
