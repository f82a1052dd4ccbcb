"""Resampling and permuting participants, whatever is predicted for each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

COVERAGE = 0.95
"""Of bootstrap intervals."""

_MAX_WEIGHTS_AT_ONCE = 2_000_000
_MIN_DEFINED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals and p-values are drawn.

    Attributes
    ----------
    n_bootstrap : resamples of participants for the intervals.
    n_permutations : for p-values; 0 for none.
    seed : of all that is drawn.
    """

    n_bootstrap: int = 2000
    n_permutations: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_bootstrap, self.n_permutations, self.seed) < 0:
            raise UsageError(f"Expected numbers from 0 for resampling, found {self}.")


ONCE = Resampling()
"""Intervals without p-values."""

EXCHANGED = Resampling(n_permutations=1000)
"""Intervals and p-values."""


class Rows(NamedTuple):
    """What is scored, in an order that does not depend on the order of the input.

    Attributes
    ----------
    truth : shape (n,).
    predictions : one or more, each of shape (n, ...).
    participants, folds : shape (n,), numbered from 0.
    n_left_out : rows without a truth or a prediction.
    """

    truth: Floats
    predictions: tuple[Floats, ...]
    participants: NDArray[np.int64]
    folds: NDArray[np.int64]
    n_left_out: int

    @property
    def n_participants(self) -> int:
        """How many participants there are."""
        return int(self.participants.max()) + 1


def sort_rows(
    truth: ArrayLike,
    predictions: tuple[Floats, ...],
    participants: Sequence[str],
    folds: Sequence[str] | None,
) -> Rows:
    """Leave out rows with NaN, and sort the others by participant, then by their values.

    Raises
    ------
    UsageError
        If the lengths differ.
    DataError
        If no row is left.
    """
    true = np.asarray(truth, dtype=np.float64)
    lengths = {len(true), len(participants), *map(len, predictions)}
    if folds is not None:
        lengths.add(len(folds))
    if len(lengths) > 1:
        raise UsageError(f"Expected as many participants as truths and predictions: {lengths}.")
    is_known = np.isfinite(true)
    for predicted in predictions:
        is_known &= np.isfinite(predicted.reshape(len(true), -1)).all(axis=1)
    if not is_known.any():
        raise DataError("No row has both a truth and a prediction: there is nothing to score.")
    labels = np.asarray(participants, dtype=str)[is_known]
    names = np.asarray(folds if folds is not None else [""] * len(true), dtype=str)[is_known]
    kept = [predicted[is_known] for predicted in predictions]
    columns = [column.reshape(len(labels), -1).T for column in kept]
    order = np.lexsort([*(key for column in columns for key in column), true[is_known], labels])
    return Rows(
        truth=true[is_known][order],
        predictions=tuple(predicted[order] for predicted in kept),
        participants=np.unique(labels[order], return_inverse=True)[1],
        folds=np.unique(names[order], return_inverse=True)[1],
        n_left_out=int((~is_known).sum()),
    )


def bootstrap(
    measure: Callable[[Floats], dict[str, Floats]],
    rows: Rows,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Measure under resamples of participants; each of shape (n_bootstrap,)."""
    n_people = rows.n_participants
    step = max(1, _MAX_WEIGHTS_AT_ONCE // len(rows.truth))
    parts = []
    for start in range(0, n_bootstrap, step):
        size = min(step, n_bootstrap - start)
        drawn = rng.multinomial(n_people, np.full(n_people, 1 / n_people), size=size)
        parts.append(measure(drawn[:, rows.participants].astype(np.float64)))
    names = parts[0] if parts else measure(np.ones((1, len(rows.truth))))
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0)
        for name in names
    }


def varies_within(rows: Rows) -> bool:
    """Return whether the truth varies more within participants than between those to exchange.

    So do a task or a condition, of which everybody has each; a diagnosis or an age does not, though
    it may change from session to session.
    """
    sizes = np.bincount(rows.participants)
    kinds = np.stack([rows.folds, sizes[rows.participants]])
    alike = np.unique(kinds, axis=1, return_inverse=True)[1].ravel()
    own = (np.bincount(rows.participants, weights=rows.truth) / sizes)[rows.participants]
    shared = (np.bincount(alike, weights=rows.truth) / np.bincount(alike))[alike]
    within, between = ((rows.truth - own) ** 2).sum(), ((own - shared) ** 2).sum()
    return bool(within > between)


def permute(rows: Rows, rng: np.random.Generator) -> Floats:
    """Return the truth permuted between participants, or within them where it `varies_within`.

    Between participants, all truths of one go to another of the same fold with as many rows, the
    lowest to the row that had the lowest.
    """
    if varies_within(rows):
        order = np.lexsort([rng.random(len(rows.truth)), rows.participants])
        return rows.truth[order]  # rows stand in order of participants
    people, first, sizes = np.unique(rows.participants, return_index=True, return_counts=True)
    folds = rows.folds[first]
    giver = np.empty_like(people)
    giver[np.lexsort([people, sizes, folds])] = np.lexsort([rng.random(len(people)), sizes, folds])
    place = np.arange(len(rows.truth)) - first[rows.participants]
    return rows.truth[first[giver][rows.participants] + place]


def measure_dependence(rows: Rows) -> float:
    """Return by how much folds spread a score beyond what permuting and resampling show.

    Models of different folds learn from mostly the same participants, and each learns from those
    whom the others are tested on. The deviation of a score over k folds is larger by the root of
    1 + k * tested / trained (Nadeau & Bengio, Machine Learning 2003, 52:239-281): 1.5 for five
    folds, 1 for one held-out set.
    """
    people = np.unique(rows.participants, return_index=True)[1]
    tested = np.bincount(rows.folds[people])
    if len(tested) == 1:
        return 1.0
    return math.sqrt(1 + float((tested / (len(people) - tested)).sum()))


def find_interval(values: Floats) -> tuple[float | None, float | None]:
    """Return the ends of the percentile interval; None if half of the values are undefined."""
    defined = values[np.isfinite(values)]
    if len(defined) <= _MIN_DEFINED_SHARE * len(values) or not len(defined):
        return None, None
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def allow_rounding(value: float) -> float:
    """Return what sums of the same numbers in another order may differ by."""
    return 1e-12 * max(1.0, abs(value))
