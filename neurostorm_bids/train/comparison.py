"""Two sets of predictions of the same participants, compared measure by measure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.train.metrics import (
    HIGHER_IS_BETTER,
    measure_classification,
    measure_regression,
)
from neurostorm_bids.train.resampling import (
    EXCHANGED,
    Resampling,
    allow_rounding,
    bootstrap,
    find_interval,
    measure_dependence,
    sort_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from neurostorm_bids.train.metrics import Measure

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A measure of one set of predictions minus that of another, of the same participants.

    Attributes
    ----------
    name : of the measure.
    value, low, high : difference and its 95 % bootstrap interval, allowing for the dependence
        between folds (`resampling.measure_dependence`); None where not defined.
    is_better : whether the first set is the better one; None where it cannot be said.
    p_value : two-sided, of exchanging the two predictions within participants at random, with the
        same allowance.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    is_better: bool | None
    p_value: float | None


def compare_predictions(
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    participants: Sequence[str],
    *,
    folds: Sequence[str] | None,
    resampling: Resampling = EXCHANGED,
) -> tuple[Difference, ...]:
    """Compare two sets of predictions of the same rows, participant by participant.

    Parameters
    ----------
    truth : shape (n,), positions of classes or numbers; rows with NaN are left out.
    first, second : probabilities of shape (n, C), or numbers of shape (n,).
    participants : label of each row.
    folds : name of the fold that each row was tested in; None for one held-out set.
    resampling : permuting is exchanging the two predictions of a participant.

    Raises
    ------
    DataError
        If no row has a truth and both predictions.
    """
    both = (np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    rows = sort_rows(truth, both, participants, folds)
    one, two = rows.predictions
    measure: Measure = (
        partial(measure_classification, folds=rows.folds) if one.ndim > 1 else measure_regression
    )

    def subtract(one: Floats, two: Floats, weights: Floats) -> dict[str, Floats]:
        other = measure(rows.truth, two, weights)
        return {name: v - other[name] for name, v in measure(rows.truth, one, weights).items()}

    rng = np.random.default_rng(resampling.seed)
    once = np.ones((1, len(rows.truth)))
    found = subtract(one, two, once)
    resampled = bootstrap(partial(subtract, one, two), rows, resampling.n_bootstrap, rng)
    exchanged: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(resampling.n_permutations):
        is_kept = rng.integers(2, size=rows.n_participants, dtype=bool)[rows.participants]
        is_kept = is_kept.reshape(-1, *[1] * (one.ndim - 1))
        mixed = np.where(is_kept, one, two), np.where(is_kept, two, one)
        for name, value in subtract(*mixed, once).items():
            exchanged[name].append(float(value[0]))
    dependence = measure_dependence(rows)
    return tuple(
        _make_difference(
            name,
            float(value[0]),
            dependence * (resampled[name] - value[0]) + value[0],
            dependence * np.array(exchanged[name]),
        )
        for name, value in found.items()
    )


def _make_difference(name: str, value: float, resampled: Floats, exchanged: Floats) -> Difference:
    low, high = find_interval(resampled)
    if not np.isfinite(value):
        return Difference(name=name, value=None, low=low, high=high, is_better=None, p_value=None)
    defined = exchanged[np.isfinite(exchanged)]
    n_as_far = int((np.abs(defined) >= abs(value) - allow_rounding(value)).sum())
    return Difference(
        name=name,
        value=value,
        low=low,
        high=high,
        is_better=None if value == 0 else (value > 0) == HIGHER_IS_BETTER[name],
        p_value=(1 + n_as_far) / (1 + len(defined)) if len(defined) else None,
    )
