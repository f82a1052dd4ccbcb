"""NIfTI images as bytes, volume by volume, the same bytes for the same image."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from neurostorm_bids.grid.spec import Size3

_GZIP = 16 + zlib.MAX_WBITS  # zlib's header of a gzip stream holds neither a time nor a name
_LEVEL = 4  # noise hardly compresses; higher levels take several times as long for little
_MNI, _ALIGNED = 4, 2  # codes of NIfTI's standard for what world coordinates are


def encode_image(
    volumes: Iterable[NDArray[np.float32]],
    *,
    shape: Size3,
    n_volumes: int,
    affine: NDArray[np.float64],
    space: str,
    repetition_time_s: float,
) -> Iterator[bytes]:
    """Encode volumes as they come: the bytes of a ``.nii.gz`` in float32, piece by piece.

    Parameters
    ----------
    volumes : `n_volumes` of them, each float32, shape (X, Y, Z).
    affine : float64, shape (4, 4); voxels to world millimetres.
    space : the standard space.
    repetition_time_s : seconds from one volume to the next; of a single one, what it stands for.
    """
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(np.float32)
    header.set_data_shape((*shape, n_volumes))
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    header.set_zooms((*sides, repetition_time_s))
    header.set_xyzt_units("mm", "sec")
    code = _MNI if space.startswith("MNI") else _ALIGNED
    header.set_qform(affine, code)
    header.set_sform(affine, code)
    header["magic"] = b"n+1"
    header["vox_offset"] = nib.Nifti1Header.single_vox_offset
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    yield packer.compress(header.binaryblock + bytes(4))  # no extensions
    for volume in volumes:
        yield packer.compress(np.asarray(volume, dtype="<f4").tobytes(order="F"))
    yield packer.flush()
