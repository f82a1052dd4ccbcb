"""Sections of the report on what is predicted, beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.group.chart_parts import tell_thinning
from neurostorm_bids.group.charts import (
    chart_classification,
    chart_probabilities,
    chart_values,
)
from neurostorm_bids.group.pictures import draw_classes, draw_values
from neurostorm_bids.page.html import (
    format_chart,
    format_paragraphs,
    format_section,
    format_table,
)
from neurostorm_bids.page.words import count
from neurostorm_bids.train.finetune_pictures import draw_classification
from neurostorm_bids.train.metrics import bin_calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.group.truth import Assessment
    from neurostorm_bids.page.html import Cell
    from neurostorm_bids.train.scores import Score

_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "f1": "F1",
    "calibration_error": "Calibration error",
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "mean_average_precision": "Mean average precision",
    "median_rank": "Median rank",
}


def show_assessment(group: Group, one: Assessment) -> str:
    """Return the section of what one model predicts of one target."""
    target, model = one.predictions.target, one.predictions.model
    is_known = np.isfinite(one.truth)
    facts = f"{count(len(one.keys), one.level)}, {count(len(one.predictions.results), 'run')}."
    if one.source is not None:
        facts += f" Truth: {one.source}, known of {int(is_known.sum())}."
    parts = [format_paragraphs(facts, *map(group.conceal, one.notes)), _show_scores(one)]
    if target.kind == "classification":
        parts += _show_classes(one)
    else:
        parts.append(_show_values(one))
    several = sum(other.predictions.target.name == target.name for other in group.assessments) > 1
    return format_section(
        f"{target.name}, predicted by {model.name}" if several else f"Prediction of {target.name}",
        *parts,
    )


def _show_scores(one: Assessment) -> str:
    if one.scores is None:
        return ""
    unit = one.scores.unit
    heads = ["Measure", "Value", "95 % interval", "Chance"]
    rows = [tell_score(score, unit) for score in one.measures]
    caption = (
        f"{count(one.scores.n_participants, 'participant')}. Intervals by resampling participants. "
        "Chance: of a guess that knows only how often each class, or which mean, occurs."
    )
    n_permutations = one.scores.resampling.n_permutations
    if n_permutations:
        heads.append("p-value")
        rows = [[*row, score.p_value] for row, score in zip(rows, one.measures, strict=True)]
        whom = "within" if one.scores.permutes_within else "between"
        caption += (
            f" p-values, one-sided, of {count(n_permutations, 'permutation')} of the truth {whom} "
            "participants."
        )
    return format_table(heads, rows, caption=caption)


def _show_values(one: Assessment) -> str:
    target = one.predictions.target
    predicted = one.predicted[:, 0]
    is_scaled = target.mean is not None
    unit = target.unit if is_scaled else "z-score"
    png = draw_values(
        predicted,
        one.truth,
        one.intervals,
        name=target.name,
        unit=unit,
        has_same_unit=is_scaled,
    )
    chart = chart_values(
        predicted,
        one.truth,
        one.intervals,
        keys=one.keys,
        name=target.name,
        unit=unit,
        has_same_unit=is_scaled,
    )
    alt = (
        f"Predicted {target.name} of {len(predicted)}: {predicted.min():.3g} to "
        f"{predicted.max():.3g}, mean {predicted.mean():.3g}."
    )
    caption = "How predictions are distributed"
    if np.isfinite(one.truth).any():
        caption = f"Left: {caption[0].lower()}{caption[1:]}"
        caption += " beside the truth" if is_scaled else ""
        caption += ". Right: predicted against true"
        caption += "; on the dashed line predictions are right" if is_scaled else ""
        if np.isfinite(one.intervals).any():
            caption += "; bars are the calibrated intervals, whose ends are averaged over runs"
    caption = f"{caption}.{tell_thinning(len(predicted), 'predictions')}"
    return format_chart(png, chart, alt=alt, caption=caption)


def _show_classes(one: Assessment) -> list[str]:
    classes = one.predictions.target.classes
    counts = np.bincount(one.predicted.argmax(axis=1), minlength=len(classes))
    listed = ", ".join(f"{name} {n}" for name, n in zip(classes, counts, strict=True))
    parts = [
        format_chart(
            draw_classes(one.predicted, one.truth, classes=classes),
            chart_probabilities(one.predicted, one.truth, classes=classes),
            alt=f"Histogram of probabilities. Most probable class: {listed}.",
            caption=f"Probabilities, by true class where it is known. Most probable: {listed}.",
        )
    ]
    if one.scores is not None:
        is_known = np.isfinite(one.truth)
        truth, predicted = one.truth[is_known], one.predicted[is_known]
        confusion = one.scores.confusion
        png = draw_classification(truth, predicted, classes=classes, confusion=confusion)
        chart = chart_classification(truth, predicted, classes=classes, confusion=confusion)
        rows = "; ".join(
            f"of {name}, predicted "
            + ", ".join(f"{other} {n}" for other, n in zip(classes, row, strict=True))
            for name, row in zip(classes, confusion, strict=True)
        )
        caption = (
            "Left: how often each class was predicted (columns) of each true class (rows). Middle: "
            "ROC curves. Right: how often predictions of a probability come true; on the diagonal "
            "they are calibrated, and the number is that of the predictions."
        )
        alt = f"Confusion matrix: {rows}. Beside it ROC curves and calibration."
        parts.append(format_chart(png, chart, alt=alt, caption=caption))
        parts += [
            _count_confusions(classes, confusion),
            format_table(
                ["Probability", "Predictions", "Came true"],
                [
                    [one_bin.probability, one_bin.n, one_bin.share_true]
                    for one_bin in bin_calibration(truth, predicted)
                ],
                caption="Calibration: mean probability of the predicted class, and the share of "
                "these predictions that came true, in bins of a tenth.",
            ),
        ]
    return parts


def _count_confusions(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    rows: list[list[Cell]] = [
        [name, *counts, counts[place] / total if (total := sum(counts)) else None]
        for place, (name, counts) in enumerate(zip(classes, confusion, strict=True))
    ]
    heads = ["True class", *(f"Predicted {name}" for name in classes), "Share found"]
    return format_table(heads, rows, caption="Confusion matrix.")


def tell_score(score: Score, unit: str | None = None) -> list[Cell]:
    """Return the name of a score, its value, interval and chance level, for a row of a table."""
    name = _NAMES[score.name]
    if unit and score.name in {"mae", "rmse"}:
        name += f" ({unit})"
    between = "n/a" if score.low is None else f"{score.low:.3g} to {score.high:.3g}"
    return [name, score.value, between, score.chance]
