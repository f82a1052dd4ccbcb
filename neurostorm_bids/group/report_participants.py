"""The section of the report with a row for each participant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.group.outliers import find_outliers
from neurostorm_bids.group.phenotype import name_phenotypes, tabulate_participants
from neurostorm_bids.group.tables import average_known
from neurostorm_bids.page.html import format_section, format_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.group.collect import Predictions
    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.group.truth import Assessment
    from neurostorm_bids.page.html import Cell

MAX_ROWS = 5000


def show_participants(group: Group) -> str:
    """Return a table of participants that can be sorted and filtered."""
    people = group.collection.participants
    shown = people[:MAX_ROWS]
    columns: dict[str, Mapping[str, Cell]] = _count_runs(group)
    for one in group.assessments:
        columns |= _tell_prediction(group, one)
    columns |= _summarise_quality(group)
    rows: list[list[Cell]] = [
        [group.link(person), *(cells.get(person) for cells in columns.values())] for person in shown
    ]
    caption = "Click on the head of a column to sort by it. "
    if len(people) > MAX_ROWS:
        caption += f"The first {MAX_ROWS:,} of {len(people):,} participants. "
    names = name_phenotypes(group.collection.predictions)
    if names:
        caption += f"Predictions, means over runs, with more of them: phenotype/{names[0]}.tsv"
        caption += " and its like. " if len(names) > 1 else ". "
    caption += "Far: runs far from the others, see above."
    table = format_table(
        ["Participant", *columns], rows, caption=caption, is_sortable=True, is_filterable=True
    )
    return format_section("Participants", table)


def _count_runs(group: Group) -> dict[str, Mapping[str, Cell]]:
    runs: dict[str, set[str]] = {}
    sessions: dict[str, set[str]] = {}
    for result in group.collection.results:
        runs.setdefault(result.participant, set()).add(result.run)
        sessions.setdefault(result.participant, set()).update(
            filter(None, [result.entities.get("ses")])
        )
    counted: dict[str, Mapping[str, Cell]] = {}
    if any(sessions.values()):
        counted["Sessions"] = {person: len(own) for person, own in sessions.items()}
    return counted | {"Runs": {person: len(own) for person, own in runs.items()}}


def _tell_prediction(group: Group, one: Assessment) -> dict[str, Mapping[str, Cell]]:
    predictions = one.predictions
    target = predictions.target
    end = _name_model(group, predictions)
    table = {column.name: list(column.cells) for column in tabulate_participants(predictions)}
    owners = [label.removeprefix("sub-") for label in table["participant_id"]]
    told: dict[str, Mapping[str, Cell]] = {}
    if target.kind == "classification":
        places = [target.classes.index(label) for label in table["label"]]
        outputs = [name for name in table if name.startswith("probability")]
        chances = [table[outputs[place]][row] for row, place in enumerate(places)]
        told[f"Predicted {target.name}{end}"] = dict(zip(owners, table["label"], strict=True))
        told[f"Its probability{end}"] = dict(zip(owners, chances, strict=True))
    else:
        name = "value" if "value" in table else "zscore"
        unit = "z-score" if name == "zscore" else target.unit
        head = f"Predicted {target.name}{end}" + (f" ({unit})" if unit else "")
        told[head] = dict(zip(owners, table[name], strict=True))
    if one.level == "participant" and np.isfinite(one.truth).any():
        told[f"True {target.name}"] = dict(zip(one.participants, _name_truth(one), strict=True))
    return told


def _name_truth(one: Assessment) -> Sequence[Cell]:
    classes = one.predictions.target.classes
    known = [float(value) if np.isfinite(value) else None for value in one.truth]
    if not classes:
        return known
    return ["n/a" if value is None else classes[int(value)] for value in known]


def _name_model(group: Group, predictions: Predictions) -> str:
    targets = [one.target.name for one in group.collection.predictions]
    return f" by {predictions.model.name}" if targets.count(predictions.target.name) > 1 else ""


def _summarise_quality(group: Group) -> dict[str, Mapping[str, Cell]]:
    """Return the mean motion of each participant, and in how many runs something is far off."""
    owners = [result.participant for result in group.collection.results]
    runs = [result.run for result in group.collection.results]
    columns = {column.name: column.cells for column in group.quality}
    motion: dict[str, dict[str, float]] = {}
    for owner, run, value in zip(owners, runs, columns["mean_fd"], strict=True):
        motion.setdefault(owner, {})[run] = float(value)
    far: dict[str, set[str]] = {owner: set() for owner in owners}
    for one in find_outliers(group.quality):
        for place in np.flatnonzero(one.is_far):
            far[owners[place]].add(runs[place])
    return {
        "Mean FD (mm)": {owner: average_known(own.values()) for owner, own in motion.items()},
        "Far": {owner: len(own) for owner, own in far.items()},
    }
