"""Which regions of one run drove a model's prediction, or are hard to reconstruct."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from neurostorm_bids.attribute.baseline import make_baseline
from neurostorm_bids.attribute.gradients import integrate_gradients
from neurostorm_bids.attribute.occlusion import occlude_regions
from neurostorm_bids.attribute.quantity import choose_quantity
from neurostorm_bids.attribute.reconstruction import PUBLISHED_MASK, reconstruct_regions
from neurostorm_bids.attribute.result import Completeness, Finding, RunAttribution, Settings
from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.clips import find_clip_starts, weigh_clips

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neurostorm_bids.attribute.quantity import Quantity
    from neurostorm_bids.attribute.regions import SeenRegions
    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.pretrained import Model

MAX_COMPLETENESS_ERROR = 0.05
"""Of integrated gradients, as a share of what they explain; above it a warning is given."""

_UNKNOWN_MASK = (
    f"The model does not say how its tokens were masked; {PUBLISHED_MASK} was taken, as in the "
    "published models."
)


class _Sample(NamedTuple):
    """The clips that are looked at: their first volumes, and weights that sum to one."""

    starts: list[int]
    weights: NDArray[np.float64]


def check_attributable(model: Model) -> None:
    """Check that there is something to attribute.

    Raises
    ------
    UsageError
        If the model has neither a head that predicts nor a decoder.
    """
    if model.target is None and not model.decoder_weights:
        raise UsageError(
            f"The model {model.provenance.name} has neither a head that predicts nor a decoder "
            "that reconstructs: expected one of these for --attribution. Leave --attribution out, "
            "or give a model that was fine-tuned, or pretrained with --objective mae."
        )


def attribute_series(
    model: Model,
    series: Series,
    *,
    regions: SeenRegions,
    settings: Settings,
    output: NDArray[np.float32] | None,
    batch_size: int | None = None,
) -> RunAttribution:
    """Attribute a model's output for a run to regions and voxels.

    Parameters
    ----------
    output : shape (M,), what `predict_series` says of the run; None for a model without a head.
    batch_size : clips in the network at once; None chooses.

    Raises
    ------
    UsageError
        If the model has neither a head nor a decoder.
    """
    check_attributable(model)
    starts = find_clip_starts(series.n_volumes, model.clip_length)
    sample = _choose_clips(model, series, starts, limit=settings.n_clips)
    if model.target is None or output is None:
        found = _reconstruct(model, series, sample, regions=regions, batch_size=batch_size)
    else:
        quantity = choose_quantity(model.target, output)
        explain = _occlude if settings.method == "occlusion" else _integrate
        found = explain(
            model,
            series,
            sample,
            regions=regions,
            settings=settings,
            quantity=quantity,
            batch_size=batch_size,
        )
    clock_s = model.grid.repetition_time_s
    return RunAttribution(
        found=found,
        settings=settings,
        regions=regions,
        onsets_s=tuple(round(series.start_s + start * clock_s, 6) for start in sample.starts),
        n_clips=len(starts),
        series=series,
    )


def _choose_clips(
    model: Model, series: Series, starts: Sequence[int], *, limit: int | None
) -> _Sample:
    """Choose among the clips that predictions rest on: all but those with much censored."""
    length = model.clip_length
    censoring = series.count_censored(starts, length)
    if series.censoring is not None and censoring is not None:
        series.censoring.check_any(censoring, name="the run")
        starts = [start for start, used in zip(starts, censoring.is_used, strict=True) if used]
    chosen = spread_evenly(len(starts), limit)
    weights = weigh_clips(starts, length, series.n_volumes)[chosen]
    return _Sample([starts[k] for k in chosen], weights / weights.sum())


def spread_evenly(n_clips: int, limit: int | None) -> list[int]:
    """Choose clips evenly over a run: the middles of as many equal parts as there may be clips."""
    n = n_clips if limit is None else min(limit, n_clips)
    return [(2 * part + 1) * n_clips // (2 * n) for part in range(n)]


def _occlude(
    model: Model,
    series: Series,
    sample: _Sample,
    *,
    regions: SeenRegions,
    settings: Settings,
    quantity: Quantity,
    batch_size: int | None,
) -> Finding:
    by_clip = [
        occlude_regions(
            model,
            clip,
            make_baseline(settings.baseline, clip, series),
            regions=regions,
            quantity=quantity,
            batch_size=batch_size,
        )
        for clip in _read_clips(model, series, sample.starts)
    ]
    drops = sample.weights @ np.stack([one.drops for one in by_clip])  # (R + 1,)
    return Finding(
        method="occlusion",
        quantity=quantity,
        unit=quantity.unit,
        attributions=drops,
        voxels=regions.paint(drops),
        output=float(sample.weights @ [one.output for one in by_clip]),
    )


def _integrate(
    model: Model,
    series: Series,
    sample: _Sample,
    *,
    regions: SeenRegions,
    settings: Settings,
    quantity: Quantity,
    batch_size: int | None,
) -> Finding:
    voxels = np.zeros(series.spec.shape)
    outputs = np.zeros(2)
    clips = _read_clips(model, series, sample.starts)
    for clip, weight in zip(clips, sample.weights, strict=True):
        one = integrate_gradients(
            model,
            clip,
            make_baseline(settings.baseline, clip, series),
            quantity=quantity,
            n_steps=settings.n_steps,
            batch_size=batch_size,
        )
        voxels += weight * one.voxels
        outputs += weight * np.array([one.output, one.baseline_output])
    completeness = Completeness(
        output=float(outputs[0]), baseline_output=float(outputs[1]), total=float(voxels.sum())
    )
    return Finding(
        method="ig",
        quantity=quantity,
        unit=quantity.unit,
        attributions=regions.add_up(voxels),
        voxels=voxels.astype(np.float32),
        output=completeness.output,
        completeness=completeness,
        warnings=_doubt(completeness, n_steps=settings.n_steps),
    )


def _reconstruct(
    model: Model,
    series: Series,
    sample: _Sample,
    *,
    regions: SeenRegions,
    batch_size: int | None,
) -> Finding:
    clips = _read_clips(model, series, sample.starts)
    table = reconstruct_regions(model, clips, regions=regions, batch_size=batch_size)
    table = table.set_index("index").reindex(range(len(regions.indices)))
    errors = table["error"].to_numpy(dtype=np.float64)
    return Finding(
        method="reconstruction",
        quantity=None,
        unit="z-score squared",
        attributions=errors,
        voxels=regions.paint(errors),
        columns={"relative_error": table["relative_error"].to_numpy(dtype=np.float64)},
        warnings=() if model.mask_scheme else (_UNKNOWN_MASK,),
    )


def _doubt(completeness: Completeness, *, n_steps: int) -> tuple[str, ...]:
    """Warn where integrated gradients do not add up."""
    share = completeness.relative_error
    if share <= MAX_COMPLETENESS_ERROR:
        return ()
    if not math.isfinite(share):
        doubt = (
            "The model says the same of the baseline as of the clips: there is no difference that "
            f"the attributions could add up to (they add up to {completeness.total:.4g}), and how "
            "good they are is not known. Occlusion does not need it."
        )
        return (doubt,)
    doubt = (
        f"With {n_steps} steps the attributions add up to {completeness.total:.4g} in place of "
        f"{completeness.output - completeness.baseline_output:.4g}: an error of {share:.0%}. "
        "Regions that differ by less than that are not told apart; occlusion does not have it."
    )
    return (doubt,)


def _read_clips(model: Model, series: Series, starts: Sequence[int]) -> Iterator[Tensor]:
    """Read clips (1, 1, X, Y, Z, T), where and as precise as the model's weights."""
    weight = next(model.backbone.parameters())
    for start in starts:
        clip = torch.from_numpy(series.read_clip(start, model.clip_length))
        yield clip[None, None].to(weight.device, weight.dtype)
