"""Out-of-fold predictions: each participant is predicted by a model that has not seen them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.train.predictor import DEFAULT_FIT, FitOptions, fit_predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.train.cases import Cases
    from neurostorm_bids.train.predictor import Predictor
    from neurostorm_bids.train.splits import Fold, Splits

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Predictions of all rows that were tested.

    Attributes
    ----------
    outputs : probabilities (n, C), or numbers (n, 1); NaN for rows that no fold tests.
    folds : name of the fold that tested each row; empty for the others.
    penalties : that each fold chose, by its name.
    notes : what was found, in sentences.
    row_outputs : those of the rows of the target, (n_rows, M), before runs of one example are
        averaged; None where they are not kept.
    """

    outputs: Floats
    folds: tuple[str, ...]
    penalties: Mapping[str, float]
    notes: tuple[str, ...]
    row_outputs: Floats | None = None


class FoldOutputs(NamedTuple):
    """What the model of one fold says.

    Attributes
    ----------
    outputs : (n, M); those of the rows that the fold tests are taken.
    notes : what was found, in sentences.
    penalty : that was chosen; None where there is none.
    row_outputs : (n_rows, M) of the rows of the target, likewise.
    """

    outputs: Floats
    notes: tuple[str, ...]
    penalty: float | None = None
    row_outputs: Floats | None = None


def gather_folds(
    splits: Splits,
    participants: Sequence[str],
    predict: Callable[[int, Fold], FoldOutputs],
    *,
    n_outputs: int,
    row_participants: Sequence[str] = (),
) -> OutOfFold:
    """Let every fold predict the participants it tests, and gather that.

    Parameters
    ----------
    participants : of the n rows.
    predict : is given the number of a fold and the fold.
    n_outputs : columns of the outputs, M.
    row_participants : of the rows of the target, where `predict` gives `row_outputs`.
    """
    labels, row_labels = (np.asarray(who, dtype=str) for who in (participants, row_participants))
    outputs = np.full((len(labels), n_outputs), np.nan)
    row_outputs = np.full((len(row_labels), n_outputs), np.nan)
    folds = np.full(len(labels), "", dtype=object)
    penalties: dict[str, float] = {}
    notes: list[str] = []
    for number, fold in enumerate(splits.folds):
        found = predict(number, fold)
        is_test = np.isin(labels, fold.test)
        outputs[is_test] = found.outputs[is_test]
        folds[is_test] = fold.name
        if found.row_outputs is not None:
            is_test_row = np.isin(row_labels, fold.test)
            row_outputs[is_test_row] = found.row_outputs[is_test_row]
        if found.penalty is not None:
            penalties[fold.name] = found.penalty
        notes += [f"{fold.name}: {note}" for note in found.notes]
    return OutOfFold(
        outputs=outputs,
        folds=tuple(folds.tolist()),
        penalties=penalties,
        notes=tuple(notes),
        row_outputs=row_outputs if len(row_labels) else None,
    )


def fit_fold(
    cases: Cases,
    number: int,
    fold: Fold,
    *,
    groups: Mapping[str, str | None] | None,
    options: FitOptions,
) -> Predictor:
    """Fit a linear model on those whom a fold trains on, and on those it validates on.

    Raises
    ------
    DataError
        If they have no target, or one class.
    """
    is_train = np.isin(np.asarray(cases.participants, dtype=str), (*fold.train, *fold.validation))
    try:
        return fit_predictor(
            cases.select(is_train),
            groups=groups,
            options=replace(options, seed=options.seed + number),
        )
    except DataError as err:
        raise DataError(f"Fold {fold.name!r} cannot be fitted. {err}") from err


def evaluate_features(
    cases: Cases,
    splits: Splits,
    *,
    groups: Mapping[str, str | None] | None = None,
    options: FitOptions = DEFAULT_FIT,
) -> OutOfFold:
    """Fit a linear model in every fold, and predict the participants it tests.

    Participants set aside for validation train too: a linear model stops by itself.

    Parameters
    ----------
    cases : all rows. Rows without a target are not learnt from; they are predicted.
    splits : of the participants.
    groups : of participants, which stay on one side of the inner folds as well.

    Raises
    ------
    DataError
        If the training participants of a fold have no target, or one class.
    """
    labels = np.asarray(cases.participants, dtype=str)
    n_outputs = max(1, len(cases.classes))

    def predict(number: int, fold: Fold) -> FoldOutputs:
        predictor = fit_fold(cases, number, fold, groups=groups, options=options)
        is_test = np.isin(labels, fold.test)
        predicted = predictor.predict(cases.select(is_test))
        outputs = np.full((len(cases), n_outputs), np.nan)
        outputs[is_test] = predicted.outputs
        return FoldOutputs(outputs, (*predictor.notes, *predicted.notes), predictor.penalty)

    return gather_folds(splits, cases.participants, predict, n_outputs=n_outputs)
