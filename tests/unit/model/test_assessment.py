"""What a calibration says of a run, what it goes with, and what is refused as one."""

from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.assessment import Calibration
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
SETS = ConformalSets(coverage=0.9, threshold=0.7, n_participants=40)
INTERVALS = ConformalIntervals(coverage=0.9, half_width=5.0, n_participants=40)


def test_sets_are_made_of_probabilities_as_the_model_gives_them():
    calibration = Calibration(
        temperature=Temperature(value=3.0, n_participants=40), conformal=SETS, novelty=NOVELTY
    )
    output = np.array([0.9, 0.1], dtype="f4")
    assert calibration.sharpen(output)[0] == pytest.approx(0.6753, abs=1e-4)
    found = calibration.assess(output, [1.0, -0.5])
    assert found.is_in_set == (True, False), "0.32, with the temperature taken out, would be in"
    assert (found.coverage, found.temperature, found.interval) == (0.9, 3.0, None)
    assert found.novelty == pytest.approx(3 / np.sqrt(2))
    assert found.novelty_rank == pytest.approx(0.5 + 0.5 * (found.novelty - 1) / 2)


def test_an_interval_lies_around_the_output():
    found = Calibration(conformal=INTERVALS).assess(np.array([40.0], dtype="f4"), [1.0, 2.0])
    assert found.interval == (35.0, 45.0)
    assert found.novelty is None


def test_a_calibration_of_another_target_keeps_the_novelty_alone():
    kept = Calibration(conformal=INTERVALS, novelty=NOVELTY).keep_novelty()
    assert kept.conformal is None
    assert kept.novelty is NOVELTY
    assert Calibration(conformal=INTERVALS).keep_novelty() is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"more": 1}, "as calibration"),
        ({"novelty": 2}, "not those that are named"),
        ({"novelty": True}, "2 to 10000 quantiles"),
        ({"novelty": 10**9}, "2 to 10000 quantiles"),
        ({"intervals": INTERVALS.to_dict()}, "found both"),
        ({"sets": {}}, "missing"),
        ({"temperature": 1.0}, "named values"),
    ],
)
def test_a_damaged_calibration_is_refused(changes, words):
    values = Calibration(conformal=SETS).to_dict()
    with pytest.raises(DataError, match=words):
        Calibration.from_dict(values | changes, novelty=None)


@pytest.mark.parametrize(
    ("calibration", "kind"),
    [
        (Calibration(conformal=INTERVALS), "classification"),
        (Calibration(conformal=SETS), "regression"),
        (Calibration(temperature=Temperature(value=1.0, n_participants=3)), None),
        (Calibration(novelty=NOVELTY), "regression"),
    ],
)
def test_a_calibration_goes_with_its_target_and_its_features(calibration, kind):
    with pytest.raises(DataError, match=r"not one of a target|features of training"):
        calibration.check(kind=kind, n_features=3)
