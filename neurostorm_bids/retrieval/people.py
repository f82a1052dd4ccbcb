"""Re-identification: whose run is this, among the runs of many people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.retrieval.ranks import find_cosines, rank_right, score_ranks
from neurostorm_bids.train.resampling import ONCE, Resampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neurostorm_bids.retrieval.ranks import RetrievalScores

    Floats = NDArray[np.float64]

Apart = Literal["session", "run"]

GALLERY_SIZE = 100
N_DRAWS = 50
_NOT_OF_THE_KIND = re.compile(r"(?:^|_)(?:sub|ses|rec|part|echo|space|res|den|desc)-[^_]+")
"""Entities that do not tell a scan from another of the same person and session."""


class _Runs(NamedTuple):
    """Runs that may be drawn: participant_id, run, row, kind and unit; and what a unit is."""

    table: pd.DataFrame
    apart: Apart


@dataclass(frozen=True, kw_only=True)
class Reidentification:
    """How well one kind of features tells who somebody is.

    Attributes
    ----------
    scores : over all draws; a probe is a person in one draw.
    apart : what gallery and probe of a person differ in.
    draws : draw, participant_id, gallery and probe (row of `runs`), rank.
    """

    scores: RetrievalScores
    apart: Apart
    draws: pd.DataFrame


def reidentify(
    features: Mapping[str, NDArray[np.floating]],
    runs: pd.DataFrame,
    *,
    generator: np.random.Generator,
    apart: Apart | None = None,
    gallery_size: int = GALLERY_SIZE,
    n_draws: int = N_DRAWS,
    resampling: Resampling = ONCE,
) -> dict[str, Reidentification]:
    """Look for every person's run among one run of everybody, with each kind of features.

    In a draw the sessions (or runs) are put in a random order, the same for all people and all
    features. A person's first in this order goes into the gallery, the second is a probe; within a
    session the first of the runs in a random order of their names. Similarity is the cosine after
    every feature was standardised by mean and deviation in the gallery.

    Parameters
    ----------
    features : by name, each (n_runs, n_features): embeddings, and connectivity as baseline.
    runs : n_runs rows with participant_id, session (may be missing) and run, its label.
    generator : of the draws, which do not depend on the order of rows and features.
    apart : gallery and probe come from different sessions, or from different runs. None: sessions
        where two or more people have two, else runs.
    gallery_size : people per draw, where there are more.
    n_draws : how often sessions, runs and people are drawn.
    resampling : of the intervals.

    Raises
    ------
    DataError
        If features are not finite, a run is there twice, or fewer than two people have two
        sessions (or runs).
    UsageError
        If features and runs differ in length.
    """
    chosen = _choose_runs(runs, apart)
    checked = {name: _check_features(name, values, runs) for name, values in features.items()}
    draws = [
        _draw(chosen.table, gallery_size=gallery_size, generator=generator).assign(draw=draw)
        for draw in range(n_draws)
    ]
    return {
        name: _score(values, draws, apart=chosen.apart, resampling=resampling)
        for name, values in checked.items()
    }


def compare_with_gallery(probes: Floats, gallery: Floats) -> Floats:
    """Return cosines (n_probes, n_gallery), features standardised by those of the gallery.

    A feature that is the same for everybody in the gallery counts nothing.
    """
    mean, deviation = gallery.mean(axis=0), gallery.std(axis=0)
    varies = deviation > np.finfo(np.float64).eps * np.abs(mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    return find_cosines((probes - mean) * scale, (gallery - mean) * scale)


def _choose_runs(runs: pd.DataFrame, apart: Apart | None) -> _Runs:
    """Return the runs of people who have two or more units."""
    keys = ["participant_id", "session", "run"]
    if absent := [name for name in keys if name not in runs]:
        raise UsageError(f"Expected columns {', '.join(keys)} in the table of runs; no {absent}.")
    table = runs[keys].astype(object).fillna("").astype(str).reset_index(drop=True)
    if table.duplicated().any():
        twice = table[table.duplicated()].iloc[0].to_dict()
        raise DataError(f"Every run may be there once, but this one is there twice: {twice}.")
    table["row"] = np.arange(len(table))
    table["kind"] = [_NOT_OF_THE_KIND.sub("", label) for label in table["run"]]
    by_session = _keep_repeated(table[table["session"] != ""].assign(unit=table["session"]))
    by_run = _keep_repeated(table.assign(unit=table["session"] + "\n" + table["kind"]))
    if apart is None:
        apart = "session" if len(set(by_session["participant_id"])) > 1 else "run"
    chosen = by_session if apart == "session" else by_run
    n_people = len(set(chosen["participant_id"]))
    if n_people < 2:  # noqa: PLR2004
        raise DataError(
            f"Re-identification needs two or more people with two {apart}s each; found {n_people} "
            f"among {table['participant_id'].nunique()}."
        )
    return _Runs(chosen, apart)


def _keep_repeated(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of people with two or more units."""
    n_units = table.groupby("participant_id")["unit"].transform("nunique")
    return table[n_units > 1]


def _check_features(name: str, values: NDArray[np.floating], runs: pd.DataFrame) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 2 or len(checked) != len(runs):  # noqa: PLR2004
        raise UsageError(
            f"Expected features {name!r} of shape ({len(runs)}, n_features), one row for each run; "
            f"found {checked.shape}."
        )
    if not np.isfinite(checked).all():
        raise DataError(f"Features {name!r} are not finite. Leave out the runs without features.")
    return checked


def _draw(
    table: pd.DataFrame, *, gallery_size: int, generator: np.random.Generator
) -> pd.DataFrame:
    """Draw people, and for each a row for the gallery and one, from another unit, as probe.

    Names are sorted before anything is drawn, so that the order of the rows changes nothing.
    """
    people = np.unique(table["participant_id"])
    if len(people) > gallery_size:
        people = generator.choice(people, size=gallery_size, replace=False)
        table = table[table["participant_id"].isin(people)]
    turns = [_draw_order(table[column], generator=generator) for column in ("kind", "unit")]
    ordered = table.iloc[np.lexsort([table["run"].to_numpy(str), *turns])]
    first = ordered.drop_duplicates(["participant_id", "unit"])  # one run of every unit
    turn = first.groupby("participant_id").cumcount()
    return pd.DataFrame(
        {
            "gallery": first[turn == 0].set_index("participant_id")["row"],
            "probe": first[turn == 1].set_index("participant_id")["row"],
        }
    ).reset_index()


def _draw_order(names: pd.Series[str], *, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the place (n_rows,) that each row's name has in a random order of the names."""
    distinct, index = np.unique(names, return_inverse=True)
    places: NDArray[np.int64] = generator.permutation(len(distinct))[index]
    return places


def _score(
    values: Floats, draws: list[pd.DataFrame], *, apart: Apart, resampling: Resampling
) -> Reidentification:
    """Rank each probe's own run in the gallery of its draw."""
    ranked = [
        draw.assign(
            rank=rank_right(
                compare_with_gallery(values[draw["probe"]], values[draw["gallery"]]),
                np.arange(len(draw)),
            )
        )
        for draw in draws
    ]
    table = pd.concat(ranked, ignore_index=True)
    columns = ["draw", "participant_id", "gallery", "probe", "rank"]
    scores = score_ranks(
        table["rank"], table["participant_id"].tolist(), len(draws[0]), resampling=resampling
    )
    return Reidentification(scores=scores, apart=apart, draws=table[columns])
