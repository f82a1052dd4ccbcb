"""From one standard space to another, by the transform that TemplateFlow has between the two."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError, MissingFileError
from neurostorm_bids.grid.atlas_sources import list_templateflow_homes
from neurostorm_bids.inputs.files import check_readable
from neurostorm_bids.inputs.fingerprint import fingerprint_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs.cleaning import WarpMode

logger = logging.getLogger(__name__)

MAX_FIELD_VOXELS = 512**3

_GRIDS_KEPT = 2
_POINTS_AT_ONCE = 1_000_000  # the field is filtered anew each time


class Warp(NamedTuple):
    """A transform file of ITK that brings images of one space into another.

    As ITK has it, the transform maps points the other way: from the space that an image is brought
    into to the one it is in, which says where to read the image.

    Attributes
    ----------
    path : ``tpl-<target>_from-<source>_mode-image_xfm.h5``.
    source, target : names of the spaces.
    """

    path: Path
    source: str
    target: str

    @property
    def fingerprint(self) -> str:
        """A hash of the file's contents."""
        status = self.path.stat()
        return _fingerprint(self.path, status.st_size, status.st_mtime_ns)

    def describe(self) -> str:
        """Say in words what it does."""
        return (
            f"Warped from {self.source} to {self.target} with TemplateFlow's transform "
            f"({self.path.name}), in one interpolation with the change of grid."
        )


def find_warp(source: str | None, target: str, *, mode: WarpMode) -> Warp | None:
    """Find the transform between two standard spaces.

    Parameters
    ----------
    source, target : names of the spaces; None if it is not known.
    mode : ``auto`` looks on this machine only, ``download`` asks TemplateFlow, ``off`` finds none.

    Returns
    -------
    None where none is needed, wanted or at hand.

    Raises
    ------
    MissingFileError
        If it was to be downloaded and could not be.
    """
    if source is None or source == target or mode == "off":
        return None
    name = f"tpl-{target}_from-{source}_mode-image_xfm.h5"
    for home in list_templateflow_homes():
        path = home / f"tpl-{target}" / name
        # What was not fetched is a link into nowhere, or empty.
        if path.is_file() and path.stat().st_size:
            return Warp(path, source, target)
    return _download(source, target) if mode == "download" else None


def locate_grid(warp: Warp, spec: GridSpec) -> NDArray[np.float32]:
    """Find where the voxels of a grid lie in the space of the images that are warped.

    Computed once for a grid and a transform, and kept: 12 bytes per voxel of the grid.

    Returns
    -------
    float32, shape (X, Y, Z, 3), world millimetres (RAS+) in the space `warp.source`. Read-only.

    Raises
    ------
    DataError
        If the file is no transform that can be read.
    """
    status = warp.path.stat()
    return _locate_grid(warp.path, status.st_size, status.st_mtime_ns, spec)


@lru_cache(maxsize=_GRIDS_KEPT)
def _locate_grid(path: Path, _size: int, _mtime_ns: int, spec: GridSpec) -> NDArray[np.float32]:
    logger.info("Reading the transform %s", path.name)
    transforms = _read_transforms(path)
    affine = spec.affine_matrix
    world = np.empty((*spec.shape, 3), dtype=np.float32)
    flat = world.reshape(-1, 3)
    for start in range(0, len(flat), _POINTS_AT_ONCE):
        stop = min(start + _POINTS_AT_ONCE, len(flat))
        voxels = np.stack(np.unravel_index(np.arange(start, stop), spec.shape), axis=1)
        points = voxels @ affine[:3, :3].T + affine[:3, 3]
        for transform in transforms:
            points = _map(transform, points)
        flat[start:stop] = points
    world.flags.writeable = False
    return world


def _read_transforms(path: Path) -> list[Any]:
    """Read the parts of a composite transform, in the order in which points go through them."""
    import h5py  # noqa: PLC0415 - rarely needed
    from nitransforms.io.base import TransformIOError  # noqa: PLC0415
    from nitransforms.manip import TransformChain  # noqa: PLC0415 - a second, and rarely needed

    check_readable(path)
    try:
        with h5py.File(path, "r") as file:
            groups = file["TransformGroup"].values()
            sizes = [part.size for group in groups for part in group.values()]
        if max(sizes, default=0) > 3 * MAX_FIELD_VOXELS:
            raise DataError(f"The field in {path} has more than {MAX_FIELD_VOXELS} voxels.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no image was given to refer to
            return list(TransformChain.from_filename(path, fmt="itk").transforms)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, TransformIOError) as err:
        raise DataError(
            f"{path} is not a composite transform of ITK that can be read: {err}. Fetch it from "
            "TemplateFlow again, or use --warp off."
        ) from err


def _map(transform: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Send points (n, 3) through one transform; a field leaves those outside of it alone."""
    if not hasattr(transform, "is_deltas"):
        mapped: NDArray[np.float64] = np.asarray(transform.map(points), dtype=np.float64)
        return mapped
    grid = transform.reference
    voxels = np.asarray(grid.index(points), dtype=np.float64)
    inside = np.all((voxels >= 0) & (voxels <= np.array(grid.shape[:3]) - 1), axis=1)
    moved = points.copy()
    if inside.any():
        moved[inside] = transform.map(points[inside])
    return moved


def _download(source: str, target: str) -> Warp:
    from templateflow import api  # noqa: PLC0415 - reads its archive's index at first use

    query = {"from": source, "mode": "image", "suffix": "xfm", "extension": ".h5"}
    try:
        path = api.get(target, raise_empty=True, **query)
    except Exception as err:  # whatever comes from the network or an archive without the file
        raise MissingFileError(
            f"TemplateFlow's transform from {source} to {target} could not be fetched: {err}. "
            "Copy it into TEMPLATEFLOW_HOME where there is a network, or use --warp off."
        ) from err
    if isinstance(path, list):
        path = path[0]
    return Warp(path, source, target)


@lru_cache
def _fingerprint(path: Path, _size: int, _mtime_ns: int) -> str:
    return fingerprint_file(path)
