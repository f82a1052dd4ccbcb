"""Pictures of out-of-fold predictions, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from neurostorm_bids.page.figures import save_png
from neurostorm_bids.train.metrics import bin_calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_WIDTH_IN = 9.0
_MAX_CURVES = 6
_DARK = 0.6
# Told apart by the colour-blind, and each with a contrast of at least 3 : 1 to white.
_COLOURS = ("#0060a8", "#b03a00", "#6a2c91", "#00735c", "#8a6100", "#1b1b1b")


def draw_regression(truth: Floats, predictions: Floats, *, unit: str) -> bytes:
    """Draw predicted against true numbers, and the errors; both (n,), NaN where not tested."""
    is_tested = np.isfinite(predictions)
    true, predicted = truth[is_tested], predictions[is_tested]
    label = f" ({unit})" if unit else ""
    figure = Figure(figsize=(_WIDTH_IN, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    left.plot(ends, ends, "--", color="#8c8c8c", lw=1.2)
    left.plot(true, predicted, "o", color=_COLOURS[0], ms=4, alpha=0.7)
    left.set_ylabel(f"predicted{label}")
    left.set_aspect("equal")
    right.axhline(0, color="#8c8c8c", ls="--", lw=1.2)
    right.plot(true, predicted - true, "o", color=_COLOURS[0], ms=4, alpha=0.7)
    right.set_ylabel(f"predicted minus true{label}")
    for axes in (left, right):
        axes.set_xlabel(f"true{label}")
    return _finish(figure, [left, right])


def draw_classification(
    truth: Floats,
    probabilities: Floats,
    *,
    classes: Sequence[str],
    confusion: Sequence[Sequence[int]],
) -> bytes:
    """Draw the confusion matrix, ROC curves and calibration.

    Parameters
    ----------
    truth : shape (n,), positions of the classes.
    probabilities : shape (n, C), NaN where not tested.
    classes : names.
    confusion : counts, (C, C), by true and by predicted class.
    """
    is_tested = np.isfinite(probabilities).all(axis=1)
    true, predicted = truth[is_tested].astype(int), probabilities[is_tested]
    figure = Figure(figsize=(_WIDTH_IN, 3.4), layout="constrained")
    matrix, roc, calibration = figure.subplots(1, 3)
    _draw_confusion(matrix, np.array(confusion), classes)
    _draw_roc(roc, true, predicted, classes)
    _draw_calibration(calibration, true, predicted)
    return _finish(figure, [roc, calibration])


def find_roc(scores: Floats, is_positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return false and true positive rates for every threshold, from 0 to 1."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(is_positive[order])[ends] / max(1, is_positive.sum())
    alarms = np.cumsum(~is_positive[order])[ends] / max(1, (~is_positive).sum())
    return np.append(0.0, alarms), np.append(0.0, hits)


def _draw_confusion(axes: Axes, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="right")
    axes.set_yticks(places, classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row in places:
        for column in places:
            colour = "white" if shares[row, column] > _DARK else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)


def _draw_roc(
    axes: Axes, true: NDArray[np.int64], predicted: Floats, classes: Sequence[str]
) -> None:
    shown = range(1, 2) if len(classes) == 2 else range(min(len(classes), _MAX_CURVES))  # noqa: PLR2004
    for one, colour in zip(shown, _COLOURS, strict=False):
        if not (true == one).any():
            continue
        alarms, hits = find_roc(predicted[:, one], true == one)
        axes.plot(alarms, hits, color=colour, lw=1.6, label=classes[one])
    axes.plot([0, 1], [0, 1], "--", color="#8c8c8c", lw=1.2)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    if axes.get_legend_handles_labels()[1]:  # none where nobody is of a class
        axes.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_calibration(axes: Axes, true: NDArray[np.int64], predicted: Floats) -> None:
    axes.plot([0, 1], [0, 1], "--", color="#8c8c8c", lw=1.2)
    for n, x, y in bin_calibration(true, predicted):
        axes.plot(x, y, "o", color=_COLOURS[0], ms=5)
        axes.annotate(str(n), (x, y), xytext=(4, 4), textcoords="offset points")
    axes.set_xlabel("probability of the predicted class")
    axes.set_ylabel("share that came true")
    axes.set_xlim(0, 1.05)
    axes.set_ylim(-0.05, 1.05)


def _finish(figure: Figure, axes: Sequence[Axes]) -> bytes:
    for one in axes:
        one.grid(visible=True, color="#e2e2e2", lw=0.8)
        one.spines[["top", "right"]].set_visible(False)
    return save_png(figure)
