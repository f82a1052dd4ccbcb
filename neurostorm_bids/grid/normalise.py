"""The brain mask on the grid, and the one z-score of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the z-score of a run rests on: all brain voxels and volumes of the model's clock.

    Parameters
    ----------
    mean, sd, minimum : of the values in the file's own unit; the SD is unbiased.
    n_values : brain voxels times volumes.
    """

    mean: float
    sd: float
    minimum: float
    n_values: int

    @property
    def background(self) -> float:
        """The value outside the brain: the minimum of the z-scored brain."""
        return (self.minimum - self.mean) / self.sd
