"""Where the right candidate stands among all, and what follows: Rank-1, Rank-5, mAP, CMC."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.train.resampling import ONCE, Resampling, find_interval
from neurostorm_bids.train.scores import Score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

TIE = 1e-9
"""Similarities, which lie between -1 and 1, that differ by less are equal: rounding decides not."""


@dataclass(frozen=True, kw_only=True)
class RetrievalScores:
    """How often the right candidate is found; every participant counts once.

    Attributes
    ----------
    scores : rank1 and rank5, the share of probes whose right candidate is the first, or among the
        first five; mean_average_precision, which is the mean of 1 / rank, for each probe has one
        right candidate; median_rank, the mean over participants of the median of their probes.
        With bootstrap intervals over participants, for the candidates as they are, and with the
        values that a random order has.
    cmc : share of probes whose right candidate is among the first 1, 2, ... candidates.
    n_participants, n_probes : that were looked for.
    n_candidates : that each probe is compared with, on average.
    resampling : of the intervals.
    """

    scores: tuple[Score, ...]
    cmc: tuple[float, ...]
    n_participants: int
    n_probes: int
    n_candidates: float
    resampling: Resampling

    def __getitem__(self, name: str) -> Score:
        """Return the score of this name."""
        return next(score for score in self.scores if score.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return asdict(self)


def find_cosines(one: Floats, other: Floats) -> Floats:
    """Return the cosine of every row of one (n, d) with every row of the other (m, d): (n, m).

    A row of zeros is similar to nothing.
    """
    cosines: Floats = _normalise(one) @ _normalise(other).T
    return cosines


def rank_right(similarity: ArrayLike, right: ArrayLike) -> NDArray[np.int64]:
    """Return the rank of each probe's right candidate: 1 if it is the most similar.

    A tie counts against it: a method that finds all candidates equal has ranked them last.

    Parameters
    ----------
    similarity : (n_probes, n_candidates), from -1 to 1.
    right : (n_probes,) column of the right candidate.

    Raises
    ------
    DataError
        If a similarity is not finite.
    """
    values = np.asarray(similarity, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("Similarities are not finite. Check the features for NaN and infinity.")
    own = np.take_along_axis(values, np.asarray(right, dtype=np.intp)[:, None], axis=1)
    ranks: NDArray[np.int64] = (values >= own - TIE).sum(axis=1)
    return ranks


def score_ranks(
    ranks: ArrayLike,
    participants: Sequence[str],
    n_candidates: ArrayLike,
    *,
    resampling: Resampling = ONCE,
) -> RetrievalScores:
    """Score the ranks of the right candidates.

    Parameters
    ----------
    ranks : (n_probes,) from 1.
    participants : (n_probes,) whom each probe belongs to.
    n_candidates : of every probe; one number or (n_probes,).
    resampling : of the intervals; retrieval has no permutations.
    """
    rank = np.asarray(ranks, dtype=np.float64)
    count = np.broadcast_to(np.asarray(n_candidates, dtype=np.int64), rank.shape)
    labels, person = np.unique(np.asarray(participants, dtype=str), return_inverse=True)
    measured = {
        "rank1": (_average_within(rank <= 1, person), 1 / count),
        "rank5": (_average_within(rank <= 5, person), np.minimum(5, count) / count),  # noqa: PLR2004
        "mean_average_precision": (
            _average_within(1 / rank, person),
            _find_chance_precision(count),
        ),
        "median_rank": (_find_medians(rank, person), (count + 1) / 2),
    }
    rng = np.random.default_rng(resampling.seed)
    n_people = len(labels)
    drawn = rng.multinomial(n_people, np.full(n_people, 1 / n_people), resampling.n_bootstrap)
    shares = drawn / n_people  # of each participant in each resample: (n_bootstrap, participants)
    scores = []
    for name, (own, chance) in measured.items():
        low, high = find_interval(shares @ own) if n_people > 1 else (None, None)
        expected = float(_average_within(chance, person).mean())
        scores.append(
            Score(name=name, value=float(own.mean()), low=low, high=high, chance=expected)
        )
    return RetrievalScores(
        scores=tuple(scores),
        cmc=_find_cmc(rank, person, int(count.max())),
        n_participants=n_people,
        n_probes=len(rank),
        n_candidates=float(_average_within(count, person).mean()),
        resampling=resampling,
    )


def _normalise(rows: Floats) -> Floats:
    """Give rows length one; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    normalised: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return normalised


def _average_within(values: ArrayLike, person: NDArray[np.intp]) -> Floats:
    """Average (n_probes,) within participants."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.bincount(person, weights=numbers) / np.bincount(person)


def _find_medians(values: Floats, person: NDArray[np.intp]) -> Floats:
    """Return the median of (n_probes,) within participants."""
    order = np.argsort(person, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(person))[:-1])
    return np.array([np.median(part) for part in parts])


def _find_chance_precision(count: NDArray[np.int64]) -> Floats:
    """Return the mean of 1 / rank in a random order of as many candidates."""
    summed = np.cumsum(1 / np.arange(1, int(count.max()) + 1, dtype=np.float64))
    return np.asarray(summed[count - 1] / count, dtype=np.float64)


def _find_cmc(rank: Floats, person: NDArray[np.intp], length: int) -> tuple[float, ...]:
    """Return the share of probes, every participant counting once, found at each rank."""
    weights = 1 / np.bincount(person)[person] / (person.max() + 1)
    at_rank = np.bincount(rank.astype(np.intp), weights=weights, minlength=length + 1)[1:]
    curve: list[float] = np.minimum(1.0, np.cumsum(at_rank)).tolist()
    return tuple(curve)
