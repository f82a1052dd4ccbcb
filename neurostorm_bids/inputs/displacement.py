"""How much a head moved from volume to volume, from a run's table of confounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.inputs.declarations import parse_numbers
from neurostorm_bids.inputs.tsv import read_tsv

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_NAMES = ("framewise_displacement", "FramewiseDisplacement")


def read_displacement(confounds: Path) -> NDArray[np.float64] | None:
    """Read framewise displacement, mm, one number a volume; None if the table has none.

    Raises
    ------
    MissingFileError, ReadError, DataError
        If the table cannot be read.
    """
    columns = read_tsv(confounds, columns=_NAMES).columns
    if not columns:
        return None
    return parse_numbers(next(iter(columns.values())))
