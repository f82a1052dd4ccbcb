"""Pictures of a group, as PNG: distributions, predicted against true, a map, and CMC curves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurostorm_bids.inputs.names import natural_key
from neurostorm_bids.page.figures import save_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from neurostorm_bids.group.projections import Projection

    Floats = NDArray[np.float64]

_WIDTH_IN = 9.0
_MAX_BINS = 30
_MAX_LINKED = 60
_MISSING_COLOUR = "#b5b5b5"
_LINE_COLOUR = "#8c8c8c"
_BAR_COLOUR = "#6a9cc8"
# Told apart by the colour-blind, and each with a contrast of at least 3 : 1 to white.
COLOURS = ("#0060a8", "#b03a00", "#6a2c91", "#00735c", "#8a6100", "#1b1b1b")
_MARKERS = ("o", "s", "^", "D", "v", "P")


class Colouring(NamedTuple):
    """What the points of a map are coloured by: a number or a name for each; None is missing."""

    name: str
    values: tuple[float | str | None, ...]


def choose_bins(values: Floats) -> int:
    """Return how many bins a histogram of the values wants."""
    return min(_MAX_BINS, max(5, round(2 * math.sqrt(len(values)))))


def draw_values(
    predicted: Floats,
    truth: Floats,
    intervals: Floats,
    *,
    name: str,
    unit: str | None,
    has_same_unit: bool,
) -> bytes:
    """Draw how predicted numbers are distributed and, where the truth is known, both together.

    Parameters
    ----------
    predicted, truth : shape (n,); truth is NaN where it is not known.
    intervals : ends, shape (n, 2); NaN where there are none.
    has_same_unit : as the truth; otherwise predictions are z-scores.
    """
    is_known = np.isfinite(truth)
    label = f"predicted {name}" + (f" ({unit})" if unit else "")
    figure = Figure(figsize=(_WIDTH_IN, 3.8), layout="constrained")
    if not is_known.any():
        axes = [figure.subplots()]
        axes[0].hist(predicted, bins=choose_bins(predicted), color=COLOURS[0])
    else:
        axes = list(figure.subplots(1, 2))
        shown = [predicted, truth[is_known]] if has_same_unit else [predicted]
        edges = np.histogram_bin_edges(np.concatenate(shown), choose_bins(predicted))
        bins: list[float] = edges.tolist()
        axes[0].hist(predicted, bins=bins, color=COLOURS[0], alpha=0.75, label="predicted")
        if has_same_unit:
            axes[0].hist(
                truth[is_known], bins=bins, label="true", histtype="step", color=COLOURS[1], lw=2
            )
            axes[0].legend(frameon=False, fontsize=9)
            ends = [bins[0], bins[-1]]
            axes[1].plot(ends, ends, "--", color=_LINE_COLOUR, lw=1.2)
            axes[1].set_aspect("equal")
        has_bar = is_known & np.isfinite(intervals).all(axis=1)
        axes[1].vlines(truth[has_bar], *intervals[has_bar].T, color=_BAR_COLOUR, lw=0.8)
        axes[1].plot(truth[is_known], predicted[is_known], "o", color=COLOURS[0], ms=5, alpha=0.7)
        axes[1].set_xlabel(f"true {name}" + (f" ({unit})" if unit and has_same_unit else ""))
        axes[1].set_ylabel(label)
    axes[0].set_xlabel(f"{name} ({unit})" if unit else name)
    axes[0].set_ylabel("participants")
    axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(figure, axes)


def draw_classes(probabilities: Floats, truth: Floats, *, classes: Sequence[str]) -> bytes:
    """Draw the probability of each class, by true class where that is known.

    Parameters
    ----------
    probabilities : shape (n, C).
    truth : positions of classes, shape (n,), NaN where not known.
    """
    n_rows = 1 if len(classes) == 2 else min(len(classes), len(COLOURS))  # noqa: PLR2004
    shown = [1] if n_rows == 1 else list(range(n_rows))
    figure = Figure(figsize=(_WIDTH_IN, 2.8 * n_rows), layout="constrained")
    rows = figure.subplots(n_rows, 1, squeeze=False)[:, 0]
    bins = np.linspace(0, 1, 21)
    groups = {"not known": ~np.isfinite(truth)}
    groups = {name: truth == place for place, name in enumerate(classes)} | groups
    groups = {name: inside for name, inside in groups.items() if inside.any()}
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(classes)}
    colours["not known"] = _MISSING_COLOUR
    for axes, place in zip(rows, shown, strict=True):
        axes.hist(
            [probabilities[inside, place] for inside in groups.values()],
            bins=bins,
            stacked=True,
            color=[colours[name] for name in groups],
            label=[f"true class: {name}" for name in groups],
        )
        axes.set_ylabel("participants")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"probability of {classes[place]}")
        axes.set_xlim(0, 1)
    rows[0].legend(frameon=False, fontsize=9)
    return _finish(figure, list(rows))


def draw_map(
    plane: Projection, colourings: Sequence[Colouring], *, participants: Sequence[str]
) -> bytes:
    """Draw runs in the plane in which they differ most, once for each column of colours.

    Runs of a participant are linked by a line where there are not too many.
    """
    n_columns = min(2, len(colourings))
    n_rows = -(-len(colourings) // n_columns)
    size = (_WIDTH_IN, n_rows * (4.6 if n_columns == 1 else 3.8))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(colourings) :]:
        axes.set_visible(False)
    used = list(grid.flat[: len(colourings)])
    for axes, colouring in zip(used, colourings, strict=True):
        _link_runs(axes, plane.points, participants)
        _draw_points(axes, plane.points, colouring)
        axes.set_title(colouring.name, fontsize=11)
        axes.set_xlabel(plane.axes[0])
        axes.set_ylabel(plane.axes[1])
    return _finish(figure, used)


def draw_cmc(curves: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the share of probes whose right candidate is among the first 1, 2, ... candidates."""
    figure = Figure(figsize=(_WIDTH_IN, 3.8), layout="constrained")
    axes = figure.subplots()
    longest = max(map(len, curves.values()))
    ranks = np.arange(1, longest + 1)
    for place, (name, curve) in enumerate(curves.items()):
        axes.plot(
            ranks[: len(curve)],
            curve,
            color=COLOURS[place % len(COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            markevery=max(1, longest // 20),
            ms=4,
            label=name,
        )
    axes.plot(ranks, ranks / longest, "--", color=_LINE_COLOUR, lw=1.2, label="chance")
    axes.set_xlabel("rank")
    axes.set_ylabel("found at this rank or before")
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _finish(figure, [axes])


def draw_scores(scores: Mapping[str, tuple[Floats, NDArray[np.bool_]]], *, limit: float) -> bytes:
    """Draw robust z-scores of runs, a row for each measure; those that are far in another colour.

    Parameters
    ----------
    scores : by measure, the scores and whether they are far, both (n_runs,).
    limit : beyond which runs are far.
    """
    figure = Figure(figsize=(_WIDTH_IN, 1.2 + 0.9 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for row, (values, is_far) in enumerate(scores.values()):
        heights = row + spread_heights(len(values))
        axes.plot(values[~is_far], heights[~is_far], "o", color=COLOURS[0], ms=4, alpha=0.6)
        axes.plot(values[is_far], heights[is_far], "D", color=COLOURS[1], ms=5)
    for end in (-limit, limit):
        axes.axvline(end, color=_LINE_COLOUR, ls="--", lw=1.2)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_xlabel("robust z-score")
    return _finish(figure, [axes])


def spread_heights(n_points: int) -> Floats:
    """Return small offsets that keep points of a row apart, the same every time."""
    golden = (math.sqrt(5) - 1) / 2
    heights: Floats = 0.6 * ((np.arange(n_points, dtype=np.float64) * golden) % 1 - 0.5)
    return heights


def _link_runs(axes: Axes, points: Floats, participants: Sequence[str]) -> None:
    people = list(dict.fromkeys(participants))
    if len(people) > _MAX_LINKED:
        return
    owner = np.array(participants)
    for person in people:
        own = points[owner == person]
        axes.plot(own[:, 0], own[:, 1], color="#d0d0d0", lw=0.8, zorder=1)


def _draw_points(axes: Axes, points: Floats, colouring: Colouring) -> None:
    values = colouring.values
    is_missing = np.array([value is None for value in values])
    x, y = points.T
    if is_missing.any():
        axes.scatter(x[is_missing], y[is_missing], c=_MISSING_COLOUR, s=22, label="n/a", zorder=2)
    numbers = [value for value in values if not isinstance(value, str) and value is not None]
    if numbers:
        dots = axes.scatter(x[~is_missing], y[~is_missing], c=numbers, s=26, zorder=3)
        axes.figure.colorbar(dots, ax=axes, label=colouring.name)
        return
    names = sorted({str(value) for value in values if value is not None}, key=natural_key)
    for place, name in enumerate(names):
        inside = np.array([value == name for value in values])
        axes.scatter(
            x[inside],
            y[inside],
            c=COLOURS[place % len(COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            s=26,
            label=name,
            zorder=3,
        )
    if names != [""]:
        axes.legend(frameon=False, fontsize=8, loc="best")


def _finish(figure: Figure, axes: Sequence[Axes]) -> bytes:
    for one in axes:
        one.grid(visible=True, color="#e2e2e2", lw=0.8)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return save_png(figure)
