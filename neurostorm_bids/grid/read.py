"""NIfTI files, volume by volume: nothing is allocated that the file cannot fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import nibabel as nib
import numpy as np
from isal import igzip, igzip_threaded

from neurostorm_bids.errors import DataError, ReadError
from neurostorm_bids.grid.header import (
    doubt_scaling,
    find_doubts,
    find_repetition_time,
    read_affine,
)
from neurostorm_bids.inputs.damage import DAMAGED_HEADER, DAMAGED_STREAM, UNREADABLE
from neurostorm_bids.inputs.files import check_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

    from neurostorm_bids.grid.spec import Size3

MAX_DEFLATE_RATIO = 1032
"""Bytes that one compressed byte can at most stand for in a gzip stream."""

MAX_VOXELS_PER_VOLUME = 512**3

_SUFFIXES = (".nii", ".nii.gz")
_BYTES_AT_ONCE = 2**20


class Reading(NamedTuple):
    """How the volumes of a run are read; what they hold is the same.

    Attributes
    ----------
    in_thread : decompress in a further thread, ahead of what is done with the volumes.
    check : is called before each volume of a file; what it raises ends the reading.
    """

    in_thread: bool = False
    check: Callable[[], object] = lambda: None


IN_TURN = Reading()


class Stream(NamedTuple):
    """Where the values of an image lie in a file, and how to scale them."""

    path: Path
    offset: int
    dtype: np.dtype[Any]
    slope: float
    intercept: float


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """A 3D or 4D image whose volumes are read one after another.

    Parameters
    ----------
    name : the path, or words for an image in memory; for messages.
    image : header and data; nothing is read yet.
    stream : where the data lie in a file; None for an array in memory.
    shape : voxels along X, Y, Z.
    n_volumes : 1 for a 3D image.
    affine : float64, shape (4, 4); voxel indices to world millimetres.
    repetition_time_s : what the header says; 0 where it says nothing.
    warnings : doubts about the header.
    """

    name: str
    image: SpatialImage
    stream: Stream | None
    shape: Size3
    n_volumes: int
    affine: NDArray[np.float64]
    repetition_time_s: float
    warnings: tuple[str, ...]

    def read(self, reading: Reading = IN_TURN) -> Iterator[NDArray[Any]]:
        """Read volumes in order: real numbers, shape (X * Y * Z,), X runs fastest.

        Values are in the stored type, or float64 where the header scales them. The array may be
        the same one each time: use it before asking for the next volume.

        Raises
        ------
        DataError
            If the file ends early, is damaged, or does not hold real numbers.
        ReadError
            If the file system fails.
        """
        return self._read_stream(self.stream, reading) if self.stream else self._read_array()

    def _read_array(self) -> Iterator[NDArray[Any]]:
        stored: Any = self.image.dataobj
        for t in range(self.n_volumes):
            volume = np.asarray(stored[..., t] if len(stored.shape) > len(self.shape) else stored)
            _check_dtype(volume.dtype, name=self.name)
            yield volume.ravel(order="F")

    def _read_stream(self, stream: Stream, reading: Reading) -> Iterator[NDArray[Any]]:
        raw = bytearray(math.prod(self.shape) * stream.dtype.itemsize)
        volume: NDArray[Any] = np.frombuffer(raw, dtype=stream.dtype)
        is_scaled = (stream.slope, stream.intercept) != (1, 0)
        try:
            with _open_stream(stream.path, in_thread=reading.in_thread) as file:
                for start in range(0, stream.offset, _BYTES_AT_ONCE):  # a thread cannot seek
                    file.read(min(_BYTES_AT_ONCE, stream.offset - start))
                for _ in range(self.n_volumes):
                    reading.check()
                    _fill(raw, file)
                    yield volume * stream.slope + stream.intercept if is_scaled else volume
                file.read(1)  # past the last volume, gzip compares its checksum
        except DAMAGED_STREAM as err:
            raise DataError(
                f"{stream.path} is damaged or cut short: expected {self.n_volumes} volumes of "
                f"{self.shape} voxels, found {err}. Copy or make the file again."
            ) from err
        except OSError as err:
            raise ReadError(f"Reading {stream.path} failed: {err}. Check its disk.") from err


def open_volumes(source: Path | SpatialImage, *, name: str = "the image in memory") -> Volumes:
    """Read a header and check that the data can be what it promises.

    Parameters
    ----------
    source : ``.nii`` or ``.nii.gz``, or a nibabel image.
    name : what messages call an image; a file is called by its path.

    Raises
    ------
    MissingFileError, ReadError
        If the file is not there or cannot be read.
    DataError
        If it is not NIfTI, is damaged or too short, is not 3D or 4D, holds anything else than
        real numbers, or has no position in the world.
    """
    image = _load(source) if isinstance(source, Path) else source
    name = str(source) if isinstance(source, Path) else name
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in {3, 4} or min(shape) < 1:
        raise DataError(
            f"{name} has the shape {shape}; expected three axes of space, and time. "
            "Remove axes of length 1, and split files with more than one series."
        )
    if math.prod(shape[:3]) > MAX_VOXELS_PER_VOLUME:
        raise DataError(
            f"{name} has volumes of {shape[:3]} voxels; expected at most {MAX_VOXELS_PER_VOLUME} "
            "voxels. Check the file, or resample it."
        )
    stream = _find_stream(image)
    if stream is not None:
        _check_dtype(stream.dtype, name=name)
        _check_size(stream, shape)
    return Volumes(
        name=name,
        image=image,
        stream=stream,
        shape=cast("Size3", shape[:3]),
        n_volumes=math.prod(shape[3:]),
        affine=read_affine(image, name=name),
        repetition_time_s=find_repetition_time(image),
        warnings=(*find_doubts(image), *_doubt_scaling(source, image)),
    )


def read_header_repetition_time(image: SpatialImage) -> float:
    """Read the seconds between volumes out of a 4D image's header.

    A file has a JSON sidecar, which is the better source: headers are often wrong.

    Raises
    ------
    DataError
        If the header says nothing usable.
    """
    seconds = find_repetition_time(image)
    if not (math.isfinite(seconds) and seconds > 0):
        raise DataError(
            f"The image's header gives a repetition time of {seconds:g} s; expected a number above "
            "0. Give the repetition time."
        )
    return seconds


def _load(path: Path) -> SpatialImage:
    check_readable(path)
    if not path.name.endswith(_SUFFIXES):
        raise DataError(f"Expected a file that ends in .nii or .nii.gz; found {path}.")
    try:
        image = nib.load(path)
    except DAMAGED_HEADER as err:
        raise DataError(
            f"{path} is not a NIfTI file that can be read: {err}. Copy or make the file again."
        ) from err
    except OSError as err:
        raise ReadError(f"Reading {path} failed: {err}. Check its permissions and disk.") from err
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"Expected a NIfTI file; found {type(image).__name__} in {path}.")
    return image


def _doubt_scaling(source: Path | SpatialImage, image: SpatialImage) -> tuple[str, ...]:
    """Read the header of a file again, for nibabel forgets its scaling."""
    if not isinstance(source, Path) or not isinstance(image, nib.Nifti1Image):
        return ()
    try:
        with _open_stream(source) as file:
            return doubt_scaling(type(image.header).from_fileobj(file, check=False))
    except UNREADABLE:
        return ()  # it was read once; what is wrong with the data is told when they are


def _find_stream(image: SpatialImage) -> Stream | None:
    """Find the file whose bytes can be read straight through, if the image has one."""
    stored: Any = image.dataobj
    file = getattr(stored, "file_like", None)
    is_path = isinstance(file, str | Path) and str(file).endswith(_SUFFIXES)
    if not (is_path and isinstance(image, nib.Nifti1Image)):
        return None
    return Stream(
        path=Path(cast("str", file)),
        offset=int(stored.offset),
        dtype=stored.dtype,
        slope=float(stored.slope),
        intercept=float(stored.inter),
    )


def _open_stream(path: Path, *, in_thread: bool = False) -> IO[bytes]:
    if not path.name.endswith(".gz"):
        return path.open("rb")
    opened = igzip_threaded.open(path, "rb") if in_thread else igzip.open(path, "rb")  # type: ignore[no-untyped-call]
    return cast("IO[bytes]", opened)


def _fill(raw: bytearray, file: IO[bytes]) -> None:
    view = memoryview(raw)
    n_read = 0
    while n_read < len(raw):
        n_more = file.readinto(view[n_read:])  # type: ignore[attr-defined]
        if not n_more:
            raise EOFError(f"a volume of {n_read} instead of {len(raw)} bytes")
        n_read += n_more


def _check_dtype(dtype: np.dtype[Any], *, name: str) -> None:
    if dtype.kind not in "iuf":
        raise DataError(
            f"{name} holds {dtype}; expected real numbers, integer or floating-point. "
            "Convert the image."
        )


def _check_size(stream: Stream, shape: tuple[int, ...]) -> None:
    """Compare what the header promises with the most that a file of this size can hold."""
    promised = stream.offset + math.prod(shape) * stream.dtype.itemsize
    n_bytes = check_readable(stream.path)
    possible = n_bytes * (MAX_DEFLATE_RATIO if stream.path.name.endswith(".gz") else 1)
    if promised > possible:
        raise DataError(
            f"{stream.path} is damaged or cut short: its header promises {shape} voxels, "
            f"{promised} bytes; a file of {n_bytes} bytes cannot hold them. "
            "Copy or make the file again."
        )
