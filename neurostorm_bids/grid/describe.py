"""What was done to a run, and what to doubt, in words for sidecars and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.grid.censoring import MAX_CENSORED_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.grid.spec import Size3
    from neurostorm_bids.grid.warp import Warp

CONSTANT_TOLERANCE = 0.1
"""Share of the brain voxels that may be constant without a word."""

REPETITION_TIME_TOLERANCE = 0.01
"""Share of the sidecar's repetition time by which the header's may differ without a word."""


def describe_steps(
    series: Series, source_shape: Size3, *, is_picked: bool, warp: Warp | None = None
) -> tuple[str, ...]:
    """Say what made a series, a sentence per step.

    Parameters
    ----------
    source_shape : voxels of the run along X, Y, Z.
    is_picked : whether every voxel of the grid coincides with one of the run.
    warp : between standard spaces, if there was one.
    """
    spec, statistics = series.spec, series.statistics
    space = (
        "Voxels coincide with the grid's and were picked, without interpolation"
        if is_picked
        else "Trilinear interpolation at the grid's voxels by the affines, without smoothing"
    )
    time = (
        "Linear interpolation in time between the centres of volumes"
        if series.clock.weight.any()
        else "Volumes were taken as they are"
    )
    read = (
        f"Read {len(series.frames)} volumes of {_by(source_shape)} voxels, one every "
        f"{series.source_repetition_time_s:g} s."
    )
    brain = (
        f"Brain mask brought to the grid by the nearest voxel: {series.frames.shape[1]} voxels; "
        f"{series.brain_coverage:.1%} of the mask lie in the field of view."
    )
    z_score = (
        f"One z-score over all brain voxels and volumes: mean {statistics.mean:g}, SD "
        f"{statistics.sd:g}; background set to the minimum, {statistics.background:.4g}."
    )
    return (
        read,
        *_describe_dropped(series),
        brain,
        *(() if warp is None else (warp.describe(),)),
        f"{space}: {_by(spec.shape)} of {_by(spec.voxel_size_mm)} mm in {spec.space}.",
        f"{time}: {series.n_volumes} volumes, one every {spec.repetition_time_s:g} s.",
        *_describe_denoising(series),
        *_describe_censoring(series),
        _describe_negatives(series),
        z_score,
    )


def doubt_clock(in_header: float, in_sidecar: float) -> list[str]:
    """Compare the repetition times of header and sidecar, in seconds."""
    if abs(in_header - in_sidecar) <= REPETITION_TIME_TOLERANCE * in_sidecar:
        return []
    doubt = (
        f"The repetition time is {in_header:g} s in the header and {in_sidecar:g} s in the "
        "sidecar; the sidecar's was used."
    )
    return [doubt]


def doubt_space(source_space: str | None, space: str) -> list[str]:
    """Compare the standard space of a run, if known, with the grid's."""
    if source_space in {None, space}:
        return []
    doubt = (
        f"The run is in {source_space}, the model's grid in {space}; it was used as it is, "
        "without a transform between the two spaces. With --warp download, TemplateFlow's is used."
    )
    return [doubt]


def doubt_values(finite: NDArray[np.bool_]) -> list[str]:
    """Count brain voxels, shape (n_brain,), that are not finite in some volume."""
    n_dropped = int(np.count_nonzero(~finite))
    if not n_dropped:
        return []
    doubt = (
        f"{n_dropped} of {len(finite)} brain voxels are NaN or infinite in some volume; they "
        "count as background."
    )
    return [doubt]


def doubt_constant(n_constant: int, n_brain: int) -> list[str]:
    """Tell how many brain voxels never change, where they are more than a few at the edge."""
    if n_constant <= CONSTANT_TOLERANCE * n_brain:
        return []
    doubt = (
        f"{n_constant} of {n_brain} brain voxels have the same value in every volume: the field of "
        "view may not hold all of the brain, or the mask may be another run's."
    )
    return [doubt]


def _describe_dropped(series: Series) -> list[str]:
    if not series.start_s:
        return []
    n_dropped = round(series.start_s / series.source_repetition_time_s)
    return [f"Dropped {n_dropped} volumes before them, the first {series.start_s:g} s of the run."]


def _describe_denoising(series: Series) -> list[str]:
    denoising = series.denoising
    if denoising is None:
        return []
    step = (
        f"Regressed {denoising['NumberOfRegressors']} independent confounds out of every voxel's "
        f"series (strategy {denoising['Strategy']} of nilearn), fitted on "
        f"{denoising['NumberOfVolumesFitted']} volumes; the voxels' means were kept."
    )
    return [step]


def _describe_censoring(series: Series) -> list[str]:
    censoring = series.censoring
    if censoring is None:
        return []
    why = (
        "as the denoising has it"
        if censoring.threshold_mm is None
        else f"with a framewise displacement above {censoring.threshold_mm:g} mm"
    )
    step = (
        f"Censored {len(censoring.volumes)} of {censoring.n_source_volumes} volumes, {why}; clips "
        f"with more than {MAX_CENSORED_SHARE:.0%} of such volumes are not read."
    )
    return [step]


def _describe_negatives(series: Series) -> str:
    if series.clip_negatives:
        return "Negative values were set to 0."
    if series.statistics.minimum < 0:
        return f"Negative values were kept; the smallest is {series.statistics.minimum:g}."
    return "There are no negative values."


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
