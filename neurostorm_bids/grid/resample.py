"""Onto the grid in space, by affines, and onto the model's clock in time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from neurostorm_bids.errors import DataError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from neurostorm_bids.grid.spec import Size3

POSITION_TOLERANCE = 1e-3
"""In voxels. Nearer to a voxel's centre or to the field's edge than this is on it: headers hold
float32, and an affine that went through a quaternion is not exact."""

MAX_SERIES_BYTES = 64 * 2**30
MAX_REFINEMENT = 100
"""Voxels of the grid for each of the file: voxels of 8 mm on a grid of 2 mm make 64 of each."""


class Frames(NamedTuple):
    """Brain voxels of the grid at the source repetition time.

    Parameters
    ----------
    values : float32, shape (T_source, n_brain).
    finite : bool, shape (n_brain,); voxels without NaN and infinity in any volume.
    """

    values: NDArray[np.float32]
    finite: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clock:
    """Which source volumes make each volume of the model's clock, and in which parts.

    Volume j is ``(1 - weight[j]) * source[before[j]] + weight[j] * source[after[j]]``.
    """

    before: NDArray[np.intp]
    after: NDArray[np.intp]
    weight: NDArray[np.float64]

    @property
    def n_volumes(self) -> int:
        """Volumes on the model's clock."""
        return len(self.weight)


def find_positions(
    voxels: NDArray[np.intp] | NDArray[np.float64],
    source_affine: NDArray[np.float64],
    target_affine: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Find where voxels of one image lie in another, by their affines.

    Parameters
    ----------
    voxels : shape (n, 3), indices in the source, or places between them.
    source_affine, target_affine : shape (4, 4), voxel indices to world millimetres.

    Returns
    -------
    float64, shape (n, 3); in voxels of the target, whole numbers at the centres of its voxels.
    """
    transform = np.linalg.solve(target_affine, source_affine)
    positions: NDArray[np.float64] = voxels @ transform[:3, :3].T + transform[:3, 3]
    centres = np.rint(positions)
    np.copyto(positions, centres, where=np.abs(positions - centres) < POSITION_TOLERANCE)
    return positions


def is_inside(positions: NDArray[np.float64], shape: Size3) -> NDArray[np.bool_]:
    """Tell which positions, shape (n, 3), lie in an image's field of view: its voxels, whole."""
    first = -0.5 - POSITION_TOLERANCE
    last = np.array(shape) - 0.5 + POSITION_TOLERANCE
    inside: NDArray[np.bool_] = np.all((positions >= first) & (positions <= last), axis=1)
    return inside


def build_interpolation(positions: NDArray[np.float64], shape: Size3) -> csr_array:
    """Build the linear map from an image to its values at given positions.

    Trilinear: the product of a linear interpolation along each axis. Where a position is a
    voxel's centre, the map takes that voxel as it is; so images whose voxels coincide with the
    grid's, in whatever order or direction, are only picked from. From the outermost centres to
    half a voxel beyond, the outermost values hold.

    There is no smoothing before a coarser grid: the published weights were trained without.

    Parameters
    ----------
    positions : shape (n, 3), in voxels of the image.
    shape : of the image.

    Returns
    -------
    sparse float32, shape (n, X * Y * Z); acts on an image with X running fastest. Each row sums
    to one; voxels that weigh nothing are left out, so that a NaN there does no harm.
    """
    last = np.array(shape) - 1
    positions = positions.clip(0, last)
    before = np.floor(positions).astype(np.int32)
    share = positions - before
    strides = np.array([1, shape[0], shape[0] * shape[1]], dtype=np.int32)
    at_before = before * strides
    at_after = np.minimum(before + 1, last).astype(np.int32) * strides

    # An axis on which no position lies between two voxels needs no second one.
    sides = [(False, True) if share[:, axis].any() else (False,) for axis in range(len(shape))]
    corners = list(product(*sides))
    columns = np.empty((len(positions), len(corners)), dtype=np.int32)
    weights = np.empty((len(positions), len(corners)), dtype=np.float32)
    for k, corner in enumerate(corners):
        columns[:, k] = np.where(corner, at_after, at_before).sum(axis=1)
        weights[:, k] = np.where(corner, share, 1 - share).prod(axis=1)
    rows = np.arange(0, columns.size + 1, len(corners), dtype=np.int32)
    interpolation = csr_array(
        (weights.ravel(), columns.ravel(), rows), shape=(len(positions), int(np.prod(shape)))
    )
    interpolation.eliminate_zeros()
    return interpolation


def is_pick(interpolation: csr_array) -> bool:
    """Tell whether an interpolation takes every value from one voxel alone."""
    return bool(interpolation.nnz == interpolation.shape[0])


def resample_in_space(
    volumes: Iterable[NDArray[Any]], interpolation: csr_array, *, n_volumes: int
) -> Frames:
    """Apply an interpolation to volumes as they come.

    Parameters
    ----------
    volumes : `n_volumes` of them, each of shape (X * Y * Z,), X running fastest.
    interpolation : from `build_interpolation`.

    Raises
    ------
    DataError
        If the series would be larger than any run of BOLD, or much finer than the file.
    TemporaryError
        If there is no memory for it.
    """
    n_brain, n_voxels = interpolation.shape
    if n_brain > MAX_REFINEMENT * n_voxels:
        raise DataError(
            f"The run has {n_voxels} voxels, of which {n_brain} brain voxels would be made; "
            f"expected at most {MAX_REFINEMENT} times as many. Check the file's voxel size."
        )
    if n_volumes * n_brain * np.dtype(np.float32).itemsize > MAX_SERIES_BYTES:
        raise DataError(
            f"{n_volumes} volumes of {n_brain} brain voxels exceed {MAX_SERIES_BYTES} bytes; "
            "expected a single run. Split the file."
        )
    try:
        values = np.empty((n_volumes, n_brain), dtype=np.float32)
    except MemoryError as err:
        raise TemporaryError(
            f"No memory for {n_volumes} volumes of {n_brain} brain voxels. Free some, or take a "
            "larger machine."
        ) from err
    finite = np.ones(n_brain, dtype=np.bool_)
    picked = interpolation.indices.astype(np.intp) if is_pick(interpolation) else None
    with np.errstate(over="ignore", invalid="ignore"):
        for frame, volume in zip(values, volumes, strict=True):
            if picked is None:
                frame[:] = interpolation @ volume.astype(np.float32)
            else:
                frame[:] = volume.take(picked)
            if not np.isfinite(frame.sum()):
                finite &= np.isfinite(frame)
    return Frames(values, finite)


def find_clock(
    n_volumes: int, *, source_repetition_time_s: float, repetition_time_s: float
) -> Clock:
    """Lay the model's clock over a run: linear interpolation, half-sample centres.

    ``round(T * TR / TR_model)`` volumes (half to even) share the run's duration evenly, so the
    step is ``T / T_model`` source volumes and not exactly ``TR_model / TR``, as in training.
    Before the centre of the first source volume and after that of the last, their values hold.

    Parameters
    ----------
    n_volumes : volumes in the source, T.
    """
    n_model = round(n_volumes * source_repetition_time_s / repetition_time_s)
    position = (np.arange(n_model) + 0.5) * (n_volumes / max(n_model, 1)) - 0.5
    position = position.clip(0, n_volumes - 1)
    before = np.floor(position).astype(np.intp)
    return Clock(
        before=before,
        after=np.minimum(before + 1, n_volumes - 1),
        weight=position - before,
    )


def interpolate_in_time(
    frames: NDArray[np.float32], clock: Clock, volumes: Iterable[int]
) -> NDArray[np.float32]:
    """Make some volumes of the model's clock out of source volumes.

    Parameters
    ----------
    frames : shape (T_source, n_brain).
    volumes : which volumes of the model's clock, V of them.

    Returns
    -------
    float32, shape (V, n_brain).
    """
    volumes = list(volumes)
    values = np.empty((len(volumes), frames.shape[1]), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, volume in enumerate(volumes):
            before, after = frames[clock.before[volume]], frames[clock.after[volume]]
            np.subtract(after, before, out=values[k])
            values[k] *= np.float32(clock.weight[volume])
            values[k] += before
    return values


def reflect_in_time(volumes: NDArray[np.intp], n_volumes: int) -> NDArray[np.intp]:
    """Fold volume indices past the end back into the run, mirrored at its last and first volume.

    Parameters
    ----------
    volumes : indices from 0 up.
    n_volumes : volumes in the run, two or more.
    """
    period = 2 * (n_volumes - 1)
    folded = volumes % period
    return np.minimum(folded, period - folded)
