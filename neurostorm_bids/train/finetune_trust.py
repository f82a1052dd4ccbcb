"""How far single predictions of a fine-tuned model can be trusted, for its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.page.html import format_paragraphs, format_section, format_table
from neurostorm_bids.train.uncertainty import fit_conformal_intervals, fit_conformal_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.page.html import Cell
    from neurostorm_bids.train.finetune_outcome import Finetuning

    Floats = NDArray[np.float64]

_MIN_FOLDS = 2
_FAR = 0.95


class Held(NamedTuple):
    """How often intervals or sets held the truth of participants they were not fitted on.

    ``size`` is the mean width of intervals, or the mean number of classes in a set.
    """

    share: float
    size: float
    n_participants: int


def measure_coverage(
    outputs: Floats,
    truth: Floats,
    participants: Sequence[str],
    *,
    folds: Sequence[str | None],
    coverage: float,
) -> Held | None:
    """Fit intervals or sets on the predictions of all folds but one, and try them on that one.

    Parameters
    ----------
    outputs : probabilities (n, C) or numbers (n, 1), out of fold. Of a participant the first
        example counts.
    truth, participants, folds : of the n examples.
    coverage : asked for.

    Returns
    -------
    None where there is one fold, or there are too few participants for the coverage.
    """
    is_known = np.isfinite(truth) & np.isfinite(outputs).all(axis=1)
    is_known &= np.array([fold is not None for fold in folds])
    rows = np.flatnonzero(is_known)
    _, first = np.unique(np.asarray(participants, dtype=str)[rows], return_index=True)
    rows = rows[first]
    fold = np.array([str(folds[row]) for row in rows.tolist()])
    if len(set(fold)) < _MIN_FOLDS:
        return None
    held = np.empty(len(rows), dtype=bool)
    size = np.empty(len(rows))
    for name in sorted(set(fold)):
        is_out = fold == name
        fitted, tried = rows[~is_out], rows[is_out]
        try:
            if outputs.shape[1] == 1:
                intervals = fit_conformal_intervals(
                    outputs[fitted, 0], truth[fitted], coverage=coverage
                )
                ends = intervals.find_intervals(outputs[tried, 0])  # (n, 2)
                held[is_out] = (ends[:, 0] <= truth[tried]) & (truth[tried] <= ends[:, 1])
                size[is_out] = ends[:, 1] - ends[:, 0]
            else:
                sets = fit_conformal_sets(outputs[fitted], truth[fitted], coverage=coverage)
                is_in = sets.find_sets(outputs[tried])  # (n, C)
                held[is_out] = is_in[np.arange(len(tried)), truth[tried].astype(np.intp)]
                size[is_out] = is_in.sum(axis=1)
        except DataError:
            return None
    return Held(float(held.mean()), float(size.mean()), len(rows))


def show_trust(found: Finetuning) -> str:
    """Return the section on coverage and novelty; empty if the model folder tells neither."""
    calibration = found.model.calibration
    if calibration is None:
        return ""
    parts = []
    if (conformal := calibration.conformal) is not None:
        examples, predictions = found.examples, found.compared[0].predictions
        held = measure_coverage(
            np.asarray(predictions.outputs, dtype=np.float64),
            np.asarray(examples.truth, dtype=np.float64),
            examples.participants,
            folds=predictions.folds,
            coverage=conformal.coverage,
        )
        unit = f" ({examples.target.unit})" if examples.target.unit else ""
        size = "Mean number of classes" if examples.classes else f"Mean width{unit}"
        row: list[Cell] = [conformal.coverage, conformal.n_participants]
        row += [held.share, held.size, held.n_participants] if held else [None, None, None]
        parts.append(
            format_table(
                ["Coverage asked for", "Calibrated on", "Coverage found", size, "Tried on"],
                [row],
                caption="Intervals, or sets of classes, that the model folder gives. Coverage "
                "found: how often those that were fitted on the other folds held the truth; one "
                "prediction of each participant. n/a where there is one fold, or too few people.",
            )
        )
    if (novelty := calibration.novelty) is not None:
        quantiles = np.linspace(0, 1, len(novelty.reference))
        middle, far = np.interp([0.5, _FAR], quantiles, novelty.reference)
        parts.append(
            format_paragraphs(
                f"Novelty, the distance of a run from the training runs: {middle:.3g} for half of "
                f"the training runs and {far:.3g} for {100 * _FAR:g} % of them or less, each from "
                "those of other participants. A new run beyond that is unlike them."
            )
        )
    return format_section("How far single predictions can be trusted", *parts) if parts else ""
