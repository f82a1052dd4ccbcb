"""Predictions beside the truth, where the tables of the source dataset hold it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError, UsageError, UserError
from neurostorm_bids.group.classes import match_classes
from neurostorm_bids.inputs.columns import read_column
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.train.scores import average_rows, score_classification, score_regression

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.group.collect import Predictions
    from neurostorm_bids.inputs.columns import Column, Level
    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.train.resampling import Resampling
    from neurostorm_bids.train.scores import Score, Scores

    Floats = NDArray[np.float64]

_MIN_ROWS = 2
_SCALE_FREE = ("pearson", "spearman")


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What is predicted, averaged over runs, and what is true.

    Attributes
    ----------
    predictions : what was averaged.
    level : what the truth belongs to; a row is one of these.
    keys, participants : of the rows.
    predicted : shape (n_rows, C) or (n_rows, 1).
    intervals : calibrated, means of the runs' ends, shape (n_rows, 2); NaN where there are none.
    truth : positions of classes or numbers, shape (n_rows,); NaN where it is not known.
    source : where the truth stands; None if it was not found.
    scores : None where there is too little truth.
    measures : those of the scores that make sense here.
    notes : what is to be known of the truth.
    warnings : what makes the scores doubtful.
    """

    predictions: Predictions
    level: Level
    keys: tuple[str, ...]
    participants: tuple[str, ...]
    predicted: Floats
    intervals: Floats
    truth: Floats
    source: str | None
    scores: Scores | None
    measures: tuple[Score, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def assess_predictions(
    predictions: Predictions,
    *,
    column: str | None,
    roots: Sequence[Path],
    resampling: Resampling,
) -> Assessment:
    """Average predictions over runs, find their truth and score them.

    A row is a participant; where the truth changes from session to session or from run to run, it
    is one of these.

    Parameters
    ----------
    column : with the truth; None for that named as the target, which need not be there.
    roots : folders of the tables.
    resampling : of the intervals.

    Raises
    ------
    UserError
        If a column that was asked for cannot be read.
    """
    target, results = predictions.target, predictions.results
    found, notes, warnings = _find_column(predictions, column, roots)
    owners = [result.participant for result in results]
    row_keys = [f"sub-{owner}" for owner in owners] if found is None else list(found.keys)
    keys, predicted = average_rows(predictions.outputs, row_keys)
    owner_of = dict(zip(row_keys, owners, strict=True))
    participants = tuple(owner_of[key] for key in keys)
    truth = np.full(len(keys), np.nan)
    scores: Scores | None = None
    if found is not None:
        by_row, told, warnings = _encode(found, target)
        warnings = [*found.doubts, *warnings]
        values = dict(zip(row_keys, by_row, strict=True))
        truth = np.array([values[key] for key in keys], dtype=np.float64)
        scores, why = _score(target, truth, predicted, participants, resampling)
        notes += [note for note in found.notes if note not in found.doubts]
        notes += [*told, *_count_reasons(found), *why]
    return Assessment(
        predictions=predictions,
        level="participant" if found is None else found.level,
        keys=keys,
        participants=participants,
        predicted=predicted,
        intervals=average_rows(predictions.intervals, row_keys)[1],
        truth=truth,
        source=None if found is None else f"{found.name} ({found.source})",
        scores=scores,
        measures=_choose_measures(scores, target),
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(warnings),
    )


def _find_column(
    predictions: Predictions, column: str | None, roots: Sequence[Path]
) -> tuple[Column | None, list[str], list[str]]:
    """Read the column with the truth; without one that was asked for, say why there is none.

    That no table has it is a note, and that it cannot be used a warning.
    """
    rows = [result.entities for result in predictions.results]
    name = column or predictions.target.name
    try:
        return read_column(name, rows, roots=roots), [], []
    except UserError as err:
        if column is not None:
            raise
        if isinstance(err, UsageError):
            return None, ["No table of the source has this column."], []
        return None, [], [f"There is no truth for {name}. {err}"]


class _Encoded(NamedTuple):
    """The truth of each row of a column, and what was made of its cells."""

    truth: Floats
    notes: list[str]
    warnings: list[str]


def _encode(column: Column, target: TargetSpec) -> _Encoded:
    """Bring the cells of a column to what is predicted."""
    if target.kind == "classification":
        return _encode_classes(column, target.classes)
    numbers = [None if cell is None else parse_number(cell) for cell in column.cells]
    words = {
        cell
        for cell, number in zip(column.cells, numbers, strict=True)
        if cell is not None and number is None
    }
    notes = [f"No numbers, and left out: {', '.join(sorted(words))}."] if words else []
    if target.mean is None:
        notes.append(
            "Predictions are z-scores, so that only correlations with the truth are given."
        )
    truth = np.array([np.nan if n is None else n for n in numbers], dtype=np.float64)
    return _Encoded(truth, notes, _compare_units(column, target))


def _encode_classes(column: Column, classes: Sequence[str]) -> _Encoded:
    """Find the model's class of every cell, by its own word or by what the sidecar says it means.

    The words of the cells come first; the meanings are asked where these do not match.
    """
    known = Counter(cell for cell in column.cells if cell is not None)
    matched = match_classes(known, classes)
    meanings = {cell: _find_meaning(column, cell) for cell in known if cell not in matched}
    by_meaning = match_classes(set(meanings.values()), classes)
    matched |= {
        cell: by_meaning[meaning] for cell, meaning in meanings.items() if meaning in by_meaning
    }
    renamed = sorted(f"{cell} as {name}" for cell, name in matched.items() if cell != name)
    notes = [f"In {column.source} was read {', '.join(renamed)}."] if renamed else []
    strange = sorted(f"{cell} ({n} run(s))" for cell, n in known.items() if cell not in matched)
    warnings = []
    if strange:
        warnings.append(
            f"{column.name}: no class of the model ({', '.join(classes)}), and left out of the "
            f"scores: {', '.join(strange)}."
        )
    place = {name: float(at) for at, name in enumerate(classes)}
    codes = [place.get(matched.get(cell or "", ""), np.nan) for cell in column.cells]
    return _Encoded(np.array(codes, dtype=np.float64), notes, warnings)


def _find_meaning(column: Column, cell: str) -> str:
    level = column.declaration.find_level(cell)
    return cell if level is None else column.declaration.levels[level] or cell


def _compare_units(column: Column, target: TargetSpec) -> list[str]:
    units = [unit for unit in (column.declaration.unit, target.unit) if unit]
    if target.mean is None or len({unit.casefold().rstrip("s") for unit in units}) < 2:  # noqa: PLR2004
        return []
    told = f"{column.name}: the truth is in {units[0]}, and the prediction in {units[1]}."
    return [f"{told} Errors between the two mean nothing."]


def _count_reasons(column: Column) -> list[str]:
    shared = dict(zip(column.keys, column.reasons, strict=True))
    counts = Counter(reason for reason in shared.values() if reason is not None)
    return [f"{n} {column.level}(s) left out: {reason}." for reason, n in counts.most_common()]


def _score(
    target: TargetSpec,
    truth: Floats,
    predicted: Floats,
    participants: Sequence[str],
    resampling: Resampling,
) -> tuple[Scores | None, list[str]]:
    n_known = int(np.isfinite(truth).sum())
    if n_known < _MIN_ROWS:
        return None, [f"The truth is known of {n_known}: too few to score."]
    try:
        if target.kind == "classification":
            return score_classification(
                truth, predicted, participants, classes=target.classes, resampling=resampling
            ), []
        return score_regression(
            truth, predicted[:, 0], participants, unit=target.unit, resampling=resampling
        ), []
    except DataError as err:
        return None, [str(err)]


def _choose_measures(scores: Scores | None, target: TargetSpec) -> tuple[Score, ...]:
    """Leave out errors between z-scores and the target's own unit: they mean nothing."""
    if scores is None:
        return ()
    if target.kind == "regression" and target.mean is None:
        return tuple(scores[name] for name in _SCALE_FREE)
    return scores.scores
