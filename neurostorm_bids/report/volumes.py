"""Pictures of a run in space: its mean with outlines of the brain, and its noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurostorm_bids.page.figures import save_svg
from neurostorm_bids.report.montage import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    find_template_brain,
    plan_montage,
    turn_all,
)
from neurostorm_bids.report.picture import Picture
from neurostorm_bids.report.signals import fill_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.report.montage import Montage
    from neurostorm_bids.report.signals import Signals

_WIDTH_IN = 9.0
_GAP_IN = 0.06
_FOOT_IN = 0.5
_MASK_COLOUR = "#ffb000"
_TEMPLATE_COLOUR = "#4fc3ff"


class _Layer(NamedTuple):
    """A mask in RAS+ whose outline is drawn, and how."""

    name: str
    mask: NDArray[np.floating]
    colour: str
    style: str


def draw_mosaic(series: Series, signals: Signals) -> Picture:
    """Draw the mean over time with the outlines of the run's brain mask and of the template."""
    mean = signals.sd if signals.is_demeaned else signals.mean
    shown = "standard deviation" if signals.is_demeaned else "mean"
    mask = series.brain_mask
    template = find_template_brain(series.spec.space, mask.shape, series.spec.affine_matrix)
    masks = [mask.astype(np.float32)]
    masks += [] if template is None else [template.astype(np.float32)]
    affine = series.spec.affine_matrix
    (volume, *turned), affine = turn_all([fill_grid(mean, mask), *masks], affine)
    layers = [_Layer("brain mask of the run", turned[0], _MASK_COLOUR, "solid")]
    if template is not None:
        layers.append(_Layer("brain of the MNI152 template", turned[1], _TEMPLATE_COLOUR, "dotted"))
    around = np.maximum.reduce(turned) > 0
    plans = [
        plan_montage(around, affine, AXIAL, n_tiles=14, n_columns=7),
        plan_montage(around, affine, CORONAL, n_tiles=7, n_columns=7),
        plan_montage(around, affine, SAGITTAL, n_tiles=6, n_columns=6),
    ]
    figure, all_axes, _ = _draw_montages(volume, plans, cmap="gray", high=_find_high(mean))
    for axes, plan in zip(all_axes, plans, strict=True):
        for layer in layers:
            image = plan.lay(layer.mask, background=0)
            axes.contour(
                image, levels=[0.5], colors=layer.colour, linewidths=0.9, linestyles=layer.style
            )
    handles = [
        Line2D([], [], color=one.colour, ls=one.style, lw=1.5, label=one.name) for one in layers
    ]
    figure.legend(
        handles=handles, loc="lower left", ncols=2, frameon=False, fontsize=8, labelcolor="white"
    )
    return Picture(
        kind="mosaic",
        title="The run on the model's grid",
        extension=".svg",
        content=save_svg(figure),
        alt=f"Axial, coronal and sagittal slices of the run's {shown} over time on the model's "
        f"grid ({series.spec.space}), with the outline of its brain mask. L is left, R is right.",
        caption=f"What the model saw: the {shown} over time, in the {len(series.frames[0])} voxels "
        "of the brain mask (orange). Left of the head is on the left (L), as the affine of the "
        "file has it; x, y and z are in millimetres. "
        + (
            "The dotted blue line is the brain of the MNI152 template: the two outlines should "
            "be within a few millimetres of each other. A brain that is shifted, turned or cut is "
            "not where the model expects it."
            if template is not None
            else ""
        ),
    )


def draw_noise(series: Series, signals: Signals) -> Picture:
    """Draw tSNR, or the standard deviation of a run without its mean."""
    if signals.is_demeaned:
        values, name = signals.sd, "standard deviation over time"
    else:
        values, name = signals.tsnr, "tSNR"
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if len(known) else float("nan")
    (volume, mask), affine = turn_all(
        [fill_grid(values, series.brain_mask), series.brain_mask.astype(np.float32)],
        series.spec.affine_matrix,
    )
    plans = [
        plan_montage(mask > 0, affine, view, n_tiles=7, n_columns=7) for view in (AXIAL, CORONAL)
    ]
    colours = colormaps["viridis"].with_extremes(bad="black")
    figure, _, image = _draw_montages(volume, plans, cmap=colours, high=_find_high(known))
    place = figure.add_axes((0.3, 0.38 / figure.get_figheight(), 0.4, 0.1 / figure.get_figheight()))
    bar = figure.colorbar(image, cax=place, orientation="horizontal")
    bar.set_label(f"{name} (median {middle:.4g})", color="white", fontsize=8)
    place.tick_params(colors="white", labelsize=7)
    if signals.is_demeaned:
        how = (
            "The mean over time of this run was removed, so that there is no tSNR: this is the "
            "standard deviation over time, in the unit of the file, after a linear trend."
        )
    else:
        how = (
            "Temporal signal-to-noise ratio of each voxel: its mean over time divided by its "
            "standard deviation, after a linear trend. Low everywhere: much noise or motion. Low "
            "above the nose and the ears: signal that air nearby takes away, as in most EPI. "
            "Sharp stripes or blocks: an artefact."
        )
    return Picture(
        kind="tsnr",
        title="Signal and noise" if not signals.is_demeaned else "Fluctuation",
        extension=".svg",
        content=save_svg(figure),
        alt=f"Axial and coronal slices coloured by {name}; the median is {middle:.4g}.",
        caption=f"{how} Median over the brain: {middle:.4g}.",
        measures={"MedianSD" if signals.is_demeaned else "MedianTSNR": middle},
    )


def _draw_montages(
    volume: NDArray[np.floating], plans: Sequence[Montage], *, cmap: str | Colormap, high: float
) -> tuple[Figure, list[Axes], AxesImage]:
    """Draw montages below each other, over the whole width, on black."""
    heights = [_WIDTH_IN * plan.height_per_width for plan in plans]
    total = sum(heights) + _GAP_IN * len(plans) + _FOOT_IN
    figure = Figure(figsize=(_WIDTH_IN, total), facecolor="black")
    top, drawn = total, []
    image = None
    for plan, height in zip(plans, heights, strict=True):
        top -= height + _GAP_IN
        axes = figure.add_axes((0, top / total, 1, height / total))
        axes.set_axis_off()
        pixels = plan.lay(volume, background=np.nan)
        image = axes.imshow(
            np.nan_to_num(pixels) if cmap == "gray" else pixels,
            cmap=cmap,
            vmin=0,
            vmax=high,
            interpolation="none",
            aspect="auto",
        )
        plan.write_labels(axes, colour="white")
        drawn.append(axes)
    assert image is not None  # noqa: S101 - there is at least one plan
    return figure, drawn, image


def _find_high(values: NDArray[np.floating]) -> float:
    """Return what all but some outliers lie below; above 0."""
    known = values[np.isfinite(values)]
    high = float(np.percentile(known, 99)) if len(known) else 0.0
    return high if high > 0 else 1.0
