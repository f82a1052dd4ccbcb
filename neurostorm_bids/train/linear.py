"""Ridge and logistic regression along a path of penalties, and the choice of one of them.

Weighted least squares, or weighted log loss, plus half the penalty times the squared weights; the
bias is not penalised.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import log_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_ITERATIONS = 10_000
_TOLERANCE = 1e-6
_RELATIVE_ROUNDING = 1e-10
_SMALLEST_LOG_PROBABILITY = -50.0


class LinearFit(NamedTuple):
    """A linear map from features.

    Attributes
    ----------
    weights, bias : shape (D, M) and (M,). M is 1 for numbers and for two classes (the logit of the
        second), else one logit per class.
    has_converged : whether the optimum was reached.
    """

    weights: Floats
    bias: Floats
    has_converged: bool


def fit_numbers(
    features: Floats, target: Floats, row_weights: Floats, penalties: Sequence[float]
) -> list[LinearFit]:
    """Fit ridge regression with each penalty: features (n, D), target and weights (n,)."""
    from sklearn.linear_model import Ridge  # noqa: PLC0415

    if features.shape[1] == 0:
        mean = np.average(target, weights=row_weights)
        return [LinearFit(np.zeros((0, 1)), np.array([mean]), has_converged=True)] * len(penalties)
    fits = []
    for penalty in penalties:
        model = Ridge(alpha=penalty).fit(features, target, sample_weight=row_weights)
        fits.append(
            LinearFit(model.coef_[:, None], np.array([model.intercept_]), has_converged=True)
        )
    return fits


def fit_classes(
    features: Floats, codes: NDArray[np.int64], row_weights: Floats, penalties: Sequence[float]
) -> list[LinearFit]:
    """Fit logistic regression with each penalty, strongest first.

    `codes` (n,) are whole numbers; outputs are in the order of those that occur, two or more.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    if features.shape[1] == 0:
        shares = np.bincount(np.unique(codes, return_inverse=True)[1], weights=row_weights)
        logits = np.log(shares / shares.sum())
        bias = logits[1:] - logits[:1] if len(logits) == 2 else logits  # noqa: PLR2004
        return [LinearFit(np.zeros((0, len(bias))), bias, has_converged=True)] * len(penalties)
    # Each fit starts from the one before, whose penalty is next to its own.
    model = LogisticRegression(tol=_TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True)
    fits = []
    for penalty in penalties:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=1 / penalty).fit(features, codes, sample_weight=row_weights)
        has_converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
        fits.append(LinearFit(model.coef_.T.copy(), model.intercept_.copy(), has_converged))
    return fits


def expand_logits(outputs: Floats) -> Floats:
    """Return one logit per class; a single output speaks for the second of two."""
    if outputs.shape[1] > 1:
        return outputs
    return np.column_stack([np.zeros(len(outputs)), outputs])


def measure_loss(
    fit: LinearFit,
    features: Floats,
    target: Floats,
    row_weights: Floats,
    *,
    seen: NDArray[np.int64] | None,
) -> float:
    """Return the summed squared error, or with `seen` (the classes of the fit) the log loss.

    A class that the fit has not seen has the smallest probability that is told apart.
    """
    outputs = features @ fit.weights + fit.bias
    if seen is None:
        return float(row_weights @ (outputs[:, 0] - target) ** 2)
    logs = np.maximum(log_softmax(expand_logits(outputs), axis=1), _SMALLEST_LOG_PROBABILITY)
    is_class = target[:, None] == seen
    chosen = np.where(
        is_class.any(axis=1), (logs * is_class).sum(axis=1), _SMALLEST_LOG_PROBABILITY
    )
    return float(-(row_weights @ chosen))


def rotate(features: Floats) -> tuple[Floats, Floats]:
    """Return the features in a basis of their own rows, and that basis.

    With more features than rows, a solution with an L2 penalty lies in the span of the rows. In an
    orthonormal basis of it the same problem has at most n features.

    Returns
    -------
    Coordinates (n, R) and basis (D, R), with coordinates @ basis.T equal to the features.
    """
    n_rows, n_features = features.shape
    if n_features <= n_rows:
        return features, np.eye(n_features)
    left, lengths, right = np.linalg.svd(features, full_matrices=False)
    is_in = lengths > _RELATIVE_ROUNDING * lengths.max(initial=0)
    return left[:, is_in] * lengths[is_in], right[is_in].T


def find_scale(features: Floats, row_weights: Floats) -> tuple[Floats, Floats]:
    """Return weighted mean and deviation of each feature, (D,); 1 for those that do not vary."""
    mean = np.average(features, axis=0, weights=row_weights)
    sd = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=row_weights))
    is_constant = sd <= _RELATIVE_ROUNDING * np.abs(features).max(axis=0, initial=0)
    return mean, np.where(is_constant, 1.0, sd)
