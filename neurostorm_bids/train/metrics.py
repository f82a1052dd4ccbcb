"""Measures of agreement between truth and prediction, for many weightings of the rows at once.

A bootstrap resample is a weighting: each row counts as often as it was drawn. Every measure here
takes weights of shape (B, n) and returns B numbers, equal to what scikit-learn and SciPy give for
the rows repeated that often. It is NaN where the measure is not defined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Measure = Callable[[Floats, Floats, Floats], dict[str, Floats]]

N_CALIBRATION_BINS = 10

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "auroc": True,
    "f1": True,
    "calibration_error": False,
    "mae": False,
    "rmse": False,
    "r2": True,
    "pearson": True,
    "spearman": True,
}

# A deviation this small beside the largest value is rounding: the values are constant.
_RELATIVE_ROUNDING = 1e-12


def measure_classification(
    truth: Floats,
    probabilities: Floats,
    weights: Floats,
    *,
    folds: NDArray[np.int64] | None = None,
) -> dict[str, Floats]:
    """Measure how well probabilities name the classes.

    Parameters
    ----------
    truth : shape (n,), positions of the classes.
    probabilities : shape (n, C).
    weights : shape (B, n), at least 0.
    folds : shape (n,), numbers of the folds that rows were tested in; None for one.

    Returns
    -------
    accuracy
        Share of rows whose most probable class is the true one.
    balanced_accuracy, f1
        Recall, and F1, of each class that occurs in `truth`, averaged with equal weight.
    auroc
        Area under the receiver operating characteristic; for more than two classes, of each class
        against the rest, averaged with equal weight. Only rows of the same fold are compared, so
        that a fold counts by its pairs of two classes: models of different folds are different
        models. Where prevalences differ, whoever is tested on more of a class has learnt from
        fewer, and over pooled rows even a guess of the training shares is worse than 0.5.
    calibration_error
        Expected calibration error of the most probable class, in ten bins of equal width (Naeini,
        Cooper & Hauskrecht 2015). It is biased upwards when rows are few.
    """
    occurring = np.unique(truth.astype(np.int64))
    guess = probabilities.argmax(axis=1)
    is_true = truth[:, None] == occurring  # (n, classes that occur)
    is_guess = guess[:, None] == occurring
    total = weights.sum(axis=1)
    n_true, n_guess = weights @ is_true, weights @ is_guess
    n_hit = weights @ (is_true & is_guess)
    places = np.zeros(len(truth), dtype=np.int64) if folds is None else folds
    areas = [_measure_area(probabilities[:, c], truth == c, weights, places) for c in occurring]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (weights @ (truth == guess)) / total,
            "balanced_accuracy": (n_hit / n_true).mean(axis=1),
            "auroc": np.mean(areas, axis=0),
            "f1": np.where(n_true > 0, 2 * n_hit / (n_true + n_guess), np.nan).mean(axis=1),
            "calibration_error": _measure_calibration(truth, probabilities, weights),
        }


def measure_regression(truth: Floats, predictions: Floats, weights: Floats) -> dict[str, Floats]:
    """Measure how close predictions come to numbers.

    Parameters
    ----------
    truth, predictions : shape (n,), in the same unit.
    weights : shape (B, n), whole numbers from 0.

    Returns
    -------
    mae, rmse
        Mean absolute error and root of the mean squared error, in the unit.
    r2
        Coefficient of determination: 1 - squared error / squared deviation from the mean.
    pearson, spearman
        Correlations. A constant prediction has none.
    """
    error = predictions - truth
    total = weights.sum(axis=1)
    squared = (weights @ error**2) / total
    _, variance = _measure_moments(truth, weights)
    true_ranks, ranks = _rank(truth, weights), _rank(predictions, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "mae": (weights @ np.abs(error)) / total,
            "rmse": np.sqrt(squared),
            "r2": 1 - squared / variance,
            "pearson": _correlate(truth, predictions, weights),
            "spearman": _correlate(true_ranks, ranks, weights),
        }


def count_confusions(truth: Floats, probabilities: Floats, n_classes: int) -> NDArray[np.int64]:
    """Count rows by true class (first axis) and most probable class (second); shape (C, C)."""
    pairs = truth.astype(np.int64) * n_classes + probabilities.argmax(axis=1)
    counts: NDArray[np.int64] = np.bincount(pairs, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def _measure_area(
    scores: Floats,
    is_positive: NDArray[np.bool_],
    weights: Floats,
    folds: NDArray[np.int64],
) -> Floats:
    """Return the share of pairs (positive, negative) of a fold that are in order; ties half."""
    levels = np.unique(scores, return_inverse=True)[1]
    keys = folds * len(scores) + levels
    order = np.argsort(keys, kind="stable")
    different, starts = np.unique(keys[order], return_index=True)
    _, first, fold = np.unique(different // len(scores), return_index=True, return_inverse=True)
    ordered = weights[:, order]
    positive = np.add.reduceat(ordered * is_positive[order], starts, axis=1)
    negative = np.add.reduceat(ordered * ~is_positive[order], starts, axis=1)
    passed = np.cumsum(negative, axis=1)
    before = (passed - negative)[:, first]  # of the folds that come first
    below = passed - negative / 2 - before[:, fold]
    n_positive, n_negative = (np.add.reduceat(one, first, axis=1) for one in (positive, negative))
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = (positive * below).sum(axis=1) / (n_positive * n_negative).sum(axis=1)
    return area


class CalibrationBin(NamedTuple):
    """Predictions about as sure: how many, their mean probability, and the share that came true."""

    n: int
    probability: float
    share_true: float


def bin_calibration(
    truth: Floats | NDArray[np.int64], probabilities: Floats
) -> list[CalibrationBin]:
    """Return the bins of the calibration error that hold any prediction.

    Parameters
    ----------
    truth : shape (n,), positions of classes.
    probabilities : shape (n, C).
    """
    confidence, bins = _bin_confidence(probabilities)
    is_hit = probabilities.argmax(axis=1) == truth
    return [
        CalibrationBin(int(own.sum()), float(confidence[own].mean()), float(is_hit[own].mean()))
        for own in (bins == one for one in np.unique(bins))
    ]


def _bin_confidence(probabilities: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the probability of the predicted class and its bin; two of shape (n,)."""
    confidence: Floats = probabilities.max(axis=1)
    bins = (confidence * N_CALIBRATION_BINS).astype(np.int64)
    return confidence, np.minimum(bins, N_CALIBRATION_BINS - 1)


def _measure_calibration(truth: Floats, probabilities: Floats, weights: Floats) -> Floats:
    confidence, bins = _bin_confidence(probabilities)
    excess = (probabilities.argmax(axis=1) == truth) - confidence
    in_bins = excess[:, None] * (bins[:, None] == np.arange(N_CALIBRATION_BINS))
    error: Floats = np.abs(weights @ in_bins).sum(axis=1) / weights.sum(axis=1)
    return error


def _measure_moments(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance of values (n,) or (B, n); two of shape (B,), 0 variance as NaN."""
    total = weights.sum(axis=1)
    mean = (weights * values).sum(axis=1) / total
    variance = (weights * (values - mean[:, None]) ** 2).sum(axis=1) / total
    is_constant = variance <= (_RELATIVE_ROUNDING * np.abs(values).max(initial=0)) ** 2
    return mean, np.where(is_constant, np.nan, variance)


def _correlate(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Correlate values of shape (n,) or (B, n) under each weighting."""
    (mean_1, variance_1), (mean_2, variance_2) = (
        _measure_moments(first, weights),
        _measure_moments(second, weights),
    )
    products = (first - mean_1[:, None]) * (second - mean_2[:, None])
    covariance = (weights * products).sum(axis=1) / weights.sum(axis=1)
    correlation: Floats = covariance / np.sqrt(variance_1 * variance_2)
    return correlation


def _rank(values: Floats, weights: Floats) -> Floats:
    """Return the rank of each value among the rows repeated by weight, ties averaged; (B, n)."""
    order, starts, groups = _sort_ties(values)
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Floats = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return ranks[:, groups]


def _sort_ties(
    values: Floats,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the order of values, where in it each new value starts, and each one's number."""
    order = np.argsort(values, kind="stable")
    starts, groups = np.unique(values[order], return_index=True)[1], np.empty(len(values), int)
    groups[order] = np.searchsorted(starts, np.arange(len(values)), side="right") - 1
    return order, starts, groups
