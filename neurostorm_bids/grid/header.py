"""What an image's header says about space and time, and what to doubt in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from neurostorm_bids.errors import DataError

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

_SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


def read_affine(image: SpatialImage, *, name: str) -> NDArray[np.float64]:
    """Read the affine, voxel indices to world millimetres: float64, shape (4, 4).

    Raises
    ------
    DataError
        If it says nothing about the world (both codes 0), or cannot be inverted.
    """
    header: Any = image.header
    if isinstance(image, nib.Nifti1Pair) and header["sform_code"] <= 0 >= header["qform_code"]:
        raise DataError(
            f"{name} has no position in the world: its sform and qform codes are 0. Take the file "
            "as the preprocessing wrote it, or set the sform and its code."
        )
    affine = np.array(image.affine, dtype=np.float64)
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine)) > np.finfo(np.float32).tiny):
        raise DataError(
            f"The affine of {name} cannot be inverted: {affine.tolist()}. Take the file as the "
            "preprocessing wrote it."
        )
    return affine


def find_doubts(image: SpatialImage) -> tuple[str, ...]:
    """Compare the header's two transforms; nibabel takes the sform where both are set."""
    header: Any = image.header
    if not isinstance(image, nib.Nifti1Pair):
        return ()
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return ()
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except (HeaderDataError, ValueError) as err:
        return (f"The header's qform is damaged ({err}); its sform was used.",)
    if np.linalg.det(sform) * np.linalg.det(qform) > 0:
        return ()
    return ("The header's sform and qform disagree about left and right; the sform was used.",)


def doubt_scaling(header: Any) -> tuple[str, ...]:  # noqa: ANN401 - nibabel has no types
    """Look at a header's scaling before nibabel does, which passes over a slope that is no number.

    A slope of 0 or NaN means that values are not scaled (NIfTI-1), and is no reason to doubt.
    """
    try:
        slope = float(header["scl_slope"])
    except (KeyError, ValueError, TypeError):
        return ()
    if not math.isinf(slope):
        return ()
    return (f"The header's scl_slope is {slope}; the values were read without scaling.",)


def find_repetition_time(image: SpatialImage) -> float:
    """Return the header's seconds between volumes; 0 where it has none."""
    header: Any = image.header
    zooms = header.get_zooms()
    if len(zooms) <= len(image.shape[:3]):
        return 0.0
    try:
        unit = header.get_xyzt_units()[1]
    except (AttributeError, LookupError):
        unit = "unknown"
    return float(zooms[3]) * _SECONDS_PER_UNIT.get(unit, math.nan)
