"""Nuisance regressors of a run: motion and the mean signals of white matter and fluid."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.tsv import read_tsv

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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

    signals: NDArray[np.float64]
    names: tuple[str, ...]


def read_regressors(confounds: Path, *, n_volumes: int, n_kept: int | None = None) -> Regressors:
    """Read the nuisance regressors of a run from a table of fMRIPrep.

    Six motion parameters with their derivatives and squares, and the mean signals of white matter
    and cerebrospinal fluid: 26 columns, those of them that the table has. A run with less than
    three volumes for each gets the six motion parameters alone, or none.

    Missing values, as in the first row of derivatives, are 0.

    Parameters
    ----------
    n_volumes : in the run's file.
    n_kept : those of them that the regression is fitted on; None for all.

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
    n_kept = n_volumes if n_kept is None else n_kept
    names = [name for name in wanted if name in table.columns]
    if len(names) * _VOLUMES_PER_REGRESSOR > n_kept:
        names = [name for name in names if name in {*_AXES, *_OLD_AXES}]
    if len(names) * _VOLUMES_PER_REGRESSOR > n_kept:
        names = []
    columns = [[parse_number(cell) or 0.0 for cell in table.columns[name]] for name in names]
    signals = np.array(columns, dtype=np.float64).T.reshape(n_volumes, len(names))
    return Regressors(signals, tuple(names))
