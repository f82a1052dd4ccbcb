"""Sections of the report on runs: how their embeddings lie, whose they are, how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from neurostorm_bids.group.colours import choose_colourings
from neurostorm_bids.group.pictures import draw_cmc, draw_map, map_embeddings
from neurostorm_bids.group.report_predictions import tell_score
from neurostorm_bids.inputs.names import join_entities
from neurostorm_bids.page.html import (
    format_paragraphs,
    format_picture,
    format_section,
    format_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.group.collect import Embeddings
    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.page.html import Cell

_MIN_FOR_CORRELATION = 5


def show_map(group: Group, part: Embeddings) -> str:
    """Return the section that shows how the embeddings of one model lie to each other."""
    title = f"Map of the embeddings of {part.model.name}"
    if len(part.results) < 2:  # noqa: PLR2004
        return format_section(title, format_paragraphs("There is one run: nothing to compare."))
    targets = [
        group.options.columns.get(one.predictions.target.name) or one.predictions.target.name
        for one in group.assessments
        if one.source is not None
    ]
    colourings = choose_colourings(
        part.results, group.options, targets=targets, roots=group.table_roots
    )
    plane = map_embeddings(part.vectors)
    owners = [result.participant for result in part.results]
    names = ", ".join(one.name for one in colourings)
    return format_section(
        title,
        format_picture(
            draw_map(plane, colourings, participants=owners),
            alt=f"{len(owners)} runs along two principal components, coloured by {names}.",
            caption="Each point is a run, in the plane in which the embeddings of the runs differ "
            f"most: the first two principal components of {part.vectors.shape[1]} features. Runs "
            "of a participant are linked, where participants are not too many.",
        ),
    )


def show_people(group: Group) -> str:
    """Return the section on re-identification."""
    found = [one for one in group.people if one.outcome is not None]
    told = [
        f"{one.model.name}: {group.conceal(one.why_not)}" for one in group.people if one.why_not
    ]
    if not group.people:
        return ""
    if not found:
        return format_section("Re-identification", format_paragraphs(*told))
    rows: list[list[Cell]] = []
    curves = {}
    for one in found:
        if one.outcome is None:
            continue
        scores = one.outcome.scores
        curves[one.model.name] = scores.cmc
        rows += [
            [one.model.name, *tell_score(score), scores.n_participants, scores.n_candidates]
            for score in scores.scores
        ]
    apart = sorted({one.outcome.apart for one in found if one.outcome is not None})
    return format_section(
        "Re-identification",
        format_paragraphs(
            "Whose run is this? One run of each person is looked for among one other run of "
            f"everybody, from a different {' or '.join(apart)}, by the similarity of embeddings. "
            "Similar anatomy, scanner and site also make runs similar: this is no measure of brain "
            "function. Connectivity, the usual baseline, needs the images and is not computed "
            "here.",
            *told,
        ),
        format_table(
            ["Model", "Measure", "Value", "95 % interval", "Chance", "People", "Candidates"],
            rows,
            caption="Rank-1 and Rank-5: how often the right person is the first, or among the "
            "first five. Means over random choices of the runs; intervals by resampling people.",
        ),
        format_picture(
            draw_cmc(curves),
            alt="; ".join(f"{name}: rank 1 {curve[0]:.2f}" for name, curve in curves.items()),
            caption="Share of runs whose person is found at a rank or before (CMC curve).",
        ),
    )


def show_quality(group: Group) -> str:
    """Return a sortable table of runs, and whether predictions follow motion."""
    columns = {column.name: column for column in group.quality}
    hidden = {"participant_id", "session", "task", "run", "model_sha256"}
    cells = {name: column.cells for name, column in columns.items()}
    cells["source"] = _shorten_runs([result.entities for result in group.collection.results])
    if len(group.collection.models) == 1:
        hidden.add("model")
    heads = {
        "source": "Run",
        "model": "Model",
        "mean_fd": "Mean FD (mm)",
        "duration": "Duration (s)",
        "n_volumes": "Volumes",
        "repetition_time": "TR (s)",
        "brain_coverage": "Brain coverage",
        "n_warnings": "Warnings",
    }
    shown = [name for name in columns if name not in hidden]
    table = format_table(
        [heads[name] for name in shown],
        zip(*(cells[name] for name in shown), strict=True),
        caption="Click on the head of a column to sort by it. FD: framewise displacement, from the "
        "confounds of the source. Volumes: on the model's clock. TR: of the source. Brain "
        "coverage: share of the brain mask in the model's field of view. Warnings: their text is "
        "in the run's sidecar.",
        is_sortable=True,
    )
    return format_section("Quality of the runs", _relate_to_motion(group), table)


def _shorten_runs(entities: Sequence[Mapping[str, str]]) -> list[str]:
    """Name runs without the entities, such as the space, that all of them share."""
    keys = dict.fromkeys(key for one in entities for key in one)
    values = {key: {one.get(key) for one in entities} for key in keys}
    kept = {key for key in keys if key in {"sub", "ses", "task"} or len(values[key]) > 1}
    return [
        join_entities({key: value for key, value in one.items() if key in kept}) for one in entities
    ]


def _relate_to_motion(group: Group) -> str:
    """Say how far predictions go together with head motion, which they should not rest on."""
    columns = {column.name: column.cells for column in group.quality}
    motion = dict(zip(columns["source"], columns["mean_fd"], strict=True))
    rows: list[list[Cell]] = []
    for one in group.collection.predictions:
        names = one.target.classes if len(one.target.classes) > 2 else one.target.classes[1:]  # noqa: PLR2004
        first = len(one.target.classes) - len(names)
        for place, name in enumerate(names or ("",), start=first if names else 0):
            moved = np.array([motion[result.run] for result in one.results], dtype=np.float64)
            is_known = np.isfinite(moved)
            x, y = moved[is_known], one.outputs[is_known, place]
            if len(x) >= _MIN_FOR_CORRELATION and np.ptp(x) > 0 and np.ptp(y) > 0:
                what = f"probability of {name}" if name else "value"
                correlation = float(spearmanr(x, y).statistic)
                rows.append([one.target.name, one.model.name, what, len(x), correlation])
    if not rows:
        return ""
    return format_table(
        ["Target", "Model", "Prediction", "Runs", "Spearman correlation with mean FD"],
        rows,
        caption="Whether predictions go together with head motion. Far from 0, motion may carry "
        "the prediction, or the target itself goes together with motion.",
    )
