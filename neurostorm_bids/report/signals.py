"""What the figures of a run show of its voxels over time; never a second copy of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neurostorm_bids.grid.series import Series

    Floats = NDArray[np.float64]

MAX_CARPET_ROWS = 300
_VOXELS_AT_ONCE = 8192
_DEMEANED_BELOW = 1.0


class Signals(NamedTuple):
    """Voxels and volumes of a run, summed up.

    Attributes
    ----------
    mean : (n_brain,) over time.
    sd : (n_brain,) over time, after a linear trend.
    global_signal : (T,) mean over voxels.
    dvars : (T,) root mean square over voxels of the change from the volume before, as a multiple
        of its median; NaN for the first.
    carpet : (rows, T) some voxels, from the brain's edge to its core: without mean and linear
        trend, in standard deviations.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    global_signal: Floats
    dvars: Floats
    carpet: NDArray[np.float32]

    @property
    def is_demeaned(self) -> bool:
        """Whether the mean over time was taken out, so that a tSNR says nothing."""
        inside = self.sd > 0
        if not inside.any():
            return False
        ratio = np.abs(self.mean[inside]) / self.sd[inside]
        return bool(np.median(ratio) < _DEMEANED_BELOW)

    @property
    def tsnr(self) -> NDArray[np.float32]:
        """Mean over standard deviation, (n_brain,); NaN where a voxel is constant."""
        quotient = np.full_like(self.mean, np.nan)
        return np.divide(self.mean, self.sd, out=quotient, where=self.sd > 0)


def measure_signals(series: Series) -> Signals:
    """Go once through the voxels of a run, some thousand at a time."""
    frames = series.frames
    n_volumes, n_voxels = frames.shape
    rows = choose_rows(series.brain_mask)
    time = np.linspace(-1, 1, n_volumes, dtype=np.float32)
    time /= np.linalg.norm(time) or 1
    mean = np.empty(n_voxels, dtype=np.float32)
    sd = np.empty(n_voxels, dtype=np.float32)
    carpet = np.empty((len(rows), n_volumes), dtype=np.float32)
    total, change = np.zeros(n_volumes), np.zeros(n_volumes)
    for part in _list_parts(n_voxels):
        values = frames[:, part].copy()  # (T, voxels)
        mean[part] = values.mean(axis=0, dtype=np.float64)
        values -= mean[part]
        total += values.sum(axis=1, dtype=np.float64)
        steps = np.diff(values, axis=0)
        change[1:] += np.einsum("tv,tv->t", steps, steps)
        # Not by `@`: the threads of BLAS take longer to meet than this takes.
        values -= time[:, None] * np.einsum("t,tv->v", time, values)
        sd[part] = np.sqrt(np.einsum("tv,tv->v", values, values) / max(1, n_volumes - 2))
        chosen = np.flatnonzero((rows >= part.start) & (rows < part.stop))
        carpet[chosen] = values[:, rows[chosen] - part.start].T
    scale = sd[rows]
    scale[scale == 0] = 1
    carpet /= scale[:, None]
    dvars = np.sqrt(change / n_voxels)
    dvars[0] = np.nan
    middle = float(np.median(dvars[1:])) or 1.0
    return Signals(mean, sd, total / n_voxels + mean.mean(dtype=np.float64), dvars / middle, carpet)


def choose_rows(brain_mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Choose voxels for the carpet: evenly, and from the edge of the brain to its core.

    Returns
    -------
    Positions among the voxels of ``np.flatnonzero(brain_mask)``.
    """
    depth = distance_transform_edt(np.pad(brain_mask, 1))[1:-1, 1:-1, 1:-1][brain_mask]
    by_depth = np.argsort(depth, kind="stable")
    n_rows = min(MAX_CARPET_ROWS, len(by_depth))
    places = np.linspace(0, len(by_depth) - 1, n_rows).round().astype(np.intp)
    rows: NDArray[np.intp] = by_depth[places]
    return rows


def fill_grid(values: NDArray[np.floating], brain_mask: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Put the values of brain voxels, (n_brain,), on their grid; NaN elsewhere."""
    volume = np.full(brain_mask.shape, np.nan, dtype=np.float32)
    volume[brain_mask] = values
    return volume


def _list_parts(n_voxels: int) -> Iterator[slice]:
    for start in range(0, n_voxels, _VOXELS_AT_ONCE):
        yield slice(start, min(start + _VOXELS_AT_ONCE, n_voxels))
