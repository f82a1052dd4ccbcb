"""Pictures of a training, as PNG: loss curves, and slices through a reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from neurostorm_bids.grid.planes import VIEWS, Slice, View, cut_slice, turn_to_ras
from neurostorm_bids.page.figures import save_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from neurostorm_bids.train.files import Row
    from neurostorm_bids.train.reconstruction import Example

_WIDTH_IN = 9.0
_MAX_POINTS = 1000
_WIDE_RATIO = 1000
_INSET = 0.05

# Told apart by the colour-blind, and each with a contrast of at least 3 : 1 to white.
_TRAINING_COLOUR = "#8c8c8c"
_VALIDATION_COLOUR = "#0060a8"
_LINE_STYLES = (("#b03a00", "--"), ("#6a2c91", ":"))
_MASKED_COLOUR = "#d9902f"
_VISIBLE_COLOUR = "#c8c8c8"


class _Panel(NamedTuple):
    name: str
    volume: NDArray[np.floating]
    colours: Colormap
    low: float
    high: float


def draw_curves(
    training: Sequence[Row],
    validation: Sequence[Row],
    *,
    columns: Sequence[str],
    best_step: int,
    levels: Mapping[str, Mapping[str, float]],
) -> bytes:
    """Draw losses over the updates, on logarithmic axes, and the learning rate below them.

    Parameters
    ----------
    training, validation : rows with ``step`` and the columns, in the order of steps; of a long
        training, means of neighbouring rows are drawn.
    columns : the losses, each of which gets axes of its own.
    best_step : of the evaluation with the lowest loss, which is marked.
    levels : losses to draw across the axes of a column: by column, and by what they are called.
    """
    heights = [3.0 if len(columns) == 1 else 2.2] * len(columns) + [1.2]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, column in zip(axes[:-1], columns, strict=True):
        axis.plot(*_thin(training, column), color=_TRAINING_COLOUR, lw=1, label="training")
        _draw_validation(axis, *_list_column(validation, column), best_step=best_step)
        own = levels.get(column, {}).items()
        for (name, level), (colour, style) in zip(own, _LINE_STYLES, strict=False):
            axis.axhline(level, color=colour, ls=style, lw=1.8, label=f"{name}\n({level:.4g})")
        axis.set_ylabel(column.replace("_", " "))
        _scale_loss(axis)
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    axes[-1].plot(*_thin(training, "learning_rate"), color="#1b1b1b", lw=1.2)
    axes[-1].set_ylabel("learning rate")
    axes[-1].set_ylim(bottom=0)
    axes[-1].set_xlabel("updates of the weights")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    for axis in axes:
        axis.grid(visible=True, color="#e2e2e2", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    return save_png(figure)


def draw_slices(example: Example, affine: NDArray[np.float64]) -> bytes:
    """Draw original, masked, reconstructed and error in three planes, in neurological convention.

    Which side is left is read from the affine; the left of the brain is on the left. The planes are
    those through most of the brain, masked voxels counting twice.

    Parameters
    ----------
    example : what to draw.
    affine : shape (4, 4), voxels to world millimetres (RAS+).
    """
    brain = example.original > example.original.min()
    weights, _ = turn_to_ras(brain * (1.0 + example.masked), affine)
    panels = _list_panels(example, brain)
    rows = []
    for view in VIEWS:
        plane = int(weights.sum(axis=(view.right, view.up)).argmax())
        rows.append([cut_slice(*turn_to_ras(p.volume, affine), view, plane) for p in panels])
    ratios = [row[0].size_mm[1] / row[0].size_mm[0] for row in rows]
    figure = Figure(figsize=(_WIDTH_IN, 2.1 * sum(ratios) + 1.0), layout="constrained")
    axes = figure.subplots(len(VIEWS), len(panels), height_ratios=ratios)
    for view, row, row_axes in zip(VIEWS, rows, axes, strict=True):
        for panel, cut, axis in zip(panels, row, row_axes, strict=True):
            axis.imshow(
                cut.image,
                cmap=panel.colours,
                vmin=panel.low,
                vmax=panel.high,
                origin="lower",
                extent=(0, cut.size_mm[0], 0, cut.size_mm[1]),
                interpolation="nearest",
            )
            _name_ends(axis, view, cut)
            axis.tick_params(length=0, labelleft=panel is panels[0])
        row_axes[0].set_ylabel(f"{view.name}\n{'xyz'[view.through]} = {row[0].position_mm:.0f} mm")
    for panel, axis in zip(panels, axes[0], strict=True):
        axis.set_title(panel.name, fontsize=12)
    for shown, label in (
        (axes[:, :-1], "signal (z)"),
        (axes[:, -1:], "reconstructed minus original"),
    ):
        image = shown[0, 0].images[0]
        figure.colorbar(image, ax=shown, location="bottom", label=label, aspect=12 * shown.shape[1])
    return save_png(figure)


def _list_panels(example: Example, brain: NDArray[np.bool_]) -> list[_Panel]:
    original, masked = example.original, example.masked
    low, high = _find_range(original[brain])
    reach = max(map(abs, _find_range(example.error[masked])))
    grey = colormaps["gray"].with_extremes(bad=_MASKED_COLOUR)
    signed = colormaps["RdBu_r"].with_extremes(bad=_VISIBLE_COLOUR)
    return [
        _Panel("original", original, grey, low, high),
        _Panel("masked", np.where(masked, np.nan, original), grey, low, high),
        _Panel("reconstructed", example.reconstructed, grey, low, high),
        _Panel("error", np.where(masked, example.error, np.nan), signed, -reach, reach),
    ]


def _find_range(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return what all but some outliers lie between; never the same number twice."""
    low, high = np.percentile(values, (0.5, 99.5)).tolist() if values.size else (0.0, 0.0)
    return low, high if high > low else low + 1


def _name_ends(axis: Axes, view: View, cut: Slice) -> None:
    """Write at the edges of a picture where they lie in the brain."""
    left, right, bottom, top = view.ends
    width, height = cut.size_mm
    axis.set_xticks([_INSET * width, (1 - _INSET) * width], [left, right])
    axis.set_yticks([_INSET * height, (1 - _INSET) * height], [bottom, top])


def _draw_validation(
    axis: Axes, steps: NDArray[np.float64], losses: NDArray[np.float64], *, best_step: int
) -> None:
    axis.plot(steps, losses, "o-", color=_VALIDATION_COLOUR, lw=2, ms=4, label="validation")
    is_best = steps == best_step
    axis.plot(
        steps[is_best],
        losses[is_best],
        "o",
        ms=12,
        mfc="none",
        mec=_VALIDATION_COLOUR,
        mew=1.5,
        label="weights that are kept",
    )


def _scale_loss(axis: Axes) -> None:
    """Make an axis logarithmic, with plain numbers, where all that it shows is above 0."""
    shown = np.concatenate([np.asarray(line.get_ydata()) for line in axis.lines])
    if (shown > 0).all():
        axis.set_yscale("log")
        is_wide = shown.max() > _WIDE_RATIO * shown.min()
        axis.yaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _list_column(
    rows: Sequence[Row], column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = np.array([(row["step"], row[column]) for row in rows], dtype=np.float64)
    steps, values = pairs.reshape(-1, 2).T
    return steps, values


def _thin(rows: Sequence[Row], column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average neighbouring rows, so that no more are left than a picture can show."""
    steps, values = _list_column(rows, column)
    if len(steps) <= _MAX_POINTS:
        return steps, values
    places = np.arange(len(steps)) * _MAX_POINTS // len(steps)
    counts = np.bincount(places)
    return np.bincount(places, steps) / counts, np.bincount(places, values) / counts
