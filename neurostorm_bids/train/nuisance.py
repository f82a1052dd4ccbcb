"""What is no brain activity and still predicts: motion, the length of a run, the site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.tsv import read_tsv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.inputs import BoldRun

    Floats = NDArray[np.float64]

_DISPLACEMENT = ("framewise_displacement", "FramewiseDisplacement")


def tabulate_nuisance(
    runs: Sequence[BoldRun], *, sites: Sequence[str | None] | None = None
) -> pd.DataFrame:
    """Return what is known of each run without looking at the brain.

    Parameters
    ----------
    sites : of each run; None for no such column.

    Returns
    -------
    A row per run: ``mean_fd`` (mean framewise displacement, mm; NaN without a table of confounds),
    ``n_volumes``, ``repetition_time_s`` and ``site``.
    """
    table = pd.DataFrame(
        {
            "mean_fd": [
                np.nan if run.confounds is None else read_mean_displacement(run.confounds)
                for run in runs
            ],
            "n_volumes": [float(open_volumes(run.path).n_volumes) for run in runs],
            "repetition_time_s": [run.repetition_time_s for run in runs],
        }
    )
    return table if sites is None else table.assign(site=pd.Series(sites, dtype=object))


def read_mean_displacement(confounds: Path) -> float:
    """Read the mean framewise displacement, mm, from a table of fMRIPrep; NaN if it has none.

    Raises
    ------
    DataError, MissingFileError, ReadError
        If the table cannot be read.
    """
    columns = read_tsv(confounds, columns=_DISPLACEMENT).columns
    values = [_parse(cells) for cells in columns.values()]
    known = values[0][np.isfinite(values[0])] if values else np.empty(0)
    return float(known.mean()) if len(known) else float("nan")


def _parse(cells: Sequence[str]) -> Floats:
    numbers = [parse_number(cell) for cell in cells]
    return np.array([np.nan if number is None else number for number in numbers])
