"""What is no brain activity and still predicts: motion, the length of a run, the site."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError
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
_AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_OLD_AXES = ("X", "Y", "Z", "RotX", "RotY", "RotZ")
_EXPANSIONS = ("_derivative1", "_power2", "_derivative1_power2")
_TISSUES = ("white_matter", "csf")
_OLD_TISSUES = ("WhiteMatter", "CSF")
_VOLUMES_PER_REGRESSOR = 3


class Regressors(NamedTuple):
    """Signals to be removed from a run.

    Attributes
    ----------
    signals : shape (n_volumes, K).
    names : of the K columns.
    """

    signals: Floats
    names: tuple[str, ...]


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


def read_regressors(confounds: Path, *, n_volumes: int) -> Regressors:
    """Read the nuisance regressors of a run from a table of fMRIPrep.

    Six motion parameters with their derivatives and squares, and the mean signals of white matter
    and cerebrospinal fluid: 26 columns, those of them that the table has. A run with less than
    three volumes for each gets the six motion parameters alone, or none.

    Missing values, as in the first row of derivatives, are 0.

    Raises
    ------
    DataError
        If the table has not as many rows as the run has volumes.
    """
    expanded = [axis + expansion for axis in _AXES for expansion in _EXPANSIONS]
    wanted = (*_AXES, *_OLD_AXES, *_TISSUES, *_OLD_TISSUES, *expanded)
    table = read_tsv(confounds, columns=wanted)
    if len(table.lines) != n_volumes:
        raise DataError(
            f"Expected a row for each of the run's {n_volumes} volumes in {confounds}, found "
            f"{len(table.lines)}. Take the table that belongs to the run."
        )
    names = [name for name in wanted if name in table.columns]
    if len(names) * _VOLUMES_PER_REGRESSOR > n_volumes:
        names = [name for name in names if name in {*_AXES, *_OLD_AXES}]
    if len(names) * _VOLUMES_PER_REGRESSOR > n_volumes:
        names = []
    columns = [np.nan_to_num(_parse(table.columns[name])) for name in names]
    return Regressors(np.array(columns).T.reshape(n_volumes, len(names)), tuple(names))


def _parse(cells: Sequence[str]) -> Floats:
    numbers = [parse_number(cell) for cell in cells]
    return np.array([np.nan if number is None else number for number in numbers])
