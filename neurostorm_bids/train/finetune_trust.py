"""How far single predictions of a fine-tuned model can be trusted, for its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.calibration import ConformalIntervals
from neurostorm_bids.page.html import format_paragraphs, format_section, format_table
from neurostorm_bids.train.calibrate import RunOutputs, draw_runs
from neurostorm_bids.train.uncertainty import fit_conformal_intervals, fit_conformal_sets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neurostorm_bids.model.calibration import ConformalSets
    from neurostorm_bids.page.html import Cell
    from neurostorm_bids.train.finetune_outcome import Finetuning

_MIN_FOLDS = 2
_FAR = 0.95


class Held(NamedTuple):
    """How often intervals or sets held the truth of participants they were not fitted on.

    ``n_classes`` is the mean number of classes in a set; None of intervals.
    """

    share: float
    n_classes: float | None
    n_participants: int


def measure_coverage(runs: RunOutputs, *, folds: Mapping[str, str], coverage: float) -> Held | None:
    """Fit intervals or sets on the predictions of all folds but one, and try them on that one.

    Parameters
    ----------
    runs : out of fold, one of each participant, from `calibrate.draw_runs`.
    folds : name of the fold that tested each participant.
    coverage : asked for.

    Returns
    -------
    None where there is one fold, or there are too few participants for the coverage.
    """
    outputs, truth, participants = runs
    fold = np.array([folds[label] for label in participants])
    if len(set(fold)) < _MIN_FOLDS:
        return None
    held = np.empty(len(fold), dtype=bool)
    n_classes = np.full(len(fold), np.nan)
    for name in sorted(set(fold)):
        tried, fitted = np.flatnonzero(fold == name), np.flatnonzero(fold != name)
        try:
            if outputs.shape[1] == 1:
                intervals = fit_conformal_intervals(
                    outputs[fitted, 0], truth[fitted], coverage=coverage
                )
                ends = intervals.find_intervals(outputs[tried, 0])  # (n, 2)
                held[tried] = (ends[:, 0] <= truth[tried]) & (truth[tried] <= ends[:, 1])
            else:
                sets = fit_conformal_sets(outputs[fitted], truth[fitted], coverage=coverage)
                is_in = sets.find_sets(outputs[tried])  # (n, C)
                held[tried] = is_in[np.arange(len(tried)), truth[tried].astype(np.intp)]
                n_classes[tried] = is_in.sum(axis=1)
        except DataError:
            return None
    mean = float(n_classes.mean())
    return Held(float(held.mean()), mean if np.isfinite(mean) else None, len(fold))


def show_trust(found: Finetuning) -> str:
    """Return the section on coverage and novelty; empty if the model folder tells neither."""
    calibration = found.model.calibration
    if calibration is None:
        return ""
    parts = []
    if calibration.conformal is not None:
        parts.append(_show_coverage(found, calibration.conformal))
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


def _show_coverage(found: Finetuning, conformal: ConformalIntervals | ConformalSets) -> str:
    target, outputs = found.examples.target, found.compared[0].predictions.row_outputs
    held: Held | None = None
    if outputs is not None:
        rows = RunOutputs(outputs, target.encode(), target.participants)
        held = measure_coverage(
            draw_runs(rows, seed=found.options.train.seed),
            folds={label: fold.name for fold in found.splits.folds for label in fold.test},
            coverage=conformal.coverage,
        )
    row: list[Cell] = [conformal.coverage, conformal.n_participants]
    row += [held.share, held.n_participants] if held else [None, None]
    if isinstance(conformal, ConformalIntervals):
        size = f"Width ({target.unit})" if target.unit else "Width"
        row.append(2 * conformal.half_width)
    else:
        size = "Mean number of classes"
        row.append(held.n_classes if held else None)
    return format_table(
        ["Coverage asked for", "Calibrated on", "Coverage found", "Tried on", size],
        [row],
        caption="Intervals, or sets of classes, that the model folder gives for a run. Coverage "
        "found: how often those that were fitted on the other folds held the truth, of the same "
        "runs, one of each participant. n/a where there is one fold, or too few people.",
    )
