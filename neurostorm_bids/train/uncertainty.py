"""Learning how far a model's outputs can be trusted, from participants it was not fitted on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    ConformalIntervals,
    ConformalSets,
    Novelty,
    Temperature,
)
from neurostorm_bids.train.splits import gather_people, split_k_fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

COVERAGE = 0.9

N_NOVELTY_FOLDS = 5
MIN_NOVELTY_PARTICIPANTS = 10

_N_REFERENCE = 201
_SMALLEST_PROBABILITY = 1e-12
_RELATIVE_ROUNDING = 1e-9


def fit_temperature(probabilities: ArrayLike, truth: ArrayLike) -> Temperature:
    """Find the temperature that gives the true classes the largest likelihood.

    Parameters
    ----------
    probabilities : shape (n, C), one row per participant, of a model that has not seen them.
    truth : shape (n,), positions of the classes. Rows with NaN are left out.
    """
    given, codes = _keep_known(probabilities, truth)
    rows, classes = np.arange(len(given)), codes.astype(np.int64)

    def measure_loss(log_temperature: float) -> float:
        temperature = Temperature(value=math.exp(log_temperature), n_participants=len(given))
        chosen = temperature.apply(given)[rows, classes]
        return float(-np.log(np.maximum(chosen, _SMALLEST_PROBABILITY)).sum())

    ends = (math.log(MIN_TEMPERATURE * (1 + 1e-9)), math.log(MAX_TEMPERATURE * (1 - 1e-9)))
    found = minimize_scalar(measure_loss, bounds=ends, method="bounded")
    return Temperature(value=math.exp(found.x), n_participants=len(given))


def fit_conformal_sets(
    probabilities: ArrayLike, truth: ArrayLike, *, coverage: float = COVERAGE
) -> ConformalSets:
    """Find the threshold with which sets of classes hold the true one often enough.

    Parameters
    ----------
    probabilities : shape (n, C), one row per participant, of a model that has not seen them. The
        coverage is exact for one model and participants held out; out-of-fold predictions of
        several models come close to it.
    truth : shape (n,), positions of the classes. Rows with NaN are left out.
    coverage : asked for, between 0 and 1.

    Raises
    ------
    DataError
        If there are too few participants for the coverage.
    """
    given, codes = _keep_known(probabilities, truth)
    scores = 1 - given[np.arange(len(given)), codes.astype(np.int64)]
    threshold = _find_quantile(scores, coverage)
    return ConformalSets(
        coverage=coverage, threshold=min(max(threshold, 0.0), 1.0), n_participants=len(given)
    )


def fit_conformal_intervals(
    predictions: ArrayLike, truth: ArrayLike, *, coverage: float = COVERAGE
) -> ConformalIntervals:
    """Find the half width with which intervals hold the true number often enough.

    Parameters
    ----------
    predictions, truth : shape (n,), one row per participant, in one unit; see
        `fit_conformal_sets`.
    coverage : asked for, between 0 and 1.
    """
    given, known = _keep_known(predictions, truth)
    half_width = _find_quantile(np.abs(given - known), coverage)
    return ConformalIntervals(coverage=coverage, half_width=half_width, n_participants=len(given))


def fit_novelty(embeddings: ArrayLike, participants: Sequence[str]) -> Novelty:
    """Learn what training embeddings look like.

    The covariance is shrunk after Ledoit and Wolf. The distances that new ones are ranked among
    are those of training participants from a fit without them: the distances within one fit are
    smaller than any new participant's.

    Parameters
    ----------
    embeddings : shape (n, D), of runs, as they will be measured.
    participants : label of each row.

    Raises
    ------
    DataError
        If there are fewer than ten participants, or the embeddings do not vary or are not finite.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    labels = np.asarray(participants, dtype=str)
    n_people = len(set(labels.tolist()))
    if len(labels) != len(rows):
        raise UsageError(
            f"Expected a participant for each of {len(rows)} rows, found {len(labels)}."
        )
    if n_people < MIN_NOVELTY_PARTICIPANTS:
        raise DataError(
            f"Expected embeddings of {MIN_NOVELTY_PARTICIPANTS} participants or more to tell what "
            f"is unlike them, found {n_people}."
        )
    if not np.isfinite(rows).all() or not np.ptp(rows, axis=0).any():
        raise DataError("Expected finite embeddings that vary, found others. Make them again.")
    distances = np.empty(len(rows))
    placeholder = np.array([0.0, 1.0])
    for fold in split_k_fold(gather_people(labels.tolist()), n_folds=N_NOVELTY_FOLDS).folds:
        is_out = np.isin(labels, fold.test)
        mean, whitening = _whiten(rows[~is_out])
        without = Novelty(mean=mean, whitening=whitening, reference=placeholder)
        distances[is_out] = without.measure(rows[is_out])
    mean, whitening = _whiten(rows)
    reference = np.quantile(distances, np.linspace(0, 1, _N_REFERENCE))
    return Novelty(mean=mean, whitening=whitening, reference=reference)


def _whiten(rows: Floats) -> tuple[Floats, Floats]:
    """Return the mean (D,), and the matrix (D, D) that makes the shrunk covariance the unit one."""
    from sklearn.covariance import LedoitWolf  # noqa: PLC0415

    mean, sd = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(sd <= _RELATIVE_ROUNDING * np.abs(rows).max(axis=0), 1.0, sd)
    covariance = LedoitWolf(assume_centered=True).fit((rows - mean) / scale).covariance_
    variances, axes = np.linalg.eigh(covariance)
    smallest = _RELATIVE_ROUNDING * variances.max()
    return mean, axes / np.sqrt(np.maximum(variances, smallest)) / scale[:, None]


def _find_quantile(scores: Floats, coverage: float) -> float:
    """Return the score that a new one exceeds with at most 1 - coverage probability."""
    if not 0 < coverage < 1:
        raise UsageError(f"Expected a coverage between 0 and 1, found {coverage}.")
    # Rounding must not turn (n + 1) * coverage = 90.00000000000001 into rank 91.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    if rank > len(scores):
        needed = math.ceil(round(coverage / (1 - coverage), 9))
        raise DataError(
            f"A coverage of {coverage:g} needs {needed} participants or more to calibrate on, "
            f"found {len(scores)}. Ask for less, or give more participants."
        )
    return float(np.sort(scores)[rank - 1])


def _keep_known(predictions: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    given = np.asarray(predictions, dtype=np.float64)
    known = np.asarray(truth, dtype=np.float64)
    if len(given) != len(known):
        raise UsageError(f"Expected as many predictions as truths: {len(given)}, {len(known)}.")
    is_known = np.isfinite(known) & np.isfinite(given.reshape(len(given), -1)).all(axis=1)
    if not is_known.any():
        raise DataError("No row has both a truth and a prediction: there is nothing to learn.")
    return given[is_known], known[is_known]
