"""Where the brain is: its mask, and the voxels of the grid that lie in it."""

from __future__ import annotations

import logging
import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.read import IN_TURN, Volumes, open_volumes
from neurostorm_bids.grid.resample import find_positions, is_inside

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

    from neurostorm_bids.grid.read import Reading
    from neurostorm_bids.grid.spec import GridSpec

logger = logging.getLogger(__name__)

MIN_BRAIN_COVERAGE = 0.8
"""Share of the brain mask that must lie in the field of view of the grid and of the run."""

_CENTRE_MM = (0.0, -22.0, 9.5)
"""Centre of the brain mask that nilearn has of the MNI152 template."""

_MASKED_SHARE = (0.05, 0.6)
"""Share of voxels that vary in a run of which only the brain was kept."""

_NO_MEAN = 0.05
"""Mean as a share of the mean absolute value, below which a series was demeaned."""

_MAX_DISTANCE_MM = 25.0
_VOLUME_LITRES = (0.5, 3.0)

# A voxel of the grid may lie half-way between two voxels of a mask. Looking this far aside, in
# millimetres of the world, decides for the same of the two whichever way the mask is stored.
_TIE_BREAK_MM = (3e-3, 2e-3, 1e-3)


class BrainMask(NamedTuple):
    """A brain mask on its own grid, which need not be the run's.

    Parameters
    ----------
    name : where it comes from; for messages.
    inside : bool, shape (X, Y, Z).
    affine : shape (4, 4), voxel indices to world millimetres.
    warnings : doubts about it.
    """

    name: str
    inside: NDArray[np.bool_]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]


class GridBrain(NamedTuple):
    """The brain on the model's grid.

    Parameters
    ----------
    mask : bool, shape (X, Y, Z) of the grid.
    positions : float64, shape (n_brain, 3); where these voxels, in the order of
        ``np.flatnonzero(mask)``, lie in the run's image, in its voxels.
    coverage : share of the brain mask in the field of view of both the grid and the run.
    """

    mask: NDArray[np.bool_]
    positions: NDArray[np.float64]
    coverage: float


def read_brain_mask(source: Path | SpatialImage) -> BrainMask:
    """Read a brain mask: the brain is where it is above 0.

    Raises
    ------
    MissingFileError, ReadError
        If the file is not there or cannot be read.
    DataError
        If it is no 3D image, or marks no voxel.
    """
    image = open_volumes(source, name="the brain mask in memory")
    if image.n_volumes != 1:
        raise DataError(
            f"Expected one volume in a brain mask; found {image.n_volumes} in {image.name}."
        )
    (volume,) = image.read()
    inside = (volume > 0).reshape(image.shape, order="F")
    if not inside.any():
        raise DataError(
            f"Expected a brain mask that is above 0 in the brain; {image.name} is empty."
        )
    doubts = list(image.warnings)
    if inside.all():
        doubts.append("The brain mask marks every voxel of its image, background included.")
    else:
        doubts += _doubt_brain(inside, image.affine)
    return BrainMask(image.name, inside, image.affine, tuple(doubts))


def _doubt_brain(inside: NDArray[np.bool_], affine: NDArray[np.float64]) -> list[str]:
    """Compare place and size of a mask with those of a brain in an MNI space."""
    doubts = []
    centre = (affine @ [*np.argwhere(inside).mean(axis=0), 1])[:3]
    distance_mm = float(np.linalg.norm(centre - _CENTRE_MM))
    if distance_mm > _MAX_DISTANCE_MM:
        doubts.append(
            f"The centre of the brain mask is {distance_mm:.0f} mm from that of the MNI template: "
            f"at {', '.join(f'{x:.0f}' for x in centre)} mm. Is the run in a standard space, as "
            "its name says, and does the mask hold all of the brain?"
        )
    litres = float(inside.sum() * abs(np.linalg.det(affine[:3, :3]))) / 1e6
    low, high = _VOLUME_LITRES
    if not low <= litres <= high:
        doubts.append(
            f"The brain mask has a volume of {litres:.2g} l; a brain in an MNI space has 1.5 to 2."
        )
    return doubts


def doubt_grid(brain: BrainMask, run: Volumes) -> list[str]:
    """Compare the voxels of a mask with those of its run, which preprocessing makes the same."""
    if brain.inside.shape == run.shape and np.allclose(brain.affine, run.affine, atol=1e-2):
        return []
    doubt = (
        f"The brain mask has other voxels than the run ({_by(brain.inside.shape)} and "
        f"{_by(run.shape)}): it was brought to the grid by its own affine. Does it belong to it?"
    )
    return [doubt]


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def make_brain_mask(run: Volumes, reading: Reading = IN_TURN) -> BrainMask:
    """Make a brain mask from a run's mean over time, by nilearn's threshold for BOLD images.

    Raises
    ------
    DataError
        If the mean does not show a brain, as in a run whose mean was removed.
    """
    from nilearn.masking import compute_epi_mask  # noqa: PLC0415 - seconds, and rarely needed

    logger.info("Making a brain mask for %s", run.name)
    total = np.zeros(math.prod(run.shape), dtype=np.float64)
    size = np.zeros_like(total)
    first: NDArray[Any] | None = None
    varies = np.zeros(math.prod(run.shape), dtype=np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        for volume in run.read(reading):
            total += volume
            size += np.abs(volume)
            first = volume.copy() if first is None else first
            varies |= volume != first
        mean = (total / run.n_volumes).astype(np.float32)
    mean = np.nan_to_num(mean, posinf=0, neginf=0)
    if _is_demeaned(mean, size / run.n_volumes, varies):
        inside = varies.reshape(run.shape, order="F")
        doubt = (
            "No brain mask was given; the voxels that vary were taken, for the run has no mean and "
            "is constant around them."
        )
        return BrainMask("made from the voxels that vary", inside, run.affine, (doubt,))
    image = nib.Nifti1Image(mean.reshape(run.shape, order="F"), run.affine)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty mask is an error below
            mask = compute_epi_mask(image)
    except (ValueError, IndexError) as err:
        raise _no_brain_seen(run) from err
    inside = np.asarray(mask.dataobj) > 0
    if mean.min() == mean.max() or not inside.any():
        raise _no_brain_seen(run)
    doubt = (
        "No brain mask was given; one was made from the run's mean over time (compute_epi_mask of "
        "nilearn)."
    )
    return BrainMask("made from the mean over time", inside, run.affine, (doubt,))


def _is_demeaned(
    mean: NDArray[np.float32], size: NDArray[np.float64], varies: NDArray[np.bool_]
) -> bool:
    """Tell a run without means whose background is constant, as a denoised series may be.

    `size` is the mean of the absolute values.
    """
    low, high = _MASKED_SHARE
    if not low <= varies.mean() <= high:
        return False
    return bool(np.median(np.abs(mean[varies])) < _NO_MEAN * np.median(size[varies]))


def place_brain_mask(
    brain: BrainMask, run: Volumes, spec: GridSpec, *, world: NDArray[np.float32] | None = None
) -> GridBrain:
    """Find the voxels of the grid that lie in the brain, and where they lie in the run.

    A voxel of the grid belongs to the brain if the nearest voxel of the mask does, and if it lies
    in the run's field of view.

    Parameters
    ----------
    world : where the grid's voxels lie in the run's space, shape (X, Y, Z, 3), if that is another
        than the grid's; see `warp.locate_grid`.

    Raises
    ------
    DataError
        If too little of the brain lies in the field of view of the grid and the run.
    """
    coverage = _find_coverage(brain, run, spec)
    in_brain = np.stack([_find_slice(brain, spec, x, world) for x in range(spec.shape[0])])
    positions = _locate(np.argwhere(in_brain), spec, run.affine, world)
    covered = is_inside(positions, run.shape)
    if not covered.any():
        raise DataError(
            f"No voxel of the model's grid lies in the brain mask {brain.name}: expected a brain, "
            f"found {int(brain.inside.sum())} voxels. Check the mask."
        )
    in_brain[in_brain] = covered
    return GridBrain(in_brain, positions[covered], coverage)


def _locate(
    voxels: NDArray[np.intp],
    spec: GridSpec,
    affine: NDArray[np.float64],
    world: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    """Find where voxels of the grid, (n, 3), lie in an image of the run's space, in its voxels."""
    if world is None:
        return find_positions(voxels, spec.affine_matrix, affine)
    points = world[tuple(voxels.T)].astype(np.float64)
    return find_positions(points, np.eye(4), affine)


def _find_slice(
    brain: BrainMask, spec: GridSpec, x: int, world: NDArray[np.float32] | None
) -> NDArray[np.bool_]:
    """Look up one slice of the grid in a mask: bool, shape (Y, Z)."""
    voxels = np.argwhere(np.ones((1, *spec.shape[1:]), dtype=np.bool_))
    voxels[:, 0] = x
    in_mask = _locate(voxels, spec, brain.affine, world)
    in_mask += np.linalg.inv(brain.affine)[:3, :3] @ _TIE_BREAK_MM
    nearest = np.floor(in_mask + 0.5).astype(np.intp)
    inside: NDArray[np.bool_] = np.all((nearest >= 0) & (nearest < brain.inside.shape), axis=1)
    inside[inside] = brain.inside[tuple(nearest[inside].T)]
    return inside.reshape(spec.shape[1:])


def _find_coverage(brain: BrainMask, run: Volumes, spec: GridSpec) -> float:
    voxels = np.argwhere(brain.inside)
    in_grid = is_inside(find_positions(voxels, brain.affine, spec.affine_matrix), spec.shape)
    in_run = is_inside(find_positions(voxels, brain.affine, run.affine), run.shape)
    coverage = float((in_grid & in_run).mean())
    if coverage < MIN_BRAIN_COVERAGE:
        raise DataError(
            f"Only {coverage:.0%} of the brain lies in view: of the brain mask {brain.name}, "
            f"{in_grid.mean():.0%} lie in the model's grid ({spec.space}) and "
            f"{in_run.mean():.0%} in {run.name}; expected {MIN_BRAIN_COVERAGE:.0%}. Check that "
            "the run is in a standard space and that the mask belongs to it."
        )
    return coverage


def _no_brain_seen(run: Volumes) -> DataError:
    return DataError(
        f"No brain mask was given for {run.name}, and its mean over time shows no brain. "
        "Give the brain mask that belongs to it."
    )
