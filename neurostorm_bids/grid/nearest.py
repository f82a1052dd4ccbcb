"""From one image to the voxels of another by the nearest voxel, through the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.spatial import KDTree

from neurostorm_bids.grid.resample import find_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neurostorm_bids.grid.spec import Size3

Scalar = TypeVar("Scalar", bound=np.generic)

# A voxel may lie half-way between two of the other image. Looking this far aside, in millimetres of
# the world, decides for the same of the two whichever way the image is stored.
_TIE_BREAK_MM = (3e-3, 2e-3, 1e-3)


def look_up_nearest(
    image: NDArray[Scalar],
    affine: NDArray[np.float64],
    *,
    at_shape: Size3,
    at_affine: NDArray[np.float64],
) -> NDArray[Scalar]:
    """Look up the value of the nearest voxel of an image at every voxel of another.

    Parameters
    ----------
    image : shape (X, Y, Z).
    affine, at_affine : shape (4, 4), voxels to world millimetres; of the image and of the other.
    at_shape : voxels of the other.

    Returns
    -------
    shape `at_shape`; 0 outside the image's field of view.
    """
    aside = np.linalg.inv(affine)[:3, :3] @ _TIE_BREAK_MM
    voxels = np.argwhere(np.ones((1, *at_shape[1:]), dtype=np.bool_))
    found = np.zeros((at_shape[0], len(voxels)), dtype=image.dtype)
    for x, values in enumerate(found):  # a slice at a time, for large images
        voxels[:, 0] = x
        positions = find_positions(voxels, at_affine, affine)
        nearest = np.floor(positions + aside + 0.5).astype(np.intp)
        inside = np.all((nearest >= 0) & (nearest < image.shape), axis=1)
        values[inside] = image[tuple(nearest[inside].T)]
    return found.reshape(at_shape)


def look_up_scattered(
    values: NDArray[Scalar],
    world: NDArray[np.float32],
    *,
    at_shape: Size3,
    at_affine: NDArray[np.float64],
) -> NDArray[Scalar]:
    """Look up the nearest of values that lie anywhere in the world, as a warped grid's do.

    Parameters
    ----------
    values : shape (X, Y, Z).
    world : shape (X, Y, Z, 3); where they lie, in millimetres.
    at_shape, at_affine : of the image to look them up for.

    Returns
    -------
    shape `at_shape`; 0 further from all values than they are from their neighbours.
    """
    steps = [np.linalg.norm(np.diff(world, axis=axis), axis=-1) for axis in range(3)]
    reach = float(np.linalg.norm([np.median(step) / 2 for step in steps if step.size]))
    tree = KDTree(world.reshape(-1, 3))
    voxels = np.argwhere(np.ones((1, *at_shape[1:]), dtype=np.bool_))
    found = np.zeros((at_shape[0], len(voxels)), dtype=values.dtype)
    flat = values.ravel()
    for x, row in enumerate(found):
        voxels[:, 0] = x
        points = voxels @ at_affine[:3, :3].T + at_affine[:3, 3]
        distance, nearest = tree.query(points, distance_upper_bound=reach * 1.2)
        is_near = np.isfinite(distance)
        row[is_near] = flat[nearest[is_near]]
    return found.reshape(at_shape)
