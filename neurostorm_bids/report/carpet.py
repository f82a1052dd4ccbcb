"""Picture of a run in time: motion, change and brightness above a carpet of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from neurostorm_bids.page.figures import save_svg
from neurostorm_bids.report.picture import COLOURS, GREY, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neurostorm_bids.report.signals import Signals

    Floats = NDArray[np.float64]

_WIDTH_IN = 9.0
_CARPET_IN = 2.6
_TRACE_IN = 0.75
_MAX_COLUMNS = 600
_REACH_SD = 2.0
_MUCH_MOTION_MM = 0.5


class _Trace(NamedTuple):
    """A number for each volume, drawn above the carpet."""

    name: str
    values: Floats
    colour: str
    level: float | None = None


def draw_carpet(
    signals: Signals, *, repetition_time_s: float, displacement: Floats | None
) -> Picture:
    """Draw framewise displacement, DVARS and the global signal above a carpet plot.

    Parameters
    ----------
    repetition_time_s : of the volumes of the signals.
    displacement : framewise displacement of the same volumes, mm; None if it is not known.
    """
    traces = [
        _Trace("DVARS\n(x median)", signals.dvars, COLOURS[2]),
        _Trace("brain\nmean", signals.global_signal, COLOURS[3]),
    ]
    if displacement is not None:
        traces.insert(0, _Trace("FD\n(mm)", displacement, COLOURS[1], _MUCH_MOTION_MM))
    n_volumes = len(signals.dvars)
    seconds = n_volumes * repetition_time_s
    heights = [*[_TRACE_IN] * len(traces), _CARPET_IN]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights) + 0.5))
    figure.subplots_adjust(left=0.09, right=0.985, top=0.98, bottom=0.4 / figure.get_figheight())
    all_axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    time = (np.arange(n_volumes) + 0.5) * repetition_time_s
    for axes, trace in zip(all_axes[:-1], traces, strict=True):
        axes.plot(time, trace.values, color=trace.colour, lw=1)
        if trace.level is not None and np.nanmax(trace.values, initial=0) > trace.level / 2:
            axes.axhline(trace.level, color=GREY, ls="--", lw=0.8)
        axes.set_ylabel(trace.name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.locator_params(axis="y", nbins=3)
        axes.spines[["top", "right"]].set_visible(False)
    below = all_axes[-1]
    below.imshow(
        _thin(signals.carpet),
        cmap="gray",
        vmin=-_REACH_SD,
        vmax=_REACH_SD,
        interpolation="none",
        aspect="auto",
        extent=(0, seconds, 1, 0),
    )
    below.set_yticks([0.03, 0.97], ["edge", "core"], fontsize=8)
    below.tick_params(axis="y", length=0)
    below.tick_params(axis="x", labelsize=8)
    below.set_ylabel("voxels", fontsize=8)
    below.set_xlabel("seconds from the first volume that was kept", fontsize=8)
    below.set_xlim(0, seconds)
    figure.align_ylabels()
    return Picture(
        kind="carpet",
        title="Motion and carpet plot",
        extension=".svg",
        content=save_svg(figure),
        alt=_tell_shown(traces, len(signals.carpet), n_volumes),
        caption=_tell_how_to_read(displacement),
        measures=_measure(displacement),
    )


def _measure(displacement: Floats | None) -> dict[str, float]:
    if displacement is None or not np.isfinite(displacement).any():
        return {}
    known = displacement[np.isfinite(displacement)]
    return {
        "MeanFramewiseDisplacement": float(known.mean()),
        "MaximumFramewiseDisplacement": float(known.max()),
        "ShareOfVolumesAboveHalfMillimetre": float((known > _MUCH_MOTION_MM).mean()),
    }


def _tell_shown(traces: list[_Trace], n_rows: int, n_volumes: int) -> str:
    names = ", ".join(" ".join(trace.name.split()) for trace in traces)
    return (
        f"Curves over time of {names}; below them a carpet plot of {n_rows} voxels over "
        f"{n_volumes} volumes."
    )


def _tell_how_to_read(displacement: Floats | None) -> str:
    found = _measure(displacement)
    if not found:
        motion = "The source has no framewise displacement for this run."
    else:
        motion = (
            f"FD is framewise displacement, how far the head moved from one volume to the next: "
            f"{found['MeanFramewiseDisplacement']:.2f} mm on average, "
            f"{found['MaximumFramewiseDisplacement']:.2f} mm at most, and more than 0.5 mm in "
            f"{found['ShareOfVolumesAboveHalfMillimetre']:.0%} of the volumes."
        )
    return (
        f"{motion} DVARS is how much the image changed from one volume to the next, as a multiple "
        "of its median. Each row of the carpet is a voxel, from the edge of the brain (top) to its "
        "core, without mean and linear trend: white is two standard deviations above the mean, "
        "black two below. Dark or bright bars from top to bottom are moments at which the whole "
        "brain changed: with a peak of FD above them, that was motion."
    )


def _thin(carpet: NDArray[np.floating]) -> NDArray[np.floating]:
    """Average neighbouring volumes, so that there are no more than a picture can show."""
    n_volumes = carpet.shape[1]
    if n_volumes <= _MAX_COLUMNS:
        return carpet
    starts = np.arange(_MAX_COLUMNS) * n_volumes // _MAX_COLUMNS
    counts = np.diff(np.append(starts, n_volumes))
    return np.add.reduceat(carpet, starts, axis=1) / counts.astype(np.float32)
