"""What attributions are: numbers by region and voxel, and how they were made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from neurostorm_bids.attribute.gradients import N_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.attribute.baseline import Baseline
    from neurostorm_bids.attribute.quantity import Quantity
    from neurostorm_bids.attribute.regions import SeenRegions
    from neurostorm_bids.grid.series import Series

Method = Literal["occlusion", "ig", "reconstruction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """How attributions are made.

    Attributes
    ----------
    method : occlusion, or ig for integrated gradients; a model with a decoder in place of a head
        is asked for reconstruction errors either way.
    baseline : what stands in place of what is taken away.
    n_clips : clips of each run, spread evenly over it; None for all.
    n_steps : of integrated gradients.
    """

    method: Literal["occlusion", "ig"]
    baseline: Baseline = "background"
    n_clips: int | None = None
    n_steps: int = N_STEPS


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """How nearly integrated gradients add up; means over clips.

    Attributes
    ----------
    output, baseline_output : of the clips, and of the baseline.
    total : sum over all voxels.
    """

    output: float
    baseline_output: float
    total: float

    @property
    def error(self) -> float:
        """Sum minus what it should be: the difference of the two outputs."""
        return self.total - (self.output - self.baseline_output)

    @property
    def relative_error(self) -> float:
        """The error's size as a share of the difference; NaN where there is none."""
        explained = abs(self.output - self.baseline_output)
        return abs(self.error) / explained if explained > 0 else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """Numbers by region and voxel, and what they are.

    Attributes
    ----------
    method : occlusion, ig or reconstruction.
    quantity : what is attributed; None for reconstruction.
    unit : of the attributions.
    attributions : float64, shape (R + 1,), by the rows of `SeenRegions`; NaN where there is none.
    columns : further numbers by row, by name.
    voxels : float32, shape (X, Y, Z); the same on the grid, 0 outside the brain.
    output : of the clips used, mean; None for reconstruction.
    completeness : of integrated gradients alone.
    warnings : what a reader should know.
    """

    method: Method
    quantity: Quantity | None
    unit: str
    attributions: NDArray[np.float64]
    voxels: NDArray[np.float32]
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    output: float | None = None
    completeness: Completeness | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class RunAttribution:
    """What drove a model's output for one run, or how well the run is reconstructed.

    Attributes
    ----------
    found : the numbers.
    settings : as they were asked for.
    regions : of the atlas, as the run shows them.
    onsets_s : of the clips that were used.
    n_clips : in the run.
    series : the run on the grid.
    """

    found: Finding
    settings: Settings
    regions: SeenRegions
    onsets_s: tuple[float, ...]
    n_clips: int
    series: Series
