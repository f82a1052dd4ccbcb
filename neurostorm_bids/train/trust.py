"""How far predictions for new participants can be trusted, as out-of-fold predictions show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.train.uncertainty import (
    COVERAGE,
    fit_conformal_intervals,
    fit_conformal_sets,
    fit_temperature,
)

if TYPE_CHECKING:
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.examples import Examples


class Trust(NamedTuple):
    """What was learnt of the errors.

    Attributes
    ----------
    values : temperature and conformal sets, or conformal intervals; ready for JSON.
    notes : the same in sentences.
    """

    values: dict[str, Any]
    notes: tuple[str, ...]


def measure_trust(examples: Examples, evaluation: OutOfFold) -> Trust:
    """Calibrate on the participants' own out-of-fold predictions.

    Targets that are not of whole participants are not calibrated: rows of one person do not err
    independently of each other.
    """
    if examples.target.level != "participant":
        return Trust({}, ())
    is_tested = np.isfinite(evaluation.outputs).all(axis=1)
    outputs, truth = evaluation.outputs[is_tested], examples.truth[is_tested]
    try:
        if examples.classes:
            return _trust_classes(outputs, truth)
        return _trust_numbers(outputs[:, 0], truth, unit=examples.target.unit)
    except DataError as err:
        return Trust({}, (f"Predictions could not be calibrated: {err}",))


def _trust_classes(outputs: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> Trust:
    temperature = fit_temperature(outputs, truth)
    sets = fit_conformal_sets(outputs, truth)
    notes = (
        (
            f"Dividing the logits by a temperature of {temperature.value:.3g} makes probabilities "
            f"as sure as they were right ({temperature.n_participants} participants)."
        ),
        (
            f"Classes with a probability of {max(0.0, 1 - sets.threshold):.3g} or more make a set "
            f"that holds the true one for {COVERAGE:.0%} of people like these (conformal)."
        ),
    )
    return Trust({"temperature": temperature.to_dict(), "conformal_sets": sets.to_dict()}, notes)


def _trust_numbers(
    outputs: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], *, unit: str | None
) -> Trust:
    intervals = fit_conformal_intervals(outputs, truth)
    note = (
        f"Intervals of ± {intervals.half_width:.3g}{f' {unit}' if unit else ''} around the "
        f"prediction hold the true value of {COVERAGE:.0%} of people like these (conformal, "
        f"{intervals.n_participants} participants)."
    )
    return Trust({"conformal_intervals": intervals.to_dict()}, (note,))
