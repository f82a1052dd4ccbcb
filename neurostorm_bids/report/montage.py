"""Many planes through a volume beside each other, as one image."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurostorm_bids.grid.brain import read_brain_mask
from neurostorm_bids.grid.planes import VIEWS, turn_to_ras
from neurostorm_bids.grid.resample import find_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from neurostorm_bids.grid.planes import View

_MARGIN = 2
_ENDS_SHOWN = (0.1, 0.92)
_FOOT = 0.07  # of a tile, for its label
SAGITTAL, CORONAL, AXIAL = VIEWS


class Montage(NamedTuple):
    """Tiles of one view: which planes, how cut, how many beside each other.

    Attributes
    ----------
    view : the view.
    planes : voxels along the view's axis, in the order of the tiles.
    positions_mm : world coordinates of these planes.
    n_columns : tiles beside each other.
    corner, shown : first row and column of a tile in a plane, and how many of them it shows.
    tile : rows and columns of a tile with its label.
    pixel_mm : sides of a pixel, up and to the right.
    """

    view: View
    planes: tuple[int, ...]
    positions_mm: tuple[float, ...]
    n_columns: int
    corner: tuple[int, int]
    shown: tuple[int, int]
    tile: tuple[int, int]
    pixel_mm: tuple[float, float]

    @property
    def n_rows(self) -> int:
        """Rows of tiles."""
        return -(-len(self.planes) // self.n_columns)

    @property
    def height_per_width(self) -> float:
        """Proportion of the whole."""
        up, right = (n * mm for n, mm in zip(self.tile, self.pixel_mm, strict=True))
        return up * self.n_rows / (right * self.n_columns)

    def lay(self, volume: NDArray[np.floating], *, background: float) -> NDArray[np.floating]:
        """Return the tiles of a volume in RAS+ as one image, the top row first."""
        height, width = self.tile
        image = np.full(
            (self.n_rows * height, self.n_columns * width), background, dtype=np.float32
        )
        view = self.view
        planes = np.moveaxis(volume, (view.through, view.up, view.right), (0, 1, 2))
        for place, plane in enumerate(self.planes):
            row, column = divmod(place, self.n_columns)
            n_up, n_right = self.shown
            cut = planes[plane, self.corner[0] :, self.corner[1] :][:n_up, :n_right]
            top, left = row * height, column * width
            image[top : top + n_up, left : left + n_right] = cut[::-1]
        return image

    def write_labels(self, axes: Axes, *, colour: str) -> None:
        """Write into each tile where it was cut, and at its sides where these lie in the head."""
        height, width = self.tile
        left, right = self.view.ends[:2]
        style: dict[str, Any] = {"color": colour, "fontsize": 7}
        for place, position in enumerate(self.positions_mm):
            row, column = divmod(place, self.n_columns)
            x, y = column * width, row * height
            axes.text(x + 0.03 * width, y + 0.11 * height, left, ha="left", **style)
            axes.text(x + 0.97 * width, y + 0.11 * height, right, ha="right", **style)
            name = f"{'xyz'[self.view.through]} {position:.0f}"
            axes.text(x + 0.5 * width, y + 0.985 * height, name, ha="center", **style)


def plan_montage(
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    view: View,
    *,
    n_tiles: int,
    n_columns: int,
) -> Montage:
    """Choose planes through a mask in RAS+, evenly, and cut them to where the mask is.

    Parameters
    ----------
    mask : shape (right, anterior, superior), from `turn_to_ras`; not empty.
    affine : of the mask.
    """
    first, last = _find_ends(mask, view.through)
    span = last - first
    places = np.linspace(first + _ENDS_SHOWN[0] * span, first + _ENDS_SHOWN[1] * span, n_tiles)
    planes = places.round().astype(int)
    centre = (np.array(mask.shape) - 1) / 2
    voxels = np.repeat(centre[None], n_tiles, axis=0)
    voxels[:, view.through] = planes
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    boxes = []
    for axis in (view.up, view.right):
        low, high = _find_ends(mask, axis)
        low, high = max(0, low - _MARGIN), min(mask.shape[axis] - 1, high + _MARGIN)
        boxes.append((low, high - low + 1))
    (bottom, n_up), (left, n_right) = boxes
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return Montage(
        view=view,
        planes=tuple(planes.tolist()),
        positions_mm=tuple(world[:, view.through].tolist()),
        n_columns=n_columns,
        corner=(bottom, left),
        shown=(n_up, n_right),
        tile=(n_up + max(1, round(_FOOT * n_up)), n_right + 1),
        pixel_mm=(float(sides[view.up]), float(sides[view.right])),
    )


def turn_all(
    volumes: Sequence[NDArray[np.floating]], affine: NDArray[np.float64]
) -> tuple[list[NDArray[np.floating]], NDArray[np.float64]]:
    """Turn volumes of one grid so that their axes go right, anterior, superior."""
    turned = [turn_to_ras(volume, affine) for volume in volumes]
    return [volume for volume, _ in turned], turned[0][1]


def find_template_brain(
    space: str, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """Look up the brain of the MNI152 template at the voxels of an image; None in another space.

    The templates of this family differ by a few millimetres: the outline shows whether a run lies
    where it should, not more.
    """
    if not space.startswith("MNI152"):
        return None
    with as_file(files("neurostorm_bids") / "data" / "mni152_brain_mask.nii.gz") as path:
        template = read_brain_mask(path)
    inside = np.zeros(shape, dtype=np.bool_)
    voxels = np.indices((1, *shape[1:])).reshape(3, -1).T
    for x in range(shape[0]):
        voxels[:, 0] = x
        nearest = find_positions(voxels, affine, template.affine).round().astype(np.intp)
        there = np.all((nearest >= 0) & (nearest < template.inside.shape), axis=1)
        found = np.zeros(len(nearest), dtype=np.bool_)
        found[there] = template.inside[tuple(nearest[there].T)]
        inside[x] = found.reshape(shape[1:])
    return inside


def _find_ends(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    others = tuple(one for one in range(mask.ndim) if one != axis)
    inside = np.flatnonzero(mask.any(axis=others))
    return int(inside[0]), int(inside[-1])
