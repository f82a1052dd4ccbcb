"""Files in the safetensors format: written in parts and whole or not at all, read by memory map."""

from __future__ import annotations

import fcntl
import json
import math
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from neurostorm_bids.errors import DataError, OutputError, ReadError, TemporaryError
from neurostorm_bids.inputs.files import check_readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_TYPE_NAMES = {np.dtype("<f4"): "F32", np.dtype("u1"): "U8", np.dtype("<u2"): "U16"}
_HEADER_ALIGNMENT = 8

# What a file of another kind, or of a stranger, can make its reader raise.
_DAMAGED = (
    SafetensorError,
    DataError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class Tensor(NamedTuple):
    """An array on its way into a file; it need never be in memory as a whole.

    Parameters
    ----------
    dtype, shape : of the array.
    parts : arrays that follow each other along the first axis, and add up to the shape.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    parts: Iterable[NDArray[Any]]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, so that `path` holds all of it or is left as it was.

    The library's own writer wants all arrays in memory at once, and gives the file to its owner
    alone.

    Parameters
    ----------
    tensors : by name; those with larger numbers first, so that each begins at a multiple of them.

    Raises
    ------
    OutputError
        If the operating system refuses.
    TemporaryError
        If another process is writing the same file.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, _) in tensors.items():
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        entries[name] = {
            "dtype": _TYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % _HEADER_ALIGNMENT)
    with write_whole(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for dtype, _, parts in tensors.values():
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype=dtype).data)


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Map a safetensors file into memory; gives what `safetensors.safe_open` gives.

    The library compares the header with the file's size before it hands out anything. Whatever
    goes wrong within the block for the file's sake is a `DataError` that says what to do.

    Raises
    ------
    MissingFileError, ReadError
        If the file is not there or cannot be read.
    DataError
        If it is damaged, cut short or of another kind.
    """
    check_readable(path)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except _DAMAGED as err:
        found = str(err).rstrip(".")
        raise DataError(
            f"{path} is not a stored run that can be read: {found}. It is damaged, cut short or "
            "from another version. Delete it and prepare the run again."
        ) from err
    except OSError as err:
        raise ReadError(f"Reading {path} failed: {err}. Check its permissions and disk.") from err


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a hidden file beside `path` that takes its place when all of it is on the disk.

    The hidden file's name follows from the path, and it is locked while it is written: what a
    killed process left behind is written over, and no two processes write the same file.
    """
    hidden = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hidden.open("ab") as file:
            _lock(file, hidden)
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                hidden.replace(path)
            except BaseException:
                hidden.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as err:
        raise OutputError(
            f"Cannot write {path}: {err.strerror or err}. Free space there, mend the rights of the "
            "folder, or choose another work folder. What is finished is kept."
        ) from err


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock a file that stands at `path`, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before may have finished, and moved this very file to its place.
        is_ours = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except BlockingIOError:
        is_ours = False
    except OSError:
        return  # a file system without locks: two processes at one file are not told apart
    if not is_ours:
        raise TemporaryError(
            f"Another process is writing {path.parent / path.name.strip('.')}. Wait for it to "
            "finish, then run again."
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # some network file systems cannot, and keep names by themselves
        os.fsync(descriptor)
    os.close(descriptor)
