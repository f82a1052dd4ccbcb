"""Image retrieval: which image was seen, and which response an image evoked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.retrieval.maps import fit_ridge_map
from neurostorm_bids.retrieval.ranks import RetrievalScores, find_cosines, rank_right, score_ranks
from neurostorm_bids.retrieval.stimuli import STIM_FILE
from neurostorm_bids.train.resampling import ONCE, Resampling

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from neurostorm_bids.retrieval.maps import FitMap

    Floats = NDArray[np.float64]

GALLERY_SIZE = 100
N_DRAWS = 20
_RUN_KEYS = ["participant_id", "session", "run"]


@dataclass(frozen=True, kw_only=True)
class ImageRetrieval:
    """How well images are told from responses, and responses from images.

    Attributes
    ----------
    forward : given a response, the image among all images.
    backward : given an image, the response among all responses.
    by_participant : participant_id, direction, n_candidates and, by its name, every score and what
        it is by chance (chance_rank1 and so on).
    n_images : different images of all test responses.
    n_seen : how many of them somebody's map was fitted on too.
    left_out : participants who could not be tested, with the reason.
    """

    forward: RetrievalScores
    backward: RetrievalScores
    by_participant: pd.DataFrame
    n_images: int
    n_seen: int
    left_out: dict[str, str]


class _Trials(NamedTuple):
    """Responses, and what evoked them.

    Attributes
    ----------
    table : n_trials rows with participant_id and stim_file.
    responses, vectors : (n_trials, n_features) and (n_trials, n_dimensions).
    """

    table: pd.DataFrame
    responses: Floats
    vectors: Floats

    def take(self, which: NDArray[np.bool_]) -> _Trials:
        """Return some of the trials."""
        return _Trials(self.table[which], self.responses[which], self.vectors[which])


def retrieve_images(
    responses: NDArray[np.floating],
    trials: pd.DataFrame,
    images: pd.DataFrame,
    *,
    is_training: ArrayLike,
    generator: np.random.Generator,
    across: bool = False,
    unseen_only: bool = False,
    fit: FitMap = fit_ridge_map,
    gallery_size: int = GALLERY_SIZE,
    resampling: Resampling = ONCE,
) -> ImageRetrieval:
    """Map responses to image embeddings, and look for the right one among the test images.

    The map for a participant is fitted on the participant's own training runs, or, `across`, on the
    training runs of all others. Test responses to one image are averaged after the map. Similarity
    is the cosine of vectors centred on the mean image of training.

    Parameters
    ----------
    responses : (n_trials, n_features), such as the embeddings of clips.
    trials : n_trials rows with participant_id, session (may be missing), run and stim_file.
    images : indexed by stim_file, one embedding each; see `read_image_embeddings`.
    is_training : (n_trials,) which trials are of training runs; a run is on one side.
    generator : of the images drawn for a participant who saw more than `gallery_size`.
    across : fit on other people.
    unseen_only : leave training trials out whose image the participant is tested on.
    fit : makes the map: `fit_ridge_map` or `fit_contrastive_map`.
    gallery_size : candidates per draw, where there are more; 20 draws.
    resampling : of the intervals.

    Raises
    ------
    UsageError
        If lengths differ, a column is absent, or a run is on both sides.
    DataError
        If responses are not finite, an image has no embedding, or nobody can be tested.
    """
    training = np.asarray(is_training, dtype=bool)
    known = _check_trials(np.asarray(responses, np.float64), trials, images, training)
    person = known.table["participant_id"].to_numpy()
    ranks: list[pd.DataFrame] = []
    tested_images: set[str] = set()
    seen: set[str] = set()
    left_out: dict[str, str] = {}
    for label in np.unique(person):
        is_own = person == label
        tested = known.take(is_own & ~training)
        is_fitted = training & (~is_own if across else is_own)
        if unseen_only:
            is_fitted &= ~known.table[STIM_FILE].isin(tested.table[STIM_FILE]).to_numpy()
        fitted = known.take(is_fitted)
        if reason := _find_obstacle(fitted, tested):
            left_out[label] = reason
            continue
        similarity = _compare(fitted, tested, fit)
        found = _rank_draws(similarity, gallery_size=gallery_size, generator=generator)
        ranks.append(found.assign(participant_id=label))
        tested_images |= set(tested.table[STIM_FILE])
        seen |= set(tested.table[STIM_FILE]) & set(fitted.table[STIM_FILE])
    if not ranks:
        raise DataError(f"Nobody's image retrieval can be tested: {left_out}.")
    table = pd.concat(ranks, ignore_index=True)
    return ImageRetrieval(
        forward=_score(table, "forward", resampling),
        backward=_score(table, "backward", resampling),
        by_participant=_tabulate(table),
        n_images=len(tested_images),
        n_seen=len(seen),
        left_out=left_out,
    )


def _check_trials(
    responses: Floats, trials: pd.DataFrame, images: pd.DataFrame, training: NDArray[np.bool_]
) -> _Trials:
    """Check that everything fits together, and that no run is on both sides."""
    if absent := [name for name in (*_RUN_KEYS, STIM_FILE) if name not in trials]:
        raise UsageError(f"Expected columns {', '.join(_RUN_KEYS)} and {STIM_FILE}; no {absent}.")
    if responses.ndim != 2 or {len(responses), len(training)} != {len(trials)}:  # noqa: PLR2004
        raise UsageError(
            f"Expected {len(trials)} rows of responses, one for each trial, and as many sides; "
            f"found {responses.shape} and {len(training)}."
        )
    if not np.isfinite(responses).all():
        raise DataError("Responses are not finite. Leave out trials without a response.")
    table = trials[[*_RUN_KEYS, STIM_FILE]].astype(object).fillna("").astype(str)
    n_sides = table.assign(side=training).groupby(_RUN_KEYS)["side"].nunique()
    if (n_sides > 1).any():
        raise UsageError(
            f"Trials of one run are for training and for testing: {n_sides[n_sides > 1].index[0]}. "
            "Divide runs, not trials."
        )
    if unknown := sorted(set(table[STIM_FILE]) - set(images.index)):
        raise DataError(
            f"{len(unknown)} image(s) have no embedding: {', '.join(unknown[:5])}. "
            "Add them, or leave out their trials."
        )
    vectors = images.loc[table[STIM_FILE]].to_numpy(np.float64)
    return _Trials(table.reset_index(drop=True), responses, vectors)


def _find_obstacle(fitted: _Trials, tested: _Trials) -> str | None:
    """Say why a participant cannot be tested; None where it can."""
    for trials, side in ((fitted, "training"), (tested, "test")):
        n_images = trials.table[STIM_FILE].nunique()
        if n_images < 2:  # noqa: PLR2004
            return f"{n_images} image(s) in {side} runs"
    return None


def _compare(fitted: _Trials, tested: _Trials, fit: FitMap) -> Floats:
    """Return cosines (n_images, n_images) of mapped responses, by image, with the images."""
    center = fitted.vectors.mean(axis=0)
    predict = fit(fitted.responses, fitted.vectors - center)
    names, first, image = np.unique(
        tested.table[STIM_FILE].to_numpy(str), return_index=True, return_inverse=True
    )
    mapped = np.zeros((len(names), fitted.vectors.shape[1]))
    np.add.at(mapped, image, predict(tested.responses))
    return find_cosines(mapped, tested.vectors[first] - center)


def _rank_draws(
    similarity: Floats, *, gallery_size: int, generator: np.random.Generator
) -> pd.DataFrame:
    """Rank the right candidates in both directions, among all or among some drawn."""
    n_images = len(similarity)
    draws = [np.arange(n_images)]
    if n_images > gallery_size:
        draws = [
            generator.choice(n_images, size=gallery_size, replace=False) for _ in range(N_DRAWS)
        ]
    tables = [
        pd.DataFrame(
            {
                "direction": direction,
                "rank": rank_right(values[np.ix_(drawn, drawn)], np.arange(len(drawn))),
                "n_candidates": len(drawn),
            }
        )
        for drawn in draws
        for direction, values in (("forward", similarity), ("backward", similarity.T))
    ]
    return pd.concat(tables, ignore_index=True)


def _score(table: pd.DataFrame, direction: str, resampling: Resampling) -> RetrievalScores:
    rows = table[table["direction"] == direction]
    return score_ranks(
        rows["rank"], rows["participant_id"].tolist(), rows["n_candidates"], resampling=resampling
    )


def _tabulate(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row of scores for each participant and direction."""
    rows = []
    for (label, direction), own in table.groupby(["participant_id", "direction"], sort=True):
        scores = score_ranks(
            own["rank"],
            own["participant_id"].tolist(),
            own["n_candidates"],
            resampling=Resampling(n_bootstrap=0),
        )
        row = {"participant_id": label, "direction": direction}
        row |= {"n_candidates": scores.n_candidates}
        row |= {score.name: score.value for score in scores.scores}
        row |= {f"chance_{score.name}": score.chance for score in scores.scores}
        rows.append(row)
    return pd.DataFrame(rows)
