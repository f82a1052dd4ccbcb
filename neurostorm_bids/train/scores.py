"""How good predictions are: measures with bootstrap intervals, chance levels and p-values.

Rows are what was predicted once: participants, sessions, runs or clips. What is resampled and
permuted is participants; the truth is permuted within them where it is a condition of theirs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.metrics import (
    HIGHER_IS_BETTER,
    count_confusions,
    measure_classification,
    measure_regression,
)
from neurostorm_bids.train.resampling import (
    ONCE,
    Resampling,
    allow_rounding,
    bootstrap,
    find_interval,
    measure_dependence,
    permute,
    sort_rows,
    varies_within,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from neurostorm_bids.train.metrics import Measure
    from neurostorm_bids.train.resampling import Rows

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measure.

    Attributes
    ----------
    name : accuracy, balanced_accuracy, auroc, f1, calibration_error; mae, rmse, r2, pearson,
        spearman. See `metrics`.
    value : None where the measure is not defined.
    low, high : ends of the 95 % percentile bootstrap interval over participants; None where the
        measure is not defined for half of the resamples or more. It is that of the models as they
        were fitted: what other training participants would have changed is not in it.
    chance : of the guess that knows only how often each class, or which mean, occurs.
    p_value : of the permutation test, one-sided, allowing for the dependence between folds
        (`resampling.measure_dependence`); None if it was not asked for.
    n_undefined : resamples for which the measure is not defined, such as those without a class.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    p_value: float | None = None
    n_undefined: int = 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All measures of one set of predictions.

    Attributes
    ----------
    kind : classification or regression.
    scores : in a fixed order.
    n_participants, n_rows : that were scored.
    n_left_out : rows without a truth or a prediction.
    resampling : how often participants were resampled and permuted.
    permutes_within : whether the truth was permuted within participants, not between them.
    classes, confusion : for classification, rows counted by true and by predicted class.
    unit : of mae and rmse.
    """

    kind: str
    scores: tuple[Score, ...]
    n_participants: int
    n_rows: int
    n_left_out: int
    resampling: Resampling
    permutes_within: bool = False
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    unit: str | None = None

    def __getitem__(self, name: str) -> Score:
        """Return the score of this name."""
        return next(score for score in self.scores if score.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return asdict(self)


def score_classification(
    truth: ArrayLike,
    probabilities: ArrayLike,
    participants: Sequence[str],
    *,
    classes: Sequence[str],
    folds: Sequence[str] | None = None,
    resampling: Resampling = ONCE,
) -> Scores:
    """Score probabilities of classes.

    Parameters
    ----------
    truth : shape (n,), positions in `classes`; rows with NaN are left out.
    probabilities : shape (n, C); rows with NaN (never tested) are left out.
    participants : label of each row.
    classes : names, in the order of the probabilities.
    folds : name of the fold that each row was tested in; None for one held-out set. The AUROC
        compares rows of one fold only, see `metrics.measure_classification`.
    resampling : the truth is permuted as in `resampling.permute`. Models are not fitted again.

    Raises
    ------
    DataError
        If no row has both a truth and a prediction.
    """
    predicted = np.asarray(probabilities, dtype=np.float64)
    if predicted.ndim != 2 or predicted.shape[1] != len(classes):  # noqa: PLR2004
        raise UsageError(f"Expected {len(classes)} probabilities per row, found {predicted.shape}.")
    rows = sort_rows(truth, (predicted,), participants, folds)
    shares = np.bincount(rows.truth.astype(np.int64), minlength=len(classes)) / len(rows.truth)
    n_occurring = int((shares > 0).sum())
    recall_of_guess = 1 / n_occurring
    largest = float(shares.max())
    chance = {
        "accuracy": largest,
        "balanced_accuracy": recall_of_guess,
        "auroc": 0.5 if n_occurring > 1 else None,
        "f1": recall_of_guess * 2 * largest / (1 + largest),
        "calibration_error": None,
    }
    confusion = count_confusions(rows.truth, rows.predictions[0], len(classes))
    return Scores(
        kind="classification",
        scores=_score(rows, partial(measure_classification, folds=rows.folds), chance, resampling),
        n_participants=rows.n_participants,
        n_rows=len(rows.truth),
        n_left_out=rows.n_left_out,
        resampling=resampling,
        permutes_within=varies_within(rows),
        classes=tuple(classes),
        confusion=tuple(tuple(counts) for counts in confusion.tolist()),
    )


def score_regression(
    truth: ArrayLike,
    predictions: ArrayLike,
    participants: Sequence[str],
    *,
    unit: str | None = None,
    folds: Sequence[str] | None = None,
    resampling: Resampling = ONCE,
) -> Scores:
    """Score predicted numbers.

    Parameters
    ----------
    truth, predictions : shape (n,), in the same unit; rows with NaN are left out.
    unit : for mae and rmse.
    participants, folds, resampling : see `score_classification`.

    Notes
    -----
    Correlations are pooled over folds. A prediction that only follows the training mean then has
    a negative correlation, for that mean is low where the tested participants are high.
    """
    rows = sort_rows(truth, (np.asarray(predictions, dtype=np.float64),), participants, folds)
    deviation = rows.truth - rows.truth.mean()
    chance = {
        "mae": float(np.abs(deviation).mean()),
        "rmse": float(np.sqrt((deviation**2).mean())),
        "r2": 0.0,
        "pearson": 0.0,
        "spearman": 0.0,
    }
    return Scores(
        kind="regression",
        scores=_score(rows, measure_regression, chance, resampling),
        n_participants=rows.n_participants,
        n_rows=len(rows.truth),
        n_left_out=rows.n_left_out,
        resampling=resampling,
        permutes_within=varies_within(rows),
        unit=unit,
    )


def average_rows(
    values: ArrayLike, keys: Sequence[str], *, weights: ArrayLike | None = None
) -> tuple[tuple[str, ...], Floats]:
    """Average the rows of each key: clips of a run, runs of a participant.

    Parameters
    ----------
    values : shape (n, ...); a row with NaN makes its key's mean NaN.
    keys : n of them.
    weights : shape (n,), above 0; None weighs rows alike.

    Returns
    -------
    The different keys, in order of their first row, and their means, shape (n_keys, ...).
    """
    rows = np.asarray(values, dtype=np.float64)
    share = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    names = list(dict.fromkeys(keys))
    position = {name: at for at, name in enumerate(names)}
    owner = np.array([position[key] for key in keys], dtype=np.int64)
    total = np.bincount(owner, weights=share, minlength=len(names))
    flat = rows.reshape(len(rows), -1)
    sums = np.zeros((len(names), flat.shape[1]))
    np.add.at(sums, owner, flat * share[:, None])
    return tuple(names), (sums / total[:, None]).reshape(len(names), *rows.shape[1:])


def _score(
    rows: Rows,
    measure: Measure,
    chance: Mapping[str, float | None],
    resampling: Resampling,
) -> tuple[Score, ...]:
    rng = np.random.default_rng(resampling.seed)
    (predicted,) = rows.predictions
    once = np.ones((1, len(rows.truth)))
    found = {name: float(v[0]) for name, v in measure(rows.truth, predicted, once).items()}
    resampled = bootstrap(
        partial(measure, rows.truth, predicted), rows, resampling.n_bootstrap, rng
    )
    permuted: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(resampling.n_permutations):
        for name, values in measure(permute(rows, rng), predicted, once).items():
            permuted[name].append(float(values[0]))
    dependence = measure_dependence(rows)
    scores = []
    for name, value in found.items():
        low, high = find_interval(resampled[name])
        scores.append(
            Score(
                name=name,
                value=_or_none(value),
                low=low,
                high=high,
                chance=chance[name],
                p_value=_find_p_value(name, value, np.array(permuted[name]), dependence=dependence),
                n_undefined=int(np.isnan(resampled[name]).sum()),
            )
        )
    return tuple(scores)


def _find_p_value(name: str, value: float, permuted: Floats, *, dependence: float) -> float | None:
    """Return the share of permutations at least as good, the observed one counted among them.

    Permuted scores are spread out around their mean by what they do not show of the dependence
    between folds.
    """
    defined = permuted[np.isfinite(permuted)]
    if not np.isfinite(value) or not len(defined) or name == "calibration_error":
        return None
    sign = 1 if HIGHER_IS_BETTER[name] else -1
    spread = defined.mean() + dependence * (defined - defined.mean())
    n_as_good = int((sign * spread >= sign * value - allow_rounding(value)).sum())
    return (1 + n_as_good) / (1 + len(defined))


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
