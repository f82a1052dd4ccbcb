"""Values in 8 or 16 bits: codes, with an offset and a step of its own for every voxel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NBits = Literal[8, 16]
Codes = np.uint8 | np.uint16

MIN_CORRELATION = 0.999
"""What the fluctuation of a voxel must keep with itself when it is read back."""

# Rounding to steps adds noise of variance step² / 12, so a fluctuation of a given SD correlates
# with itself by 1 / sqrt(1 + step² / (12 SD²)).
MAX_STEP_IN_SD = math.sqrt(12 * (MIN_CORRELATION**-2 - 1))

_SAMPLED_VOLUMES = 64
_INTERQUARTILE_RANGE_IN_SD = 1.349  # of a normal distribution


class Quantisation(NamedTuple):
    """How codes stand for values: ``value = offset + step * code``, by voxel.

    Parameters
    ----------
    offset : float32, shape (n_brain,); the voxel's minimum, which is exact.
    step : float32, shape (n_brain,); the voxel's range over the largest code. 0 if it is constant.
    n_bits : of a code, 8 or 16; codes have no sign.
    """

    offset: NDArray[np.float32]
    step: NDArray[np.float32]
    n_bits: NBits

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the codes."""
        return np.dtype(f"<u{self.n_bits // 8}")

    def encode(self, frames: NDArray[np.float32]) -> Iterator[NDArray[Codes]]:
        """Turn values into codes, volume by volume: each of shape (n_brain,).

        The error is at most half a step. Nothing is clipped.

        Parameters
        ----------
        frames : shape (T, n_brain); the series that the quantisation was made for, or a part.
        """
        divisor = np.where(self.step > 0, self.step, np.float32(1))
        for frame in frames:
            yield np.rint((frame - self.offset) / divisor).astype(self.dtype)

    def decode(self, codes: NDArray[Codes]) -> NDArray[np.float32]:
        """Turn codes, shape (T, n_brain), back into values."""
        values = codes.astype(np.float32)
        values *= self.step
        values += self.offset
        return values


def make_quantisation(frames: NDArray[np.float32], n_bits: NBits) -> Quantisation:
    """Lay the steps of each voxel over the range of its values, extremes included.

    Parameters
    ----------
    frames : shape (T, n_brain).
    n_bits : of a code.

    Raises
    ------
    DataError
        If values are not finite, or too far apart for float32.
    """
    offset = frames.min(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        extent = frames.max(axis=0) - offset
    if not np.isfinite(extent).all():
        raise DataError(
            f"Expected finite values to store; found {int((~np.isfinite(extent)).sum())} of "
            f"{len(extent)} voxels with NaN, infinity or a range beyond float32. "
            "Check the preprocessing of the run."
        )
    step = extent / np.float32(2**n_bits - 1)
    step[step < np.finfo(np.float32).tiny] = 0  # a subnormal step is too coarsely rounded itself
    return Quantisation(offset, step, n_bits)


def count_coarse_voxels(frames: NDArray[np.float32], quantisation: Quantisation) -> int:
    """Count the voxels whose fluctuation would not survive in steps that a spike stretched.

    The fluctuation is measured by the interquartile range over at most 64 volumes, spread over the
    run, which a few outliers cannot move. Where it is 0 there is nothing to lose.

    Parameters
    ----------
    frames : shape (T, n_brain).
    """
    sample = np.ascontiguousarray(frames[:: math.ceil(len(frames) / _SAMPLED_VOLUMES)].T)
    quarter = sample.shape[1] // 4
    lower, upper = quarter, sample.shape[1] - 1 - quarter
    sample.partition((lower, upper), axis=1)
    sd = (sample[:, upper] - sample[:, lower]) / _INTERQUARTILE_RANGE_IN_SD
    is_coarse = (sd > 0) & (quantisation.step > MAX_STEP_IN_SD * sd)
    return int(is_coarse.sum())
