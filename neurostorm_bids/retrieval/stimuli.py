"""Embeddings of the images that were shown, from a table or an array of somebody else."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.inputs.files import check_readable
from neurostorm_bids.inputs.tsv import read_tsv

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

STIM_FILE = "stim_file"
"""The column that names an image, as in ``events.tsv``."""

EMBEDDING = "embedding"
"""The array of an archive that holds the numbers."""

MAX_NAME_BYTES = 4 * 1024
"""Of one name in an archive, four for each character."""

MAX_BYTES = 2**31
"""Of one array in an archive."""

MAX_VALUES = 2**28
"""Numbers in one array of embeddings: 1 GiB in float32."""

_DAMAGE = (
    ValueError,
    OverflowError,  # sides that no integer of the machine holds
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,  # encrypted, or compressed in a way that is not known
    SyntaxError,  # of a header
    tokenize.TokenError,
)


def read_image_embeddings(path: Path) -> pd.DataFrame:
    """Read one embedding for each image.

    Parameters
    ----------
    path : a table, ``.tsv``, whose column stim_file names the images as events.tsv does and whose
        other columns are numbers; or an array, ``.npy``, of shape (n_images, n_features), beside
        which a table of the same name, ``.tsv``, names the image of every row; or both in one
        file, ``.npz``, as the arrays stim_file, of text, and embedding.

    Returns
    -------
    DataFrame of float64, shape (n_images, n_features), indexed by stim_file.

    Raises
    ------
    UsageError
        If the file is none of these.
    MissingFileError, ReadError
        If a file is not there, or cannot be read.
    DataError
        If names or numbers are missing, not finite, twice or too many. Nothing in an array is
        ever executed.
    """
    if path.suffix not in {".tsv", ".npy", ".npz"}:
        raise UsageError(
            f"Image embeddings are a .tsv table, a .npy array or a .npz archive, not {path.name!r}."
        )
    if path.suffix == ".npz":
        names, vectors = _read_archive(path)
        _check_names(names, path)
        return _index(vectors, names, path)
    table = path.with_suffix(".tsv")
    if not table.is_file():
        raise MissingFileError(
            f"No {table}. Expected a table with a column {STIM_FILE} that names the images."
        )
    columns = read_tsv(table).columns
    names = columns.get(STIM_FILE, [])
    _check_names(names, table)
    if path.suffix == ".npy":
        vectors = _read_array(path, n_rows=len(names))
    else:
        vectors = _parse_numbers({k: v for k, v in columns.items() if k != STIM_FILE}, table)
    return _index(vectors, names, path)


def _index(vectors: NDArray[np.float64], names: list[str], path: Path) -> pd.DataFrame:
    if not np.isfinite(vectors).all():
        raise DataError(f"Not all numbers in {path} are finite. Leave out images without any.")
    return pd.DataFrame(vectors, index=pd.Index(names, name=STIM_FILE))


def _check_names(names: list[str], path: Path) -> None:
    if not names:
        raise DataError(
            f"Expected a column {STIM_FILE} that names the images, found none in {path}."
        )
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"Expected every image once, found {twice[:3]} more than once in {path}.")


def _parse_numbers(columns: dict[str, list[str]], path: Path) -> NDArray[np.float64]:
    if not columns:
        raise DataError(f"Expected numbers beside {STIM_FILE}, found no other column in {path}.")
    try:
        return np.array(list(columns.values()), dtype=np.float64).T
    except ValueError as err:
        raise DataError(
            f"Expected numbers in {path}: {err}. Keep only {STIM_FILE} and them."
        ) from err


def _read_array(path: Path, *, n_rows: int) -> NDArray[np.float64]:
    """Read an array whose header is checked before anything of its size is allocated."""
    check_readable(path)
    try:
        # A memory map refuses Python objects, and an array that the file is too short for.
        array = np.lib.format.open_memmap(path, mode="r")
    except _DAMAGE as err:
        raise DataError(f"{path} is not a usable .npy array of numbers: {err}.") from err
    _check_header(array.shape, array.dtype, path, n_rows=n_rows)
    return np.array(array, dtype=np.float64)


def _check_header(
    shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, *, n_rows: int | None
) -> None:
    """Check what an array says of itself, before anything of its size is allocated."""
    is_matrix = len(shape) == 2 and dtype.kind in "fiu"  # noqa: PLR2004
    if not is_matrix or n_rows not in {None, shape[0]}:
        wanted = "n_images" if n_rows is None else n_rows
        raise DataError(
            f"Expected numbers of shape ({wanted}, n_features) in {path}, one row for each image "
            f"that is named; found {dtype} of shape {shape}."
        )
    if not 0 < math.prod(shape) <= MAX_VALUES:
        raise DataError(
            f"Expected 1 to {MAX_VALUES:,} numbers in {path}, found {math.prod(shape):,}. "
            "Keep only the images that were shown."
        )


def _read_archive(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Read names and numbers from a .npz; headers are checked first, and objects refused."""
    check_readable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            vectors = _read_member(archive, EMBEDDING, path, n_rows=None)
            names = _read_member(archive, STIM_FILE, path, n_rows=len(vectors))
    except _DAMAGE as err:
        raise DataError(f"{path} is not a usable .npz archive of arrays: {err}.") from err
    return [str(name) for name in names.tolist()], vectors.astype(np.float64)


def _read_member(
    archive: zipfile.ZipFile, name: str, path: Path, *, n_rows: int | None
) -> NDArray[Any]:
    """Read one array; `n_rows` are those of the names, and None means the numbers."""
    if f"{name}.npy" not in archive.namelist():
        raise DataError(
            f"Expected arrays {STIM_FILE} and {EMBEDDING} in {path}; there is no {name}."
        )
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        if version[0] not in read:
            raise DataError(f"{name} in {path} is of version {version} of .npy, not 1 or 2.")
        shape, _, dtype = read[version[0]](member)
    if n_rows is None:
        _check_header(shape, dtype, path, n_rows=None)
    elif shape != (n_rows,) or dtype.kind != "U" or dtype.itemsize > MAX_NAME_BYTES:
        raise DataError(
            f"Expected the names of {n_rows} images, of at most {MAX_NAME_BYTES // 4} characters, "
            f"in {STIM_FILE} of {path}; found {dtype} of shape {shape}."
        )
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > min(archive.getinfo(f"{name}.npy").file_size, MAX_BYTES):
        raise DataError(
            f"{name} in {path} says that it has {n_bytes:,} bytes, which is more than is there or "
            f"more than {MAX_BYTES:,}. Save it again, with only the images that were shown."
        )
    with archive.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array
