"""Nuisance signals out of every voxel's series; the voxel's mean stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VOXELS_AT_ONCE = 8192
_RANK_TOLERANCE = 1e-10


def remove_regressors(
    frames: NDArray[np.float32],
    regressors: NDArray[np.float64],
    *,
    is_fitted: NDArray[np.bool_],
) -> int:
    """Regress signals out of series by least squares, in place.

    The regression is fitted on some of the volumes and taken out of all. Regressors are centred on
    the volumes that are fitted, so that each voxel keeps its mean over these. A regressor that the
    others make up already adds nothing.

    Parameters
    ----------
    frames : shape (T, n_voxels).
    regressors : shape (T, K), finite.
    is_fitted : shape (T,); more than K of them.

    Returns
    -------
    The number of independent regressors.
    """
    fitted = regressors[is_fitted]
    spread = fitted.std(axis=0)
    varies = spread > _RANK_TOLERANCE * np.abs(fitted).max(axis=0, initial=0)
    centred = (regressors - fitted.mean(axis=0))[:, varies] / spread[varies]
    u, scales, vt = np.linalg.svd(centred[is_fitted], full_matrices=False)
    is_real = scales > _RANK_TOLERANCE * scales.max(initial=0)
    basis = u[:, is_real]  # (T_fitted, rank), orthonormal
    signals = centred @ (vt[is_real].T / scales[is_real])  # (T, rank), the basis where fitted
    for start in range(0, frames.shape[1], _VOXELS_AT_ONCE):
        block = frames[:, start : start + _VOXELS_AT_ONCE]
        values = block[is_fitted].astype(np.float64)
        values -= values.mean(axis=0)
        block -= signals @ (basis.T @ values)
    return int(is_real.sum())
