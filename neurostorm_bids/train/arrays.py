"""Arrays that are computed once and kept in the work folder."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.errors import TemporaryError
from neurostorm_bids.grid.runfile import write_whole

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

    Where another process is writing the file, it is left to that one: the name says what is in it.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with suppress(TemporaryError), write_whole(path) as file:
        file.write(buffer.getvalue())
