"""Pictures of what a model says of a run: predictions over its clips, and how alike these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from neurostorm_bids.page.figures import save_svg
from neurostorm_bids.report.picture import COLOURS, GREY, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.predict import RunPrediction

    Floats = NDArray[np.float64]

_WIDTH_IN = 9.0
_MAX_CLASSES = 6
_FEWEST_CLIPS = 3
_MAX_NAME = 18


class _Said(NamedTuple):
    """What a head says: of clips (K, M), of the run (M,), and its spread over clips (M,)."""

    target: TargetSpec
    clips: NDArray[np.float32]
    run: NDArray[np.float32]
    spread: NDArray[np.float32]


def draw_predictions(prediction: RunPrediction) -> Picture | None:
    """Draw a prediction over clips and for the whole run; None for a model without a head."""
    target, clips = prediction.target, prediction.clip_outputs
    run, spread = prediction.output, prediction.spread
    if target is None or clips is None or run is None or spread is None:
        return None
    said = _Said(target, clips, run, spread)
    is_class = target.kind == "classification"
    figure = Figure(figsize=(_WIDTH_IN, 3.0))
    gap = 0.3 if is_class else 0.06  # names of classes stand in it
    figure.subplots_adjust(left=0.09, right=0.985, bottom=0.17, top=0.9, wspace=gap)
    course, whole = figure.subplots(1, 2, sharey=not is_class, width_ratios=[3, 1])
    if is_class:
        told = _draw_classes(course, whole, prediction, said)
    else:
        told = _draw_value(course, whole, prediction, said)
    course.set_xlabel("seconds from the first volume", fontsize=9)
    course.set_title("clip by clip", fontsize=10)
    whole.set_title("whole run", fontsize=10)
    for axes in (course, whole):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    caption = (
        f"{told} Left: each bar is one clip of {prediction.duration_s:.3g} s, which the model read "
        "by itself. Right: the run, the mean over its clips in which every volume counts once; "
        "the thin line is the spread, one standard deviation over clips to either side. "
        + _tell_bounds(prediction)
        + "The spread is no margin of error: clips of a person are alike also where the model is "
        "wrong."
    )
    return Picture(
        kind="predictions",
        title=f"Prediction of {target.name}",
        extension=".svg",
        content=save_svg(figure),
        alt=f"Predicted {target.name} for each of {len(clips)} clips over time, and for the "
        f"whole run. {told}",
        caption=caption,
    )


def draw_recurrence(prediction: RunPrediction) -> Picture | None:
    """Draw how alike the embeddings of clips are; None for a run of one or two clips."""
    n_clips = len(prediction.clip_embeddings)
    is_seen = np.isfinite(prediction.clip_embeddings).all(axis=1)  # others are censored
    if is_seen.sum() < _FEWEST_CLIPS:
        return None
    similarity = np.full((n_clips, n_clips), np.nan)
    similarity[np.ix_(is_seen, is_seen)] = compare_clips(prediction.clip_embeddings[is_seen])
    distance = measure_distances(prediction.clip_embeddings, prediction.embedding)
    centres = prediction.onsets_s + prediction.duration_s / 2
    figure = Figure(figsize=(_WIDTH_IN, 3.4))
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.15, top=0.96, wspace=0.27)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    image = left.imshow(
        similarity, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none", origin="lower"
    )
    bar = figure.colorbar(image, ax=left, shrink=0.9, pad=0.03)
    bar.set_label("similarity", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    left.set_xlabel("clip", fontsize=9)
    left.set_ylabel("clip", fontsize=9)
    right.plot(centres, distance, "o-", color=COLOURS[0], ms=3, lw=1)
    right.set_xlabel("seconds from the first volume", fontsize=9)
    right.set_ylabel("distance from the run's embedding (%)", fontsize=9)
    right.set_ylim(bottom=0)
    right.spines[["top", "right"]].set_visible(False)
    left.locator_params(integer=True, nbins=6)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
    odd = int(np.nanargmax(distance))
    told = (
        f"Clips are {np.nanmean(distance):.2g} % away from the run's embedding on average, and "
        f"clip {odd}, from {prediction.onsets_s[odd]:.4g} s on, is the farthest with "
        f"{distance[odd]:.2g} %."
    )
    return Picture(
        kind="recurrence",
        title="Recurrence of the embedding",
        extension=".svg",
        content=save_svg(figure),
        alt=f"Similarity of the embeddings of {n_clips} clips, each with each, and the distance "
        f"of each from the run's embedding over time. {told}",
        caption="How alike the model finds the clips of this run. Left: each clip with each, "
        "counted from 0: the cosine of the angle between their embeddings, without what all of "
        "them share. Red squares along the diagonal are states that last, red stripes away from "
        "it states that come back. Right: how far each clip is from the run's embedding, as a "
        "share of the length of that; a single peak is a clip unlike all others, often one with "
        f"motion. {told}",
    )


def compare_clips(embeddings: NDArray[np.float32]) -> Floats:
    """Return the cosine similarity of all pairs of clips, without their mean: (K, D) -> (K, K)."""
    vectors = embeddings.astype(np.float64)
    vectors -= vectors.mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    similarity: Floats = (vectors @ vectors.T).clip(-1, 1)
    np.fill_diagonal(similarity, 1)
    return similarity


def measure_distances(embeddings: NDArray[np.float32], mean: NDArray[np.float32]) -> Floats:
    """Return how far clips are from the run's embedding, in per cent of its length: (K,)."""
    length = float(np.linalg.norm(mean.astype(np.float64))) or 1.0
    distances: Floats = 100 * np.linalg.norm(embeddings.astype(np.float64) - mean, axis=1) / length
    return distances


def _draw_classes(course: Axes, whole: Axes, prediction: RunPrediction, said: _Said) -> str:
    """Draw the probabilities of the most probable classes; return what the run's are."""
    order = np.argsort(-said.run, kind="stable")[:_MAX_CLASSES]
    places = np.arange(len(order))
    for place, one in zip(places, order, strict=True):
        colour = COLOURS[place]
        _draw_clips(course, prediction, said.clips[:, one], colour=colour)
        whole.barh(place, said.run[one], color=colour, height=0.6)
        whole.errorbar(
            said.run[one],
            place,
            xerr=np.nan_to_num(said.spread[one]),
            color="black",
            lw=1,
        )
    names = [_shorten(said.target.classes[one]) for one in order]
    whole.set_yticks(places, names)
    for tick, colour in zip(whole.get_yticklabels(), COLOURS, strict=False):
        tick.set_color(colour)
    whole.invert_yaxis()
    whole.set_xlim(0, 1)
    whole.set_xlabel("probability", fontsize=9)
    course.set_ylim(-0.02, 1.02)
    course.set_ylabel(f"probability\n({said.target.name})", fontsize=9)
    winner = order[0]
    return (
        f"Most probable: {said.target.name} = {said.target.classes[winner]}, with a probability of "
        f"{said.run[winner]:.3f}{_tell_spread(said.spread[winner], '')}."
    )


def _draw_value(course: Axes, whole: Axes, prediction: RunPrediction, said: _Said) -> str:
    """Draw a predicted number; return what it is."""
    unit = "z-score" if said.target.mean is None else said.target.unit or ""
    value, spread = float(said.run[0]), float(said.spread[0])
    _draw_clips(course, prediction, said.clips[:, 0], colour=COLOURS[0])
    course.axhline(value, color=GREY, lw=1, ls="--")
    course.set_ylabel(f"{said.target.name} ({unit})" if unit else said.target.name, fontsize=9)
    course.ticklabel_format(axis="y", useOffset=False)
    interval = None if prediction.assessment is None else prediction.assessment.interval
    if interval is not None:
        whole.bar(0, interval[1] - interval[0], bottom=interval[0], width=0.5, color="#cfe0ee")
    whole.errorbar(0, value, yerr=np.nan_to_num(spread), color="black", lw=1, capsize=4)
    whole.plot(0, value, "o", color=COLOURS[0], ms=7)
    whole.set_xlim(-1, 1)
    whole.set_xticks([])
    words = f" {unit}" if unit else ""
    return f"Predicted {said.target.name}: {value:.4g}{words}{_tell_spread(spread, words)}."


def _draw_clips(
    axes: Axes, prediction: RunPrediction, values: NDArray[np.float32], *, colour: str
) -> None:
    """Draw a bar as long as a clip at each clip's value, and a line through them."""
    onsets = prediction.onsets_s
    series = prediction.series
    end = series.start_s + series.n_volumes * series.spec.repetition_time_s
    ends = np.minimum(onsets + prediction.duration_s, end)
    axes.plot((onsets + ends) / 2, values, color=colour, lw=0.8, alpha=0.6)
    axes.hlines(values, onsets, ends, color=colour, lw=2.5)
    axes.set_xlim(series.start_s, end)


def _tell_spread(spread: float, unit: str) -> str:
    return f" (spread over clips {spread:.3g}{unit})" if np.isfinite(spread) else ""


def _tell_bounds(prediction: RunPrediction) -> str:
    """Say in words how far the model's calibration trusts it."""
    found = prediction.assessment
    if found is None:
        return ""
    told = ""
    if found.interval is not None and found.coverage is not None:
        low, high = found.interval
        told = (
            f"The pale bar, from {low:.4g} to {high:.4g}, is made to hold the true value of "
            f"{found.coverage:.0%} of people like those of the calibration. "
        )
    if found.is_in_set is not None and prediction.target is not None and found.coverage:
        names = zip(prediction.target.classes, found.is_in_set, strict=True)
        told = (
            f"The set {{{', '.join(name for name, is_in in names if is_in)}}} is made to hold the "
            f"true class of {found.coverage:.0%} of people like those of the calibration. "
        )
    if found.novelty_rank is not None:
        told += (
            f"This run is farther from the training runs than {found.novelty_rank:.0%} of these "
            "are from each other. "
        )
    return told


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
