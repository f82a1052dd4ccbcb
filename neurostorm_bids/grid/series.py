"""A run on the grid: brain voxels in memory, volumes of the model's clock when they are read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.grid.brain import (
    doubt_grid,
    make_brain_mask,
    place_brain_mask,
    read_brain_mask,
)
from neurostorm_bids.grid.censoring import Censoring
from neurostorm_bids.grid.denoise import remove_regressors
from neurostorm_bids.grid.describe import (
    describe_steps,
    doubt_clock,
    doubt_constant,
    doubt_space,
    doubt_values,
)
from neurostorm_bids.grid.normalise import (
    MAX_CONSTANT_SHARE,
    count_constant,
    drop_non_finite,
    find_statistics,
)
from neurostorm_bids.grid.read import IN_TURN, open_volumes
from neurostorm_bids.grid.resample import (
    build_interpolation,
    find_clock,
    interpolate_in_time,
    is_pick,
    reflect_in_time,
    resample_in_space,
)
from neurostorm_bids.grid.spec import MAX_REPETITION_TIME_S, MAX_VOLUMES
from neurostorm_bids.grid.spikes import doubt_spikes
from neurostorm_bids.grid.warp import locate_grid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

    from neurostorm_bids.grid.censoring import ClipCensoring
    from neurostorm_bids.grid.normalise import Statistics
    from neurostorm_bids.grid.read import Reading, Volumes
    from neurostorm_bids.grid.resample import Clock
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.grid.warp import Warp
    from neurostorm_bids.inputs.cleaning import Cleaning
    from neurostorm_bids.inputs.confounds import Nuisance

logger = logging.getLogger(__name__)

MIN_VOLUMES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One run on a model's grid.

    Parameters
    ----------
    spec : the grid.
    brain_mask : bool, shape (X, Y, Z); voxels of the grid that hold values.
    frames : float32, shape (T_source, n_brain); values in the file's own unit at the source
        repetition time, voxels in the order of ``np.flatnonzero(brain_mask)``.
    clock : how source volumes make the volumes of the model's clock.
    statistics : mean, SD and minimum behind the z-score.
    source_affine : float64, shape (4, 4); the affine of the file.
    source_repetition_time_s : seconds from one volume of the file to the next.
    brain_coverage : share of the source brain mask in view of the grid and the run, 0 to 1.
    steps : what was done to the run, in order, in words.
    warnings : what a reader of the results should know.
    clip_negatives : whether negative values count as 0, as in the published preparation.
    start_s : seconds of the run before its first volume here; above 0 where volumes were dropped.
    censoring : volumes that moved too much; None where nobody asked.
    denoising : what was regressed out, ready for JSON; None for nothing.
    """

    spec: GridSpec
    brain_mask: NDArray[np.bool_]
    frames: NDArray[np.float32]
    clock: Clock
    statistics: Statistics
    source_affine: NDArray[np.float64]
    source_repetition_time_s: float
    brain_coverage: float
    steps: tuple[str, ...]
    warnings: tuple[str, ...]
    clip_negatives: bool = False
    start_s: float = 0.0
    censoring: Censoring | None = None
    denoising: dict[str, Any] | None = None

    @property
    def n_volumes(self) -> int:
        """Volumes on the model's clock, before any padding."""
        return self.clock.n_volumes

    def read_clip(self, start: int, length: int) -> NDArray[np.float32]:
        """Read consecutive volumes of the model's clock, z-scored.

        A run shorter than `length` is padded in time by reflection at its last volume (and at its
        first again, as often as needed); the last volume itself is not repeated.

        Parameters
        ----------
        start : first volume; 0 if the run is shorter than `length`.
        length : number of volumes.

        Returns
        -------
        float32, shape (X, Y, Z, length); outside the brain the minimum of the whole run.
        """
        check_clip(start, length, n_volumes=self.n_volumes)
        volumes = reflect_in_time(np.arange(start, start + length), self.n_volumes)
        values = interpolate_in_time(self.frames, self.clock, volumes.tolist())
        if self.clip_negatives:
            np.maximum(values, 0, out=values)
        values -= np.float32(self.statistics.mean)
        values /= np.float32(self.statistics.sd)
        clip = np.full((self.brain_mask.size, length), self.statistics.background, dtype=np.float32)
        clip[self.brain_mask.ravel()] = values.T
        return clip.reshape(*self.brain_mask.shape, length)

    def read_volume(self, volume: int) -> NDArray[np.float32]:
        """Read one volume of the model's clock in the file's own unit.

        Returns
        -------
        float32, shape (X, Y, Z); 0 outside the brain.
        """
        values = interpolate_in_time(self.frames, self.clock, [volume])[0]
        if self.clip_negatives:
            np.maximum(values, 0, out=values)
        image = np.zeros(self.brain_mask.shape, dtype=np.float32)
        image[self.brain_mask] = values
        return image

    def read_all(self) -> NDArray[np.float32]:
        """Read every volume of the model's clock: float32, shape (X, Y, Z, T)."""
        return self.read_clip(0, self.n_volumes)

    def count_censored(self, starts: Sequence[int], length: int) -> ClipCensoring | None:
        """Count censored volumes in clips that begin at `starts`; None where nobody asked."""
        if self.censoring is None:
            return None
        return self.censoring.count(starts, length, n_volumes=self.n_volumes)

    def describe_padding(self, length: int) -> str | None:
        """Say in words how clips of `length` volumes are filled up; None where they need not be."""
        if self.n_volumes >= length:
            return None
        return (
            f"The run has {self.n_volumes} volumes of {self.spec.repetition_time_s:g} s, a clip "
            f"{length}: the run was padded in time by reflection."
        )


def check_clip(start: int, length: int, *, n_volumes: int) -> None:
    """Raise `UsageError` for a clip that lies outside of a run."""
    if start < 0 or length < 1 or start + length > max(n_volumes, length):
        raise UsageError(
            f"A clip lies inside the run's {n_volumes} volumes, or begins at 0 where the run is "
            f"shorter; found start {start} and length {length}."
        )


def grid_run(
    bold: Path | SpatialImage,
    spec: GridSpec,
    *,
    repetition_time_s: float,
    brain_mask: Path | SpatialImage | None,
    source_space: str | None = None,
    clip_negatives: bool = False,
    cleaning: Cleaning | None = None,
    nuisance: Nuisance | None = None,
    warp: Warp | None = None,
    reading: Reading = IN_TURN,
) -> Series:
    """Bring a run to a model's grid: by its affine in space, by its repetition time in time.

    The file is read volume by volume and only brain voxels are kept, so memory holds one run of
    brain voxels at the source repetition time and little else.

    Parameters
    ----------
    bold : 4D, ``.nii`` or ``.nii.gz``, or a nibabel image.
    spec : the model's grid.
    repetition_time_s : seconds between volumes, from the sidecar; the header is only compared.
    brain_mask : any grid; None to make one from the run, with a warning.
    source_space : the standard space of the run, if known. Another than the grid's is used as it
        is, with a warning, unless there is a `warp`.
    clip_negatives : set negative values to 0, as the published preparation did. That destroys
        half of demeaned data, and is meant for comparing.
    cleaning : what was asked for, to be told; nothing if None.
    nuisance : what that means for this run: volumes dropped or censored, signals regressed out.
    warp : from the run's standard space to the grid's; None for none.
    reading : how the file is read.

    Raises
    ------
    MissingFileError, ReadError
        If a file is not there or cannot be read.
    DataError
        If the run or its mask cannot be used.
    """
    run = open_volumes(bold, name="the run in memory")
    n_dummy = 0 if nuisance is None else nuisance.n_dummy
    n_volumes = run.n_volumes - n_dummy
    clock = _lay_clock(run, n_volumes, spec, repetition_time_s)
    given = make_brain_mask(run, reading) if brain_mask is None else read_brain_mask(brain_mask)
    world = None if warp is None else locate_grid(warp, spec)
    brain = place_brain_mask(given, run, spec, world=world)
    interpolation = build_interpolation(brain.positions, run.shape)
    resampled = resample_in_space(
        islice(run.read(reading), n_dummy, None), interpolation, n_volumes=n_volumes
    )
    frames = drop_non_finite(resampled, name=run.name)
    # A mask that marks the background too, of which the user is told, marks voxels without signal.
    at_most = 1.0 if given.inside.all() else MAX_CONSTANT_SHARE
    n_constant = count_constant(frames, name=run.name, at_most=at_most)
    denoising = None if nuisance is None else _denoise(frames, nuisance, cleaning)
    mask = brain.mask.copy()
    mask[brain.mask] = resampled.finite
    statistics = find_statistics(frames, clock, clip_negatives=clip_negatives, name=run.name)
    series = Series(
        spec=spec,
        brain_mask=mask,
        frames=frames,
        clock=clock,
        statistics=statistics,
        source_affine=run.affine,
        source_repetition_time_s=repetition_time_s,
        brain_coverage=brain.coverage,
        steps=(),
        warnings=(
            *run.warnings,
            *given.warnings,
            *doubt_clock(run.repetition_time_s, repetition_time_s),
            *(() if warp is not None else doubt_space(source_space, spec.space)),
            *doubt_grid(given, run),
            *doubt_values(resampled.finite),
            *doubt_constant(n_constant, frames.shape[1]),
            *doubt_spikes(frames, statistics),
            *(() if nuisance is None else nuisance.notes),
        ),
        clip_negatives=clip_negatives,
        start_s=n_dummy * repetition_time_s,
        censoring=_find_censoring(nuisance, cleaning),
        denoising=denoising,
    )
    logger.debug("%s: %d brain voxels, %d volumes", run.name, frames.shape[1], clock.n_volumes)
    steps = describe_steps(series, run.shape, is_picked=is_pick(interpolation), warp=warp)
    return replace(series, steps=steps)


def _denoise(
    frames: NDArray[np.float32], nuisance: Nuisance, cleaning: Cleaning | None
) -> dict[str, Any] | None:
    """Regress out what was asked for, in place, and say what that was."""
    if nuisance.regressors is None or cleaning is None:
        return None
    kept = slice(nuisance.n_dummy, None)
    is_fitted = nuisance.is_fitted[kept]
    rank = remove_regressors(frames, nuisance.regressors[kept], is_fitted=is_fitted)
    return {
        "Strategy": cleaning.strategy,
        "Arguments": cleaning.arguments or None,
        "Regressors": list(nuisance.names),
        "NumberOfRegressors": rank,
        "NumberOfVolumesFitted": int(is_fitted.sum()),
        "VoxelMeansKept": True,
    }


def _find_censoring(nuisance: Nuisance | None, cleaning: Cleaning | None) -> Censoring | None:
    if nuisance is None or nuisance.is_censored is None:
        return None
    threshold_mm = None if cleaning is None else cleaning.fd_threshold_mm
    return Censoring.from_mask(nuisance.is_censored[nuisance.n_dummy :], threshold_mm=threshold_mm)


def _lay_clock(run: Volumes, n_volumes: int, spec: GridSpec, repetition_time_s: float) -> Clock:
    if not 0 < repetition_time_s <= MAX_REPETITION_TIME_S:
        raise DataError(
            f"The repetition time of {run.name} is {repetition_time_s:g} s; expected a number "
            f"above 0 and up to {MAX_REPETITION_TIME_S:g}. Correct RepetitionTime in the sidecar."
        )
    if n_volumes * repetition_time_s > MAX_VOLUMES * spec.repetition_time_s:
        raise DataError(
            f"{run.name} has {n_volumes} volumes of {repetition_time_s:g} s, which make more than "
            f"{MAX_VOLUMES} of {spec.repetition_time_s:g} s; expected a single run. Check its "
            "header, and RepetitionTime in the sidecar."
        )
    clock = find_clock(
        n_volumes,
        source_repetition_time_s=repetition_time_s,
        repetition_time_s=spec.repetition_time_s,
    )
    if min(n_volumes, clock.n_volumes) < MIN_VOLUMES:
        raise DataError(
            f"{run.name} has {n_volumes} volume(s) of {repetition_time_s:g} s, which make "
            f"{clock.n_volumes} of {spec.repetition_time_s:g} s; expected a series of at least "
            f"{MIN_VOLUMES}. Choose a run, not a single image."
        )
    return clock
