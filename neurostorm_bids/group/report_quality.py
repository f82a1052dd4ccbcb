"""Sections of the report on the quality of runs: outliers, motion, and a table of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from neurostorm_bids.group.chart_parts import lay_out, plain, shorten, tell_thinning, thin
from neurostorm_bids.group.outliers import MIN_RUNS, THRESHOLD, find_outliers
from neurostorm_bids.group.pictures import COLOURS, draw_scores, spread_heights
from neurostorm_bids.inputs.names import join_entities
from neurostorm_bids.page.html import (
    format_chart,
    format_paragraphs,
    format_section,
    format_table,
)
from neurostorm_bids.page.words import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.group.outliers import Measured
    from neurostorm_bids.page.html import Cell

_MIN_FOR_CORRELATION = 5
_MAX_ROWS = 5000
_MAX_SCORE = 15.0
_HIDDEN = {"session", "task", "run", "model_sha256"}
_NOVELTY = " Novelty: distance of a run's embedding from those that the model was trained on."
_HEADS = {
    "participant_id": "Participant",
    "source": "Run",
    "model": "Model",
    "mean_fd": "Mean FD (mm)",
    "duration": "Duration (s)",
    "n_volumes": "Volumes",
    "repetition_time": "TR (s)",
    "brain_coverage": "Brain coverage",
    "median_tsnr": "Median tSNR",
    "novelty": "Novelty",
    "n_warnings": "Warnings",
}


def show_outliers(group: Group) -> str:
    """Return the section on runs that lie far from the others; nothing if all is unknown."""
    title = "Runs far from the others"
    measured = find_outliers(group.quality)
    runs = shorten_runs([result.entities for result in group.collection.results])
    if not measured:
        told = f"Not looked for: fewer than {MIN_RUNS} runs of a model have been measured, or all "
        return format_section(title, format_paragraphs(told + "are alike."))
    scores = {
        _HEADS[one.name]: (np.clip(one.scores, -_MAX_SCORE, _MAX_SCORE), one.is_far)
        for one in measured
    }
    n_far = int(np.any([one.is_far for one in measured], axis=0).sum())
    told = (
        f"{count(n_far, 'run')} of {len(runs)} lie far from the others: more than {THRESHOLD} "
        "robust standard deviations from the median, on the worse side. Far is not bad by itself: "
        "look at their reports."
    )
    return format_section(
        title,
        format_paragraphs(told),
        format_chart(
            draw_scores(scores, limit=THRESHOLD),
            chart_scores(measured, runs),
            alt=f"Robust z-scores of {len(runs)} runs in {', '.join(scores)}. {told}",
            caption="Distances from the median over runs, divided by 1.4826 times the median "
            f"absolute deviation. Points beyond {_MAX_SCORE:g} are drawn there."
            + (_NOVELTY if any(one.name == "novelty" for one in measured) else "")
            + tell_thinning(len(runs), "runs"),
        ),
        _list_outliers(group, measured, runs),
    )


def chart_scores(measured: Sequence[Measured], runs: Sequence[str]) -> dict[str, Any]:
    """Chart the robust z-scores of runs, a row for each measure."""
    shown = thin(len(runs))
    is_drawn = np.zeros(len(runs), dtype=bool)
    is_drawn[shown] = True
    traces = []
    for name, colour, symbol, opacity in (
        ("among the others", COLOURS[0], "circle", 0.6),
        ("far", COLOURS[1], "diamond", 1),
    ):
        x: list[float | None] = []
        y: list[float | None] = []
        texts: list[str] = []
        for row, one in enumerate(measured):
            is_own = one.is_far if name == "far" else ~one.is_far & is_drawn
            places = np.flatnonzero(is_own & np.isfinite(one.scores)).tolist()
            x += shorten(np.clip(one.scores[places], -_MAX_SCORE, _MAX_SCORE))
            y += shorten(row + spread_heights(len(runs))[places])
            texts += [
                f"{plain(runs[at])}<br>{_HEADS[one.name]}: {one.values[at]:.4g}"
                f"<br>robust z: {one.scores[at]:.2f}"
                for at in places
            ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": x,
                "y": y,
                "text": texts,
                "hoverinfo": "text",
                "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": opacity},
            }
        )
    layout = lay_out([("robust z-score", "")]) | {"height": 170 + 75 * len(measured)}
    layout["yaxis"] |= {
        "tickvals": list(range(len(measured))),
        "ticktext": [_HEADS[one.name] for one in measured],
        "range": [len(measured) - 0.5, -0.5],
        "showgrid": False,
    }
    layout["shapes"] = [
        {
            "type": "line",
            "x0": end,
            "x1": end,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": "#6b6b6b", "dash": "dash", "width": 1.5},
        }
        for end in (-THRESHOLD, THRESHOLD)
    ]
    return {"data": traces, "layout": layout}


def show_quality(group: Group) -> str:
    """Return a sortable table of runs, and whether predictions follow motion."""
    columns = {column.name: column for column in group.quality}
    results = group.collection.results[:_MAX_ROWS]
    cells: dict[str, Sequence[Any]] = {
        name: list(column.cells[:_MAX_ROWS]) for name, column in columns.items()
    }
    cells["source"] = shorten_runs([result.entities for result in group.collection.results])
    cells["source"] = cells["source"][:_MAX_ROWS]
    cells["participant_id"] = [group.link(result.participant) for result in results]
    hidden = _HIDDEN | ({"model"} if len(group.collection.models) == 1 else set())
    shown = ["source", *(name for name in columns if name not in hidden | {"source"})]
    n_rows = len(group.collection.results)
    more = "" if n_rows <= _MAX_ROWS else f"The first {_MAX_ROWS:,} of {n_rows:,} rows: "
    table = format_table(
        [_HEADS[name] for name in shown],
        zip(*(cells[name] for name in shown), strict=True),
        caption=f"{more}{'all' if more else 'All'} of it is in group/runs.tsv. FD: framewise "
        "displacement, from the confounds of the source. Volumes: on the model's clock. TR: of "
        "the source. Brain coverage: share of the brain mask in the model's field of view. "
        "Warnings: their text is in the run's sidecar.",
        is_sortable=True,
        is_filterable=True,
    )
    return format_section("Quality of the runs", _relate_to_motion(group), table)


def shorten_runs(entities: Sequence[Mapping[str, str]]) -> list[str]:
    """Name runs without the entities, such as the space, that all of them share."""
    keys = dict.fromkeys(key for one in entities for key in one)
    values = {key: {one.get(key) for one in entities} for key in keys}
    kept = {key for key in keys if key in {"sub", "ses", "task"} or len(values[key]) > 1}
    return [
        join_entities({key: value for key, value in one.items() if key in kept}) for one in entities
    ]


def _list_outliers(group: Group, measured: Sequence[Measured], runs: Sequence[str]) -> str:
    results = group.collection.results
    several = len(group.collection.models) > 1
    far = [
        (abs(one.scores[place]), one, int(place))
        for one in measured
        for place in np.flatnonzero(one.is_far)
    ]
    far.sort(key=lambda item: -item[0])
    rows: list[list[Cell]] = [
        [
            runs[place],
            group.link(results[place].participant),
            *([results[place].model.name] if several else []),
            _HEADS[one.name],
            float(one.values[place]),
            float(one.medians[place]),
            float(one.scores[place]),
        ]
        for _, one, place in far[:_MAX_ROWS]
    ]
    if not rows:
        return ""
    model = ["Model"] if several else []
    return format_table(
        ["Run", "Participant", *model, "Measure", "Value", "Median of all", "Robust z"],
        rows,
        caption="The farthest first. A participant's name leads to the report on them, where there "
        "is one.",
        is_sortable=True,
        is_filterable=True,
    )


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
