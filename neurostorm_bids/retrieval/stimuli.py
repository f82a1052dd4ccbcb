"""Embeddings of the images that were shown, from a table or an array of somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

MAX_VALUES = 2**28
"""Numbers in one array of embeddings: 1 GiB in float32."""


def read_image_embeddings(path: Path) -> pd.DataFrame:
    """Read one embedding for each image.

    Parameters
    ----------
    path : a table, ``.tsv``, whose column stim_file names the images as events.tsv does and whose
        other columns are numbers; or an array, ``.npy``, of shape (n_images, n_features), beside
        which a table of the same name, ``.tsv``, names the image of every row.

    Returns
    -------
    DataFrame of float64, shape (n_images, n_features), indexed by stim_file.

    Raises
    ------
    UsageError
        If the file is neither.
    MissingFileError, ReadError
        If a file is not there, or cannot be read.
    DataError
        If names or numbers are missing, not finite, twice or too many. Nothing in an array is
        ever executed.
    """
    if path.suffix not in {".tsv", ".npy"}:
        raise UsageError(f"Image embeddings are a .tsv table or a .npy array, not {path.name!r}.")
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
    if not np.isfinite(vectors).all():
        raise DataError(f"Not all numbers in {path} are finite. Leave out images without any.")
    return pd.DataFrame(vectors, index=pd.Index(names, name=STIM_FILE))


def _check_names(names: list[str], path: Path) -> None:
    if not names:
        raise DataError(
            f"Expected a column {STIM_FILE} that names the images, found none in {path}."
        )
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
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
    except (ValueError, OSError, EOFError) as err:
        raise DataError(f"{path} is not a usable .npy array of numbers: {err}.") from err
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(array) != n_rows:  # noqa: PLR2004
        raise DataError(
            f"Expected numbers of shape ({n_rows}, n_features) in {path}, one row for each row of "
            f"the table beside it; found {array.dtype} of shape {array.shape}."
        )
    if array.size > MAX_VALUES or array.shape[1] == 0:
        raise DataError(
            f"Expected 1 to {MAX_VALUES:,} numbers in {path}, found {array.size:,}. "
            "Keep only the images that were shown."
        )
    return np.array(array, dtype=np.float64)
