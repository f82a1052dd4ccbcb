"""A run as discovery found it, brought to a grid: cleaned and warped as the user asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurostorm_bids.grid.nearest import look_up_nearest, look_up_scattered
from neurostorm_bids.grid.read import IN_TURN, open_volumes
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.warp import find_warp, locate_grid
from neurostorm_bids.inputs.cleaning import Cleaning
from neurostorm_bids.inputs.confounds import read_nuisance
from neurostorm_bids.inputs.fingerprint import fingerprint_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.grid.read import Reading
    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs.records import BoldRun


def bring_run(run: BoldRun, spec: GridSpec, reading: Reading = IN_TURN) -> Series:
    """Read a run, clean it and bring it to a model's grid.

    Parameters
    ----------
    reading : how its file is read.

    Errors are those of `grid_run` and `read_nuisance`.
    """
    nuisance = None
    if run.cleaning.describe() != Cleaning().describe():
        nuisance = read_nuisance(run, n_volumes=open_volumes(run.path).n_volumes)
    return grid_run(
        run.path,
        spec,
        repetition_time_s=run.repetition_time_s,
        brain_mask=run.brain_mask,
        source_space=run.space,
        cleaning=run.cleaning,
        nuisance=nuisance,
        warp=find_warp(run.space, spec.space, mode=run.cleaning.warp),
        reading=reading,
    )


def return_to_run(values: NDArray[np.float32], run: BoldRun, spec: GridSpec) -> NDArray[np.float32]:
    """Bring values on a grid back to a run's own voxels, each from the nearest voxel of the grid.

    Parameters
    ----------
    values : shape (X, Y, Z) of the grid.

    Returns
    -------
    float32, the run's shape along X, Y, Z; 0 outside the grid.
    """
    image = open_volumes(run.path)
    warp = find_warp(run.space, spec.space, mode=run.cleaning.warp)
    if warp is None:
        return look_up_nearest(
            values, spec.affine_matrix, at_shape=image.shape, at_affine=image.affine
        )
    return look_up_scattered(
        values, locate_grid(warp, spec), at_shape=image.shape, at_affine=image.affine
    )


def find_space(run: BoldRun, spec: GridSpec) -> str:
    """Return the standard space in which a run lies once it is on a grid."""
    warp = find_warp(run.space, spec.space, mode=run.cleaning.warp)
    return run.space if warp is None else spec.space


def describe_choices(run: BoldRun, spec: GridSpec) -> dict[str, Any]:
    """Return what decides the values of a gridded run beside its image, mask and clock.

    Empty where nothing was asked for, so that results from before stay valid.

    Raises
    ------
    ReadError
        If the confounds or the transform cannot be read.
    """
    cleaning = run.cleaning
    choices: dict[str, Any] = {}
    if cleaning.describe() != Cleaning().describe():
        choices["cleaning"] = cleaning.describe()
        if cleaning.needs_confounds and run.confounds is not None:
            choices["confounds"] = fingerprint_file(run.confounds)
            # nilearn chooses components by what stands there.
            sidecar = run.confounds.with_suffix(".json")
            if cleaning.denoise is not None and sidecar.exists():
                choices["confounds_sidecar"] = fingerprint_file(sidecar)
    warp = find_warp(run.space, spec.space, mode=cleaning.warp)
    if warp is not None:
        choices["warp"] = warp.fingerprint
    return choices
