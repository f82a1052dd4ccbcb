"""Arrays that are computed once and kept in the work folder."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]] | None:
    """Read what `write_arrays` wrote; None if it is not there or damaged, to be made again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except _DAMAGED:
        return None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays into one file, whole or not at all; its folder is made if need be.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
    except OSError as err:
        raise OutputError(
            f"Cannot write {path}: {err.strerror or err}. Free space there, or choose another "
            "work folder."
        ) from err
