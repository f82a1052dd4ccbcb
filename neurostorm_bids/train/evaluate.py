"""Out-of-fold predictions: each participant is predicted by a model that has not seen them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.train.predictor import DEFAULT_FIT, FitOptions, fit_predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neurostorm_bids.train.cases import Cases
    from neurostorm_bids.train.splits import Splits

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
    outputs = np.full((len(cases), max(1, len(cases.classes))), np.nan)
    folds = np.full(len(cases), "", dtype=object)
    penalties: dict[str, float] = {}
    notes: list[str] = []
    for number, fold in enumerate(splits.folds):
        is_train = np.isin(labels, (*fold.train, *fold.validation))
        is_test = np.isin(labels, fold.test)
        try:
            predictor = fit_predictor(
                cases.select(is_train),
                groups=groups,
                options=replace(options, seed=options.seed + number),
            )
        except DataError as err:
            raise DataError(f"Fold {fold.name!r} cannot be fitted. {err}") from err
        predicted = predictor.predict(cases.select(is_test))
        outputs[is_test] = predicted.outputs
        folds[is_test] = fold.name
        penalties[fold.name] = predictor.penalty
        notes += [f"{fold.name}: {note}" for note in (*predictor.notes, *predicted.notes)]
    return OutOfFold(
        outputs=outputs, folds=tuple(folds.tolist()), penalties=penalties, notes=tuple(notes)
    )
