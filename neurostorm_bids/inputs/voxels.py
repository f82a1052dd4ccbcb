"""What a NIfTI header says of voxels and time, where the choice of a file depends on it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_LEAST_MM = 0.01


def read_voxel_size_mm(image: Path) -> float | None:
    """Read the side of a voxel, mm, from the affine: the cube root of its volume.

    None where the header cannot be read; what is wrong with it is told when the image is read.
    """
    import nibabel as nib  # noqa: PLC0415 - discovery seldom looks into a file
    import numpy as np  # noqa: PLC0415

    from neurostorm_bids.inputs.damage import UNREADABLE  # noqa: PLC0415

    try:
        loaded = nib.load(image)
        affine = np.asarray(loaded.affine, dtype=np.float64)  # type: ignore[attr-defined]
        volume = abs(float(np.linalg.det(affine[:3, :3])))
    except UNREADABLE as err:
        logger.debug("No voxel size of %s: %s", image, err)
        return None
    return volume ** (1 / 3) if math.isfinite(volume) and volume > 0 else None


def read_header_time_s(image: Path) -> float | None:
    """Read what a header takes for the seconds between volumes; None where it cannot be read."""
    import nibabel as nib  # noqa: PLC0415 - discovery seldom looks into a file

    from neurostorm_bids.inputs.damage import UNREADABLE  # noqa: PLC0415

    try:
        zooms = nib.load(image).header.get_zooms()  # type: ignore[attr-defined]
    except UNREADABLE:
        return None
    return float(zooms[3]) if len(zooms) > 3 else None  # noqa: PLR2004 - X, Y, Z, T


def differ_in_size(side_mm: float | None, wanted_mm: float | None) -> float:
    """Return how far a voxel's side is from the one wanted, as a factor's logarithm.

    What is unknown comes last; sides that round to the same hundredth of a millimetre are equal,
    and none counts as smaller than one, so that an affine in metres is only far off.
    """
    if wanted_mm is None:
        return 0.0
    if side_mm is None:
        return math.inf
    side, wanted = (max(round(mm, 2), _LEAST_MM) for mm in (side_mm, wanted_mm))
    return abs(math.log(side / wanted))
