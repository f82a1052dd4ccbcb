"""The one z-score of a run: which voxels it may rest on, its mean, SD and background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.resample import Clock, Frames, interpolate_in_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_NON_FINITE_SHARE = 0.1
"""Brain voxels with NaN or infinity, above which a run is unusable."""

MAX_CONSTANT_SHARE = 0.5
"""Brain voxels that never change, above which a run is unusable."""

MIN_RELATIVE_SD = 1e-6
"""SD as a share of the mean, at and below which a series is constant but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the z-score of a run rests on: all brain voxels and volumes of the model's clock.

    Parameters
    ----------
    mean, sd, minimum : of the values in the file's own unit; the SD is unbiased.
    n_values : how many values these are.
    """

    mean: float
    sd: float
    minimum: float
    n_values: int

    @property
    def background(self) -> float:
        """The value outside the brain: the minimum of the z-scored brain."""
        return (self.minimum - self.mean) / self.sd


def drop_non_finite(frames: Frames, *, name: str) -> NDArray[np.float32]:
    """Keep the voxels that are finite in every volume: float32, shape (T_source, n_finite).

    The values move up within their own memory, because a second copy of a run would not be small.

    Raises
    ------
    DataError
        If too many voxels are not finite.
    """
    n_volumes, n_brain = frames.values.shape
    n_finite = int(frames.finite.sum())
    if n_brain - n_finite > MAX_NON_FINITE_SHARE * n_brain:
        raise DataError(
            f"{n_brain - n_finite} of {n_brain} brain voxels of {name} are NaN or infinite in "
            f"some volume; expected at most {MAX_NON_FINITE_SHARE:.0%}. Check the preprocessing "
            "and that the brain mask belongs to the run."
        )
    if n_finite == n_brain:
        return frames.values
    packed = frames.values.reshape(-1)[: n_volumes * n_finite].reshape(n_volumes, n_finite)
    for t, frame in enumerate(frames.values):
        packed[t] = frame[frames.finite]
    return packed


def count_constant(
    frames: NDArray[np.float32], *, name: str, at_most: float = MAX_CONSTANT_SHARE
) -> int:
    """Count brain voxels, frames of shape (T_source, n_brain), that never change.

    Parameters
    ----------
    at_most : share of the voxels; 1 for a mask that marks the background too.

    Raises
    ------
    DataError
        If they are so many that the mask cannot be that of the run.
    """
    varies = np.zeros(frames.shape[1], dtype=np.bool_)
    for frame in frames[1:]:
        varies |= frame != frames[0]
        if varies.all():
            return 0
    n_constant = int(np.count_nonzero(~varies))
    if n_constant == len(varies):
        raise DataError(
            f"The brain of {name} holds no signal: every voxel has the same value in every volume. "
            "Check the preprocessing."
        )
    if at_most * len(varies) < n_constant:
        raise DataError(
            f"{n_constant} of {len(varies)} brain voxels of {name} have the same value in every "
            f"volume; expected at most {at_most:.0%}. Check that the brain mask belongs "
            "to the run, and the run's field of view."
        )
    return n_constant


def find_statistics(
    frames: NDArray[np.float32], clock: Clock, *, clip_negatives: bool, name: str
) -> Statistics:
    """Find mean, unbiased SD and minimum over brain voxels and volumes of the model's clock.

    One pass, volume by volume, summed in float64 about a value near the mean. A product of vectors
    would go to BLAS, whose threads take longer to meet than a volume takes.

    Parameters
    ----------
    frames : shape (T_source, n_brain).
    clip_negatives : set negative values to 0 first.

    Raises
    ------
    DataError
        If the series is constant, or out of float32's range.
    """
    n_values, centre, total, total_squared, minimum = 0, 0.0, 0.0, 0.0, math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for volume in range(clock.n_volumes):
            values = interpolate_in_time(frames, clock, [volume])[0]
            if clip_negatives:
                np.maximum(values, 0, out=values)
            if volume == 0:
                centre = float(values.mean(dtype=np.float64))
            deviations = values - np.float64(centre)
            n_values += values.size
            total += float(deviations.sum())
            total_squared += float(np.square(deviations, out=deviations).sum())
            minimum = min(minimum, float(values.min()))
    mean = centre + total / n_values
    variance = (total_squared - total**2 / n_values) / (n_values - 1)
    if math.isfinite(variance) and variance > (MIN_RELATIVE_SD * mean) ** 2:
        return Statistics(mean=mean, sd=math.sqrt(variance), minimum=minimum, n_values=n_values)
    raise DataError(
        f"The brain of {name} holds no signal: expected values that vary, found {n_values} values "
        f"around {centre:g} that are constant or beyond range. Check the preprocessing."
    )
