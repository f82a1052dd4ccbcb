"""The columns of embeddings and predictions: a row for each clip, and one for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.derivatives.tables import Column, format_cell, make_column_names
from neurostorm_bids.grid.censoring import MAX_CENSORED_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.model.assessment import Assessment
    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.predict import RunPrediction


def embed_run(prediction: RunPrediction) -> list[Column]:
    """Return the columns of a run's embedding: one row, D columns."""
    return _embedding_columns(prediction.embedding[None])


def embed_clips(prediction: RunPrediction) -> list[Column]:
    """Return the columns of the clips' embeddings: K rows, onset, duration and D columns."""
    onsets, durations = _clip_times(prediction)
    return [
        *_time_columns(onsets, durations),
        *_censoring_columns(prediction, has_run=False),
        *_embedding_columns(prediction.clip_embeddings),
    ]


def tabulate_predictions(prediction: RunPrediction) -> list[Column]:
    """Return the columns of a run's predictions: a row per clip, then the run's row.

    Raises
    ------
    ValueError
        If the model has no head, so that there is nothing to tabulate.
    """
    target, clip_outputs = prediction.target, prediction.clip_outputs
    output, spread = prediction.output, prediction.spread
    if target is None or clip_outputs is None or output is None or spread is None:
        raise ValueError("This model has no head: it predicts nothing.")
    onsets, durations = _clip_times(prediction)
    run_duration = _run_duration(prediction)
    level = Column(
        name="level",
        cells=["clip"] * len(onsets) + ["run"],
        description="What the row speaks of.",
        levels={
            "clip": "One clip, as the model read it.",
            "run": _describe_run(prediction.assessment),
        },
    )
    outputs = np.vstack([clip_outputs, output])  # (K + 1, M)
    if target.kind == "classification":
        values = _class_columns(target, outputs)
        run_spread, unit = spread[np.argmax(output)], None
        what = "the probability of the run's label"
    else:
        unit = _name_unit(target)
        values = [
            Column(
                name="value" if target.mean is not None else "zscore",
                cells=outputs[:, 0],
                description=f"Predicted {target.name}.",
                unit=unit,
            )
        ]
        run_spread, what = spread[0], "the value"
    return [
        *_time_columns([*onsets, prediction.series.start_s], [*durations, run_duration]),
        level,
        *_censoring_columns(prediction, has_run=True),
        *values,
        Column(
            name="spread",
            cells=[None] * len(onsets) + [run_spread],
            description=f"Standard deviation over clips of {what}; n/a for a single clip.",
            unit=unit,
        ),
        *_assessment_columns(prediction, target, unit=unit),
    ]


def measure_overlap_s(prediction: RunPrediction) -> float:
    """Return by how many seconds the last clip overlaps the one before it."""
    onsets = prediction.onsets_s
    if len(onsets) == 1:
        return 0.0
    return max(0.0, float(onsets[-2] + prediction.duration_s - onsets[-1]))


def _censoring_columns(prediction: RunPrediction, *, has_run: bool) -> list[Column]:
    """Return how much of each row is censored, and whether it was read; none if nobody asked."""
    found, censoring = prediction.clip_censoring, prediction.series.censoring
    if found is None or censoring is None:
        return []
    counts, uses = found.n_censored.tolist(), found.is_used.tolist()
    if has_run:
        counts, uses = [*counts, len(censoring.volumes)], [*uses, True]
    above = (
        ""
        if censoring.threshold_mm is None
        else f" (framewise displacement above {censoring.threshold_mm:g} mm)"
    )
    return [
        Column(
            name="censored_volumes",
            cells=counts,
            description=f"Volumes of the source in the row's stretch that are censored{above}.",
        ),
        Column(
            name="used",
            cells=["yes" if is_used else "no" for is_used in uses],
            description="Whether the model read the clip, so that the run's values rest on it.",
            levels={
                "yes": "It did.",
                "no": f"More than {MAX_CENSORED_SHARE:.0%} of the clip's volumes are censored.",
            },
        ),
    ]


def _class_columns(target: TargetSpec, outputs: NDArray[np.float32]) -> list[Column]:
    """Return the label and the probability of each class; outputs of shape (rows, M)."""
    columns = make_column_names("probability", target.classes)
    labels = [format_cell(name) for name in target.classes]
    return [
        Column(
            name="label",
            cells=[None if np.isnan(row).any() else labels[row.argmax()] for row in outputs],
            description=f"Most probable class of {target.name}.",
            levels={
                label: f"The class of column {column}."
                for label, column in zip(labels, columns, strict=True)
            },
        ),
        *(
            Column(
                name=column,
                cells=outputs[:, position],
                description=f"Probability of {target.name} = {label}, 0 to 1.",
            )
            for position, (column, label) in enumerate(zip(columns, labels, strict=True))
        ),
    ]


def _describe_run(assessment: Assessment | None) -> str:
    mean = "The whole run: mean over clips in which every volume counts once"
    if assessment is None or assessment.temperature is None:
        return f"{mean}."
    return (
        f"{mean}, its probabilities calibrated with the temperature {assessment.temperature:.4g}."
    )


def _assessment_columns(
    prediction: RunPrediction, target: TargetSpec, *, unit: str | None
) -> list[Column]:
    """Return the columns that say how far to trust the run's row; none without a calibration."""
    found = prediction.assessment
    if found is None:
        return []
    blank = [None] * len(prediction.onsets_s)
    columns = []
    if found.coverage is not None:
        holds = (
            f"made to hold the true {target.name} of {100 * found.coverage:g} % of persons like "
            f"the {found.n_participants} of the calibration; n/a for clips."
        )
    if found.interval is not None:
        columns += [
            Column(
                name=f"interval_{end}",
                cells=[*blank, value],
                description=f"{end.capitalize()} end of an interval {holds}",
                unit=unit,
            )
            for end, value in zip(("low", "high"), found.interval, strict=True)
        ]
    if found.is_in_set is not None:
        labels = [format_cell(name) for name in target.classes]
        names = [name for name, is_in in zip(labels, found.is_in_set, strict=True) if is_in]
        columns.append(
            Column(
                name="prediction_set",
                cells=[*blank, "|".join(names)],
                description=f"Classes, with | between them, of a set {holds}",
            )
        )
    if found.novelty is not None:
        columns += [
            Column(
                name="novelty",
                cells=[*blank, found.novelty],
                description="Mahalanobis distance of the run's embedding from those of the "
                "training runs, divided by the square root of the number of features; n/a for "
                "clips.",
            ),
            Column(
                name="novelty_rank",
                cells=[*blank, found.novelty_rank],
                description="Share, 0 to 1, of the training runs whose distance from those of "
                "other participants is smaller; n/a for clips.",
            ),
        ]
    return columns


def _embedding_columns(values: NDArray[np.float32]) -> list[Column]:
    """Return one column per feature; values of shape (rows, D)."""
    n_features = values.shape[1]
    width = max(3, len(str(n_features - 1)))
    return [
        Column(
            name=f"dim{feature:0{width}d}",
            cells=values[:, feature],
            description=f"Feature {feature} of the model's embedding, counted from 0.",
            unit="arbitrary",
        )
        for feature in range(n_features)
    ]


def _time_columns(onsets: Sequence[float], durations: Sequence[float]) -> list[Column]:
    return [
        Column(
            name="onset",
            cells=onsets,
            description="Start of the row's stretch, from the first volume of the run.",
            unit="s",
        ),
        Column(
            name="duration",
            cells=durations,
            description="Length of the row's stretch; never beyond the end of the run.",
            unit="s",
        ),
    ]


def _clip_times(prediction: RunPrediction) -> tuple[list[float], list[float]]:
    """Return onsets and durations of the clips; a clip padded in time ends where the run ends."""
    end = prediction.series.start_s + _run_duration(prediction)
    onsets = [_round_time(onset) for onset in prediction.onsets_s]
    return onsets, [_round_time(min(prediction.duration_s, end - onset)) for onset in onsets]


def _run_duration(prediction: RunPrediction) -> float:
    series = prediction.series
    return _round_time(series.n_volumes * series.spec.repetition_time_s)


def _round_time(seconds: float) -> float:
    """Drop the digits that floating point adds: 0.8 s times 3 is 2.4 s. Microseconds stay."""
    return round(float(seconds), 6)


def _name_unit(target: TargetSpec) -> str:
    """Return the unit of a regression target; without its mean and SD, values are z-scores."""
    return "z-score" if target.mean is None else target.unit or "arbitrary"
