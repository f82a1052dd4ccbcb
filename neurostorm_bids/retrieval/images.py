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
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from neurostorm_bids.retrieval.maps import FitMap, ImageMap

    Floats = NDArray[np.float64]

GALLERY_SIZE = 100
N_DRAWS = 20
N_PARTS = 10
"""Of people, where there are more: each part is tested with one map of the others."""
_RUN_KEYS = ["participant_id", "session", "run"]


@dataclass(frozen=True, kw_only=True)
class ImageRetrieval:
    """How well images are told from responses, and responses from images.

    Attributes
    ----------
    forward : given a response, the image among all images.
    backward : given an image, the response among all responses.
    by_participant : participant_id, direction, n_images, n_candidates and, by its name, every
        score, the ends of its 95 % interval from resampling the participant's images (rank1_low,
        rank1_high), and what it is by chance (rank1_chance).
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

    def list_directions(self) -> list[tuple[str, RetrievalScores]]:
        """Return names of the directions and their scores."""
        return [("forward", self.forward), ("backward", self.backward)]


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
    is_training : (n_trials,) which trials are of training runs; a run is on one side. Or
        (n_folds, n_trials), of which all are gone through, and ranks of all are put together.
    generator : of the images drawn for a participant who saw more than `gallery_size`.
    across : fit on other people; where there are more than 10, on nine tenths of them at a time.
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
    folds = np.atleast_2d(np.asarray(is_training, dtype=bool))
    known = _check_trials(np.asarray(responses, np.float64), trials, images, folds)
    ranks: list[pd.DataFrame] = []
    seen: set[str] = set()
    obstacles: dict[str, str] = {}
    for training in folds:
        maps: dict[bytes, ImageMap] = {}
        for label, is_own, is_other in _list_people(known):
            tested = known.take(is_own & ~training)
            is_fitted = training & (is_other if across else is_own)
            if unseen_only:
                is_fitted &= ~known.table[STIM_FILE].isin(tested.table[STIM_FILE]).to_numpy()
            fitted = known.take(is_fitted)
            if reason := _find_obstacle(fitted, tested):
                obstacles.setdefault(label, reason)
                continue
            center = fitted.vectors.mean(axis=0)
            key = is_fitted.tobytes()  # people of one part may share a map
            if key not in maps:
                maps[key] = fit(fitted.responses, fitted.vectors - center)
            names, similarity = _compare(maps[key](tested.responses), tested, center)
            found = _rank_draws(similarity, names, gallery_size=gallery_size, generator=generator)
            ranks.append(found.assign(participant_id=label))
            seen |= set(names) & set(fitted.table[STIM_FILE])
    if not ranks:
        reasons = "; ".join(f"{label}: {why}" for label, why in list(obstacles.items())[:5])
        raise DataError(f"Nobody's image retrieval can be tested: {reasons}.")
    table = pd.concat(ranks, ignore_index=True)
    done = set(table["participant_id"])
    return ImageRetrieval(
        forward=_score(table, "forward", resampling),
        backward=_score(table, "backward", resampling),
        by_participant=_tabulate(table, resampling),
        n_images=table["image"].nunique(),
        n_seen=len(seen),
        left_out={label: why for label, why in obstacles.items() if label not in done},
    )


def _list_people(known: _Trials) -> list[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return for each participant: the label, which trials are theirs, and which are of others.

    Where there are many, the others are those of the other tenths.
    """
    labels, person = np.unique(known.table["participant_id"].to_numpy(str), return_inverse=True)
    return [
        (label, person == place, person % N_PARTS != place % N_PARTS)
        for place, label in enumerate(labels.tolist())
    ]


def _check_trials(
    responses: Floats, trials: pd.DataFrame, images: pd.DataFrame, folds: NDArray[np.bool_]
) -> _Trials:
    """Check that everything fits together, and that no run is on both sides."""
    if absent := [name for name in (*_RUN_KEYS, STIM_FILE) if name not in trials]:
        raise UsageError(f"Expected columns {', '.join(_RUN_KEYS)} and {STIM_FILE}; no {absent}.")
    if responses.ndim != 2 or {len(responses), folds.shape[1]} != {len(trials)}:  # noqa: PLR2004
        raise UsageError(
            f"Expected {len(trials)} rows of responses, one for each trial, and as many sides; "
            f"found {responses.shape} and {folds.shape[1]}."
        )
    if not np.isfinite(responses).all():
        raise DataError("Responses are not finite. Leave out trials without a response.")
    table = trials[[*_RUN_KEYS, STIM_FILE]].astype(object).fillna("").astype(str)
    for training in folds:
        n_sides = table.assign(side=training).groupby(_RUN_KEYS)["side"].nunique()
        if (n_sides > 1).any():
            raise UsageError(
                "Trials of one run are for training and for testing: "
                f"{n_sides[n_sides > 1].index[0]}. Divide runs, not trials."
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


def _compare(mapped: Floats, tested: _Trials, center: Floats) -> tuple[list[str], Floats]:
    """Return images, and cosines (n_images, n_images) of mapped responses, by image, with them."""
    names, first, image = np.unique(
        tested.table[STIM_FILE].to_numpy(str), return_index=True, return_inverse=True
    )
    summed = np.zeros((len(names), mapped.shape[1]))
    np.add.at(summed, image, mapped)
    return names.tolist(), find_cosines(summed, tested.vectors[first] - center)


def _rank_draws(
    similarity: Floats,
    names: Sequence[str],
    *,
    gallery_size: int,
    generator: np.random.Generator,
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
                "image": [names[place] for place in drawn.tolist()],
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


def _tabulate(table: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    """Return a row of scores for each participant and direction; intervals are over images."""
    rows = []
    for (label, direction), own in table.groupby(["participant_id", "direction"], sort=True):
        rank, count = own["rank"], own["n_candidates"]
        scores = score_ranks(
            rank, own["participant_id"].tolist(), count, resampling=Resampling(n_bootstrap=0)
        )
        by_image = score_ranks(rank, own["image"].tolist(), count, resampling=resampling)
        row = {"participant_id": label, "direction": direction}
        row |= {"n_images": own["image"].nunique(), "n_candidates": scores.n_candidates}
        for score in scores.scores:
            row |= {
                score.name: score.value,
                f"{score.name}_low": by_image[score.name].low,
                f"{score.name}_high": by_image[score.name].high,
                f"{score.name}_chance": score.chance,
            }
        rows.append(row)
    return pd.DataFrame(rows)
