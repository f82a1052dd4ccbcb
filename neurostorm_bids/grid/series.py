"""A run on the grid: brain voxels in memory, volumes of the model's clock when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.resample import Clock, interpolate_in_time, reflect_in_time

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

    from neurostorm_bids.grid.normalise import Statistics
    from neurostorm_bids.grid.spec import GridSpec


@dataclass(frozen=True, kw_only=True)
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
    brain_coverage : share of the source brain mask inside the grid's field of view, 0 to 1.
    steps : what was done to the run, in order, in words.
    warnings : what a reader of the results should know.
    clip_negatives : whether negative values count as 0, as in the published preparation.
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
        if start < 0 or length < 1 or start + length > max(self.n_volumes, length):
            raise UsageError(
                f"A clip lies inside the run's {self.n_volumes} volumes, or begins at 0 where the "
                f"run is shorter; found start {start} and length {length}."
            )
        volumes = reflect_in_time(np.arange(start, start + length), self.n_volumes)
        values = interpolate_in_time(
            self.frames, self.clock, volumes, clip_negatives=self.clip_negatives
        )
        values -= np.float32(self.statistics.mean)
        values /= np.float32(self.statistics.sd)
        clip = np.full((self.brain_mask.size, length), self.statistics.background, dtype=np.float32)
        clip[self.brain_mask.ravel()] = values.T
        return clip.reshape(*self.brain_mask.shape, length)

    def read_all(self) -> NDArray[np.float32]:
        """Read every volume of the model's clock: float32, shape (X, Y, Z, T)."""
        return self.read_clip(0, self.n_volumes)


def grid_run(
    bold: Path | SpatialImage,
    spec: GridSpec,
    *,
    repetition_time_s: float,
    brain_mask: Path | SpatialImage | None,
    source_space: str | None = None,
    clip_negatives: bool = False,
) -> Series:
    """Bring a run to a model's grid."""
    raise NotImplementedError
