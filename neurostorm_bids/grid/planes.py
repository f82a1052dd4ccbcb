"""Planes through a volume, with left, right, front and back where its affine has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

if TYPE_CHECKING:
    from numpy.typing import NDArray


class View(NamedTuple):
    """How a volume in RAS+ is cut: along which axis, which ones go right and up, their ends."""

    name: str
    through: int
    right: int
    up: int
    ends: tuple[str, str, str, str]  # at the left, right, bottom and top of the picture


class Slice(NamedTuple):
    """A plane through a volume in RAS+.

    Attributes
    ----------
    image : shape (up, right), the lowest row first.
    position_mm : world coordinate of its centre along the axis it was cut along.
    size_mm : to the right and up.
    """

    image: NDArray[np.floating]
    position_mm: float
    size_mm: tuple[float, float]


VIEWS = (
    View("sagittal", 0, 1, 2, ("P", "A", "I", "S")),
    View("coronal", 1, 0, 2, ("L", "R", "I", "S")),
    View("axial", 2, 0, 1, ("L", "R", "P", "A")),
)


def turn_to_ras(
    volume: NDArray[np.floating], affine: NDArray[np.float64]
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Turn and flip a volume so that its axes go, as nearly as they can, right, anterior, superior.

    Returns
    -------
    The volume, shape (right, anterior, superior), and its affine.
    """
    turns = io_orientation(affine)
    return apply_orientation(volume, turns), affine @ inv_ornt_aff(turns, volume.shape)


def cut_slice(
    volume: NDArray[np.floating], affine: NDArray[np.float64], view: View, plane: int
) -> Slice:
    """Cut a volume in RAS+, from `turn_to_ras`, at a voxel of the axis that a view goes along."""
    centre = (np.array(volume.shape) - 1) / 2
    centre[view.through] = plane
    position = affine[:3, :3] @ centre + affine[:3, 3]
    size = np.linalg.norm(affine[:3, :3], axis=0) * volume.shape
    return Slice(
        image=np.moveaxis(volume, (view.through, view.up, view.right), (0, 1, 2))[plane],
        position_mm=float(position[view.through]),
        size_mm=(float(size[view.right]), float(size[view.up])),
    )
