"""Interactive charts of a group: Plotly's traces and layouts, as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.group.chart_parts import (
    axis,
    lay_out,
    plain,
    shorten,
    stack,
    thin,
    trace_histogram,
    trace_line,
)
from neurostorm_bids.group.pictures import COLOURS, choose_bins
from neurostorm_bids.train.finetune_pictures import find_roc
from neurostorm_bids.train.metrics import bin_calibration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.train.metrics import CalibrationBin

    Floats = NDArray[np.float64]

Chart = dict[str, Any]

_MAX_BARS = 400
_MAX_PANELS = 6
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")


def chart_values(
    predicted: Floats,
    truth: Floats,
    intervals: Floats,
    *,
    keys: Sequence[str],
    name: str,
    unit: str | None,
    has_same_unit: bool,
) -> Chart:
    """Chart how predicted numbers are distributed and, with a truth, both together.

    Parameters
    ----------
    predicted, truth : shape (n,); truth is NaN where it is not known.
    intervals : ends, shape (n, 2); NaN where there are none.
    keys : what each row is: participant, with session where there are several.
    """
    is_known = np.isfinite(truth)
    shown = [predicted, truth[is_known]] if has_same_unit and is_known.any() else [predicted]
    edges = np.histogram_bin_edges(np.concatenate(shown), choose_bins(predicted))
    traces = [trace_histogram(predicted, edges, name="predicted", colour=COLOURS[0])]
    label = f"{plain(name)} ({plain(unit)})" if unit else plain(name)
    panels = [(label, "participants")]
    if is_known.any():
        if has_same_unit:
            traces.append(_trace_outline(truth[is_known], edges))
            ends = [edges[0], edges[-1]]
            traces.append(trace_line(ends, ends, panel=2))
        traces.append(_trace_pairs(predicted, truth, intervals, keys))
        panels.append((f"true {label if has_same_unit else plain(name)}", f"predicted {label}"))
    return {"data": traces, "layout": lay_out(panels) | {"barmode": "overlay"}}


def chart_probabilities(probabilities: Floats, truth: Floats, *, classes: Sequence[str]) -> Chart:
    """Chart the probability of each class, by true class where that is known.

    Parameters
    ----------
    probabilities : shape (n, C).
    truth : positions of classes, shape (n,), NaN where not known.
    """
    shown = [1] if len(classes) == 2 else list(range(min(len(classes), _MAX_PANELS)))  # noqa: PLR2004
    groups = {f"true class: {plain(name)}": truth == at for at, name in enumerate(classes)}
    groups["true class not known"] = ~np.isfinite(truth)
    colours = [*(COLOURS[at % len(COLOURS)] for at in range(len(classes))), "#9a9a9a"]
    edges = np.linspace(0, 1, 21)
    traces = [
        trace_histogram(probabilities[inside, place], edges, name=name, colour=colour)
        | {"xaxis": axis("x", row), "yaxis": axis("y", row), "showlegend": row == 1}
        | {"legendgroup": name}
        for row, place in enumerate(shown, start=1)
        for (name, inside), colour in zip(groups.items(), colours, strict=True)
        if inside.any()
    ]
    panels = [(f"probability of {plain(classes[place])}", "participants") for place in shown]
    layout = stack(panels)
    for row in range(1, len(shown) + 1):
        layout[f"xaxis{row if row > 1 else ''}"]["range"] = [0, 1]
    return {"data": traces, "layout": layout | {"barmode": "stack"}}


def chart_classification(
    truth: Floats,
    probabilities: Floats,
    *,
    classes: Sequence[str],
    confusion: Sequence[Sequence[int]],
) -> Chart:
    """Chart confusion matrix, ROC curves and calibration; truth is known of all rows."""
    names = [plain(name) for name in classes]
    counts = np.array(confusion, dtype=np.float64)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    matrix = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": shares.round(4).tolist(),
        "text": [[str(int(n)) for n in row] for row in counts],
        "texttemplate": "%{text}",
        "hovertemplate": "true %{y}, predicted %{x}: %{text} (%{z:.0%} of the row)<extra></extra>",
        "colorscale": [[0, "#ffffff"], [1, "#08519c"]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
    }
    traces = [matrix, *_trace_roc(truth, probabilities, names), trace_line([0, 1], [0, 1], panel=2)]
    traces += [
        _trace_calibration(bin_calibration(truth, probabilities)),
        trace_line([0, 1], [0, 1], panel=3),
    ]
    layout = lay_out(
        [
            ("predicted", "true"),
            ("false positive rate", "true positive rate"),
            ("probability of the predicted class", "share that came true"),
        ]
    )
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    layout["xaxis"] |= {"type": "category"}
    return {"data": traces, "layout": layout}


def chart_cmc(curves: Mapping[str, Sequence[float]]) -> Chart:
    """Chart the share of probes whose right candidate is among the first 1, 2, ... candidates."""
    longest = max(map(len, curves.values()))
    traces = []
    for place, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(name),
                "x": list(range(1, len(curve) + 1)),
                "y": shorten(curve),
                "line": {"color": colour, "width": 2},
                "marker": {"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 5},
                "hovertemplate": "rank %{x}: %{y:.1%}<extra>%{fullData.name}</extra>",
            }
        )
    ranks = list(range(1, longest + 1))
    chance = trace_line(ranks, [rank / longest for rank in ranks], panel=1)
    traces.append(chance | {"name": "chance", "showlegend": True})
    layout = lay_out([("rank", "found at this rank or before")])
    layout["xaxis"] |= {"range": [0.5, longest + 0.5]}
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    return {"data": traces, "layout": layout}


def _trace_outline(values: Floats, edges: Floats) -> dict[str, Any]:
    counts, _ = np.histogram(values, edges)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "true",
        "x": shorten(np.repeat(edges, 2)),
        "y": [0, *np.repeat(counts, 2).tolist(), 0],
        "line": {"color": COLOURS[1], "width": 2.5},
        "hoverinfo": "skip",
    }


def _trace_pairs(
    predicted: Floats, truth: Floats, intervals: Floats, keys: Sequence[str]
) -> dict[str, Any]:
    """Return the points of predicted against true numbers, with bars where there are intervals."""
    known = np.flatnonzero(np.isfinite(truth))
    places = known[thin(len(known))]
    low, high = intervals[places].T
    texts = []
    for place in places:
        text = f"{plain(keys[place])}<br>true {truth[place]:.4g}, predicted {predicted[place]:.4g}"
        if np.isfinite(intervals[place]).all():
            text += f"<br>interval {intervals[place, 0]:.4g} to {intervals[place, 1]:.4g}"
        texts.append(text)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": shorten(truth[places]),
        "y": shorten(predicted[places]),
        "text": texts,
        "hoverinfo": "text",
        "xaxis": "x2",
        "yaxis": "y2",
        "showlegend": False,
        "marker": {"color": COLOURS[0], "size": 7, "line": {"width": 0.5, "color": "#fff"}},
    }
    if np.isfinite(low).any() and len(places) <= _MAX_BARS:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": shorten(np.nan_to_num(high - predicted[places])),
            "arrayminus": shorten(np.nan_to_num(predicted[places] - low)),
            "thickness": 1,
            "width": 0,
            "color": "#6a9cc8",
        }
    return trace


def _trace_roc(truth: Floats, probabilities: Floats, names: Sequence[str]) -> list[dict[str, Any]]:
    shown = [1] if len(names) == 2 else list(range(min(len(names), _MAX_PANELS)))  # noqa: PLR2004
    traces = []
    for place in shown:
        is_own = truth == place
        if not is_own.any():
            continue
        alarms, hits = find_roc(probabilities[:, place], is_own)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"ROC of {names[place]}",
                "x": shorten(alarms),
                "y": shorten(hits),
                "xaxis": "x2",
                "yaxis": "y2",
                "line": {"color": COLOURS[place % len(COLOURS)], "width": 2},
                "hovertemplate": "false positives %{x:.1%}, true positives %{y:.1%}"
                "<extra>%{fullData.name}</extra>",
            }
        )
    return traces


def _trace_calibration(bins: Sequence[CalibrationBin]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": "calibration, with the number of predictions",
        "x": shorten([one.probability for one in bins]),
        "y": shorten([one.share_true for one in bins]),
        "text": [str(one.n) for one in bins],
        "textposition": "top center",
        "cliponaxis": False,
        "xaxis": "x3",
        "yaxis": "y3",
        "line": {"color": COLOURS[0], "width": 1.5},
        "marker": {"size": 7},
        "hovertemplate": "probability %{x:.2f}: %{y:.1%} of %{text} came true<extra></extra>",
    }
