"""The numbers of the results: embeddings of each model, predictions of each model and target."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from neurostorm_bids.derivatives.results import read_embedding, read_prediction
from neurostorm_bids.errors import DataError, UserError
from neurostorm_bids.group.find import Note, find_results, group_results
from neurostorm_bids.inputs.names import natural_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.derivatives.results import ModelKey, Result
    from neurostorm_bids.group.options import GroupOptions
    from neurostorm_bids.model.config import TargetSpec

logger = logging.getLogger(__name__)

_AGAIN = "Run the participant level again, with the same options for all."

Values = TypeVar("Values")
Item = TypeVar("Item", bound="Hashable")


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """The runs' embeddings of one model.

    Attributes
    ----------
    model : what made them.
    results : one for each run.
    vectors : shape (n_runs, D).
    """

    model: ModelKey
    results: tuple[Result, ...]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What one model predicts of one target.

    Attributes
    ----------
    model : what made them.
    target : what is predicted.
    results : one for each run.
    outputs : probabilities, shape (n_runs, C), or values, shape (n_runs, 1).
    intervals : calibrated ends of the values, shape (n_runs, 2); NaN where there are none.
    novelties : distances from the training runs, shape (n_runs,); NaN where not known.
    sets : classes in the calibrated set of each run; None where there is none.
    """

    model: ModelKey
    target: TargetSpec
    results: tuple[Result, ...]
    outputs: NDArray[np.float64]
    intervals: NDArray[np.float64]
    novelties: NDArray[np.float64]
    sets: tuple[tuple[str, ...] | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """All that a call reads, in a fixed order, and what it does not.

    Attributes
    ----------
    embeddings, predictions : by model, and by model and target.
    left_out : files that were not chosen.
    problems : files that were chosen and cannot be used.
    """

    embeddings: tuple[Embeddings, ...]
    predictions: tuple[Predictions, ...]
    left_out: tuple[Note, ...]
    problems: tuple[Note, ...]

    @property
    def parts(self) -> list[Embeddings | Predictions]:
        """Embeddings, then predictions."""
        return [*self.embeddings, *self.predictions]

    @cached_property
    def results(self) -> list[Result]:
        """One result for each run and model: the embedding, where there is one."""
        found: dict[tuple[str, ModelKey], Result] = {}
        for part in self.parts:
            for result in part.results:
                found.setdefault((result.run, result.model), result)
        return sorted(found.values(), key=lambda one: (natural_key(one.run), one.model))

    @property
    def participants(self) -> list[str]:
        """Labels of those with a result, without ``sub-``."""
        return list(dict.fromkeys(result.participant for result in self.results))

    @property
    def models(self) -> list[ModelKey]:
        """The models, by name."""
        return sorted({part.model for part in self.parts})


def collect_results(options: GroupOptions) -> Collection:
    """Read the results that the options choose; a damaged file is a problem, and others go on.

    Raises
    ------
    SelectionError
        If the participant level wrote nothing, or the filters leave nothing.
    DataError
        If nothing that was chosen can be read.
    """
    found = find_results(options)
    embeddings, predictions = [], []
    failures: list[tuple[Result, str]] = []
    for group in group_results(found.results):
        if group[0].kind == "embedding":
            embeddings.append(_read_embeddings(group, failures))
        else:
            predictions.append(_read_predictions(group, failures))
    root = options.output_dir
    problems = [
        *found.problems,
        *(Note(one.table.relative_to(root).as_posix(), reason) for one, reason in failures),
    ]
    collection = Collection(
        embeddings=tuple(part for part in embeddings if part is not None),
        predictions=tuple(part for part in predictions if part is not None),
        left_out=tuple(sorted(found.left_out, key=lambda note: natural_key(note.path))),
        problems=tuple(sorted(problems, key=lambda note: natural_key(note.path))),
    )
    if not collection.results:
        path, reason = collection.problems[0]
        raise DataError(
            f"None of {len(problems)} result(s) in {root} can be used. {path}: {reason}"
        )
    return collection


def _read_embeddings(
    results: Sequence[Result], failures: list[tuple[Result, str]]
) -> Embeddings | None:
    found = _read_each(results, read_embedding, failures)
    length = _find_most_common(len(values) for _, values in found)
    alike = [(result, values) for result, values in found if len(values) == length]
    failures += [
        (result, f"It has {len(values)} features, and most of the same model have {length}.")
        for result, values in found
        if len(values) != length
    ]
    if not alike:
        return None
    return Embeddings(
        model=alike[0][0].model,
        results=tuple(result for result, _ in alike),
        vectors=np.stack([values for _, values in alike]),
    )


def _read_predictions(
    results: Sequence[Result], failures: list[tuple[Result, str]]
) -> Predictions | None:
    """Read predictions of a target; other classes or another scale cannot be put together."""
    common = _find_most_common(_spell_target(result) for result in results)
    alike = [result for result in results if _spell_target(result) == common]
    failures += [
        (
            result,
            f"It predicts {_spell_target(result)}, and most runs of the same model {common}. "
            + _AGAIN,
        )
        for result in results
        if _spell_target(result) != common
    ]
    found = _read_each(alike, read_prediction, failures)
    target = alike[0].target
    if not found or target is None:
        return None
    return Predictions(
        model=found[0][0].model,
        target=target,
        results=tuple(result for result, _ in found),
        outputs=np.stack([one.values for _, one in found]),
        intervals=np.stack([one.interval for _, one in found]),
        novelties=np.array([one.novelty for _, one in found]),
        sets=tuple(one.prediction_set for _, one in found),
    )


def _read_each(
    results: Iterable[Result],
    read: Callable[[Result], Values],
    failures: list[tuple[Result, str]],
) -> list[tuple[Result, Values]]:
    """Read the numbers of each result that has them, and note the others."""
    found = []
    for result in results:
        try:
            found.append((result, read(result)))
        except UserError as err:
            failures.append((result, str(err)))
    return found


def _find_most_common(items: Iterable[Item]) -> Item | None:
    counted = Counter(items).most_common(1)
    return counted[0][0] if counted else None


def _spell_target(result: Result) -> str:
    return "" if result.target is None else json.dumps(result.target.to_dict(), sort_keys=True)
