"""Pieces of interactive charts: texts, numbers, axes and traces as Plotly reads them.

Plotly reads tags and entities in its texts, so whatever strangers wrote goes through `plain`.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MAX_POINTS = 5000
"""More make a page slow: what is drawn of them is chosen evenly, and said."""

_PANEL_PX = 230
_GAP = 0.1
_DASHED = {"color": "#6b6b6b", "dash": "dash", "width": 1.5}


def plain(text: object) -> str:
    """Return a text as Plotly shows it: as it is."""
    return escape(str(text), quote=False)


def shorten(values: ArrayLike) -> list[float | None]:
    """Return numbers with as many digits as a chart can show; what is not finite is None."""
    array = np.asarray(values, dtype=np.float64)
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in array.tolist()]


def thin(n_points: int) -> NDArray[np.int64]:
    """Return the places of the points that are drawn: all, or as many as a page can bear."""
    return np.unique(np.linspace(0, n_points - 1, min(n_points, MAX_POINTS)).round().astype(int))


def tell_thinning(n_points: int, noun: str) -> str:
    """Say that some points are not drawn; nothing if all are."""
    if n_points <= MAX_POINTS:
        return ""
    return f" Drawn are {MAX_POINTS:,} of {n_points:,} {noun}, taken evenly from the list."


def lay_out(panels: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the axes of panels side by side, each with the titles of its two axes."""
    width = (1 - _GAP * (len(panels) - 1)) / len(panels)
    layout: dict[str, Any] = {}
    for number, (below, beside) in enumerate(panels, start=1):
        end = "" if number == 1 else str(number)
        start = (number - 1) * (width + _GAP)
        domain = [round(start, 4), round(min(1.0, start + width), 4)]
        layout[f"xaxis{end}"] = _title(below) | {"domain": domain, "anchor": axis("y", number)}
        layout[f"yaxis{end}"] = _title(beside) | {"anchor": axis("x", number)}
    return layout


def stack(panels: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the axes of panels one below the other."""
    height = (1 - _GAP * (len(panels) - 1)) / len(panels)
    layout: dict[str, Any] = {"height": 110 + _PANEL_PX * len(panels)}
    for number, (below, beside) in enumerate(panels, start=1):
        end = "" if number == 1 else str(number)
        top = 1 - (number - 1) * (height + _GAP)
        domain = [round(max(0.0, top - height), 4), round(top, 4)]
        layout[f"xaxis{end}"] = _title(below) | {"anchor": axis("y", number)}
        layout[f"yaxis{end}"] = _title(beside) | {"domain": domain, "anchor": axis("x", number)}
    return layout


def _title(text: str) -> dict[str, Any]:
    return {"title": {"text": text}}


def axis(letter: str, number: int) -> str:
    """Return Plotly's name of the axis of a panel; panels are numbered from 1."""
    return letter if number == 1 else f"{letter}{number}"


def trace_histogram(values: Floats, edges: Floats, *, name: str, colour: str) -> dict[str, Any]:
    """Return the bars of a histogram of values (n,) between edges."""
    counts, _ = np.histogram(values, edges)
    return {
        "type": "bar",
        "name": name,
        "x": shorten((edges[:-1] + edges[1:]) / 2),
        "y": counts.tolist(),
        "width": shorten(np.diff(edges) * 0.96),
        "marker": {"color": colour},
        "customdata": [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges.tolist())],
        "hovertemplate": "%{customdata}: %{y}<extra>%{fullData.name}</extra>",
    }


def trace_line(x: Sequence[float], y: Sequence[float], *, panel: int) -> dict[str, Any]:
    """Return a dashed line to compare with."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": shorten(x),
        "y": shorten(y),
        "line": _DASHED,
        "xaxis": axis("x", panel),
        "yaxis": axis("y", panel),
        "hoverinfo": "skip",
        "showlegend": False,
    }
