"""Regions of an atlas on a model's grid, as far as a run shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.connectivity import place_parcellation
from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.nearest import look_up_nearest
from neurostorm_bids.grid.spec import GridSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neurostorm_bids.connectivity import Parcellation
    from neurostorm_bids.grid.series import Series

OUTSIDE = 0
OUTSIDE_NAME = "outside all regions"
NO_BRAIN = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenRegions:
    """What a run shows of an atlas; row 0 is the brain outside all regions.

    R regions.

    Attributes
    ----------
    atlas : its name.
    indices : int64, shape (R + 1,); the number of each region in the atlas, 0 first, rising.
    names : of the regions, in the same order.
    on_grid : int64, shape (X, Y, Z); the row of every voxel of the grid, whether or not it lies in
        the run's brain.
    rows : int64, shape (X, Y, Z); the same, but -1 outside the brain.
    n_voxels : int64, shape (R + 1,); brain voxels of the grid in each row.
    share_outside : float64, shape (R + 1,); share of the region's volume in the atlas that lies
        outside the grid or the run's brain; NaN in row 0.
    warnings : what a reader of the results should know.
    """

    atlas: str
    indices: NDArray[np.int64]
    names: tuple[str, ...]
    on_grid: NDArray[np.int64]
    rows: NDArray[np.int64]
    n_voxels: NDArray[np.int64]
    share_outside: NDArray[np.float64]
    warnings: tuple[str, ...]

    @property
    def seen_rows(self) -> list[int]:
        """The rows with at least one voxel."""
        return [int(row) for row in np.flatnonzero(self.n_voxels)]

    def paint(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Give every brain voxel of the grid the value of its row.

        Parameters
        ----------
        values : shape (R + 1,); NaN counts as 0.

        Returns
        -------
        float32, shape (X, Y, Z); 0 outside the brain.
        """
        painted = np.where(self.rows < 0, 0.0, np.nan_to_num(values)[self.rows])
        return painted.astype(np.float32)

    def add_up(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up values of voxels, shape (X, Y, Z), in each row: float64, shape (R + 1,)."""
        inside = self.rows >= 0
        sums = np.bincount(
            self.rows[inside], weights=voxels[inside], minlength=len(self.indices)
        ).astype(np.float64)
        sums[self.n_voxels == 0] = np.nan
        return sums


def see_regions(parcellation: Parcellation, series: Series) -> SeenRegions:
    """Find what a run on the grid shows of an atlas.

    Raises
    ------
    DataError
        If it shows no region at all.
    """
    spec, brain = series.spec, series.brain_mask
    on_grid = place_parcellation(parcellation, spec)
    n_rows = len(parcellation.names) + 1
    n_voxels = np.bincount(on_grid[brain], minlength=n_rows)
    if not n_voxels[1:].any():
        raise DataError(
            f"None of the {n_rows - 1} regions of {parcellation.name} has a voxel in the brain of "
            f"the run on the model's grid ({spec.space}). Choose an atlas of this space with "
            "larger regions: --atlas."
        )
    atlas = parcellation.atlas
    numbers = range(1, n_rows) if atlas is None else sorted(atlas.names)
    return SeenRegions(
        atlas=parcellation.name,
        indices=np.array([OUTSIDE, *numbers], dtype=np.int64),
        names=(OUTSIDE_NAME, *parcellation.names),
        on_grid=on_grid,
        rows=np.where(brain, on_grid, NO_BRAIN),
        n_voxels=n_voxels,
        share_outside=_measure_share_outside(parcellation, series),
        warnings=parcellation.notes,
    )


def _measure_share_outside(parcellation: Parcellation, series: Series) -> NDArray[np.float64]:
    """Return the share of each region's volume that the run's brain on the grid does not hold."""
    atlas = parcellation.atlas
    if atlas is None:
        spec = GridSpec.published()
        affine, regions = spec.affine_matrix, place_parcellation(parcellation, spec)
    else:
        affine = atlas.affine
        regions = np.searchsorted(sorted(atlas.names), atlas.labels) + 1
        regions[~np.isin(atlas.labels, list(atlas.names))] = 0
    in_brain = look_up_nearest(
        series.brain_mask,
        series.spec.affine_matrix,
        at_shape=(regions.shape[0], regions.shape[1], regions.shape[2]),
        at_affine=affine,
    )
    n_rows = len(parcellation.names) + 1
    n_all = np.bincount(regions.ravel(), minlength=n_rows)
    n_seen = np.bincount(regions[in_brain], minlength=n_rows)
    share = 1 - n_seen / np.maximum(n_all, 1)
    share[(n_all == 0) | (np.arange(n_rows) == 0)] = np.nan
    return share.astype(np.float64)
