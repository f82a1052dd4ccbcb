"""Tables for phenotype/: what each model predicts of each participant, as a mean over runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.names import make_label
from neurostorm_bids.derivatives.results import name_outputs
from neurostorm_bids.derivatives.tables import Column
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.group.tables import average_known, round_numbers
from neurostorm_bids.train.scores import average_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.derivatives.results import ModelKey
    from neurostorm_bids.group.collect import Predictions
    from neurostorm_bids.model.config import TargetSpec

_MIN_FOR_SPREAD = 2


def tabulate_participants(predictions: Predictions) -> list[Column]:
    """Return a row for each participant: what is predicted, as a mean over runs.

    Columns: participant_id; label and probabilities, or value, or z-score; spread; of a calibrated
    model prediction_set, or interval_low and interval_high, and novelty; n_runs.
    """
    target = predictions.target
    owners = [f"sub-{result.participant}" for result in predictions.results]
    people, means = average_rows(predictions.outputs, owners)
    rows_of: dict[str, list[int]] = {}
    for row, owner in enumerate(owners):
        rows_of.setdefault(owner, []).append(row)
    own = [predictions.outputs[rows_of[person]] for person in people]  # (n_runs, C) each
    spreads = [
        rows.std(axis=0, ddof=1) if len(rows) >= _MIN_FOR_SPREAD else np.full(rows.shape[1], np.nan)
        for rows in own
    ]
    winners = means.argmax(axis=1)
    unit, what, values = _tabulate_values(target, means)
    return [
        Column(
            name="participant_id",
            cells=people,
            description="The participant's label, as in the source dataset.",
        ),
        *values,
        Column(
            name="spread",
            cells=round_numbers(
                [row[winner] for row, winner in zip(spreads, winners, strict=True)]
            ),
            description=f"Standard deviation over runs of {what}; n/a for a single run.",
            unit=unit,
        ),
        *_tabulate_trust(predictions, [rows_of[person] for person in people], unit=unit),
        Column(name="n_runs", cells=[len(rows) for rows in own], description="Runs averaged over."),
    ]


def _tabulate_values(
    target: TargetSpec, means: NDArray[np.float64]
) -> tuple[str | None, str, list[Column]]:
    """Return the unit of the values, what they are in words, and their columns; means (n, C)."""
    names = name_outputs(target)
    if target.kind != "classification":
        unit = "z-score" if target.mean is None else target.unit or "arbitrary"
        description = f"Predicted {target.name}; mean over runs."
        cells = round_numbers(means[:, 0])
        value = Column(name=names[0], cells=cells, description=description, unit=unit)
        return unit, "the value", [value]
    label = Column(
        name="label",
        cells=[target.classes[winner] for winner in means.argmax(axis=1)],
        description=f"Most probable class of {target.name}.",
        levels={
            label: f"The class of column {name}."
            for label, name in zip(target.classes, names, strict=True)
        },
    )
    probabilities = [
        Column(
            name=name,
            cells=round_numbers(means[:, at]),
            description=f"Probability of {target.name} = {label}, 0 to 1; mean over runs.",
        )
        for at, (name, label) in enumerate(zip(names, target.classes, strict=True))
    ]
    return None, "the probability of the label", [label, *probabilities]


def _tabulate_trust(
    predictions: Predictions, rows_of: Sequence[Sequence[int]], *, unit: str | None
) -> list[Column]:
    """Return columns that say how far to trust a participant's row; none without a calibration.

    Parameters
    ----------
    rows_of : the runs of each participant.
    """
    name = predictions.target.name
    columns = []
    if np.isfinite(predictions.intervals).any():
        columns += [
            Column(
                name=f"interval_{end}",
                cells=_average(predictions.intervals[:, at], rows_of),
                description=f"{end.capitalize()} end of the calibrated interval of {name}, as the "
                "runs' files declare it; mean over runs. Calibrated for one run: it is not "
                "narrower for several.",
                unit=unit,
            )
            for at, end in enumerate(("low", "high"))
        ]
    if any(one is not None for one in predictions.sets):
        columns.append(
            Column(
                name="prediction_set",
                cells=[_unite([predictions.sets[row] for row in rows]) for rows in rows_of],
                description=f"Classes of {name}, with | between them, that are in the calibrated "
                "set of one run or more, as the runs' files declare it.",
            )
        )
    if np.isfinite(predictions.novelties).any():
        columns.append(
            Column(
                name="novelty",
                cells=_average(predictions.novelties, rows_of),
                description="Distance of the embedding from those of the runs that the model was "
                "trained on, about 1 for what is like them; mean over runs.",
            )
        )
    return columns


def _average(values: NDArray[np.float64], rows_of: Sequence[Sequence[int]]) -> list[float]:
    """Average what is known; NaN where nothing is."""
    return round_numbers([average_known(values[row] for row in rows) for rows in rows_of])


def _unite(sets: Sequence[tuple[str, ...] | None]) -> str | None:
    """Return the classes that are in any of the sets; None where no set is known."""
    known = [one for one in sets if one is not None]
    return "|".join(dict.fromkeys(name for one in known for name in one)) or None


def describe_participants(predictions: Predictions, columns: Sequence[Column]) -> str:
    """Return the text of the sidecar of a table of phenotype/."""
    target = predictions.target
    return format_json(
        {
            "Description": f"Prediction of {target.name} of each participant.",
            "MeasurementToolMetadata": {
                "Description": f"Prediction of {target.name} from functional MRI by the model "
                f"{predictions.model.name} (SHA-256 {predictions.model.sha256}), averaged over "
                f"runs by neurostorm-bids {__version__}. It is no measurement of {target.name}."
            },
            "Target": target.to_dict(),
            **{column.name: column.declare() for column in columns},
        }
    )


def name_phenotypes(predictions: Sequence[Predictions]) -> list[str]:
    """Return a name for each table: the target's, with the model's where several predict it."""
    targets = [make_label(one.target.name, fallback="target") for one in predictions]
    labels = label_models([one.model for one in predictions])
    folded = [target.casefold() for target in targets]
    return [
        f"neurostorm_{target}" + (labels[one.model] if folded.count(low) > 1 else "")
        for target, low, one in zip(targets, folded, predictions, strict=True)
    ]


def label_models(models: Sequence[ModelKey]) -> dict[ModelKey, str]:
    """Return a capitalised label for each model; the checksum tells those of one name apart."""
    plain = {model: make_label(model.name, fallback="model") for model in models}
    plain = {model: label[:1].upper() + label[1:] for model, label in plain.items()}
    folded = [label.casefold() for label in plain.values()]
    return {
        model: label + (model.sha256[:8] if folded.count(label.casefold()) > 1 else "")
        for model, label in plain.items()
    }
