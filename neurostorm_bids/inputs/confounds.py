"""A run's table of confounds: what to regress out, and which volumes not to trust."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.declarations import parse_numbers
from neurostorm_bids.inputs.files import MAX_JSON_BYTES, check_readable
from neurostorm_bids.inputs.old_confounds import modernise_columns
from neurostorm_bids.inputs.tsv import read_tsv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from neurostorm_bids.inputs.cleaning import Cleaning
    from neurostorm_bids.inputs.records import BoldRun
    from neurostorm_bids.inputs.tsv import Table

DISPLACEMENT = "framewise_displacement"
_UNSTEADY = "non_steady_state_outlier"
_STEM = "sub-0_task-any"

# What a damaged table or its JSON, of any shape and depth, makes nilearn raise.
_UNUSABLE = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)

# The series that ICA-AROMA cleaned itself is not what is read: its components are regressed out.
_AROMA = {
    "strategy": ["high_pass", "wm_csf", "ica_aroma"],
    "wm_csf": "basic",
    "ica_aroma": "basic",
}


class Nuisance(NamedTuple):
    """What is to be taken out of a run of T volumes.

    Attributes
    ----------
    n_dummy : volumes to drop at the beginning.
    regressors : float64, shape (T, K), to be regressed out; None for none.
    names : of the K regressors.
    is_censored : bool, shape (T,), volumes that moved too much; None where nobody asked.
    is_fitted : bool, shape (T,), volumes that the regression is fitted on.
    notes : what was mended or taken for granted.
    """

    n_dummy: int
    regressors: NDArray[np.float64] | None
    names: tuple[str, ...]
    is_censored: NDArray[np.bool_] | None
    is_fitted: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def read_nuisance(run: BoldRun, *, n_volumes: int) -> Nuisance:
    """Read what the run's `Cleaning` asks for.

    Parameters
    ----------
    n_volumes : in the run's file, T.

    Raises
    ------
    MissingFileError, ReadError
        If the table cannot be read.
    DataError
        If it has not as many rows as the run has volumes, lacks the columns that are needed, or
        leaves nothing of the run.
    """
    cleaning = run.cleaning
    no_names: tuple[str, ...] = ()
    everything = np.ones(n_volumes, dtype=np.bool_)
    if run.confounds is None or not cleaning.needs_confounds:
        n_dummy = 0 if cleaning.dummy_scans == "auto" else cleaning.dummy_scans
        _check_dummies(n_dummy, n_volumes, run.path)
        return Nuisance(n_dummy, None, (), None, everything)
    table = read_tsv(run.confounds, dataset_root=run.dataset.path)
    if len(table.lines) != n_volumes:
        raise DataError(
            f"Expected a row for each of the {n_volumes} volumes of {run.path.name} in its "
            f"confounds, found {len(table.lines)} rows in {run.confounds}. Take the table that "
            "belongs to the run, or preprocess it again."
        )
    columns = modernise_columns(table.columns)
    is_unsteady = _find_unsteady(columns, n_volumes)
    n_leading = n_volumes if is_unsteady.all() else int(is_unsteady.argmin())
    n_dummy = n_leading if cleaning.dummy_scans == "auto" else cleaning.dummy_scans
    _check_dummies(n_dummy, n_volumes, run.path)
    is_censored = np.zeros(n_volumes, dtype=np.bool_)
    notes: list[str] = []
    if cleaning.fd_threshold_mm is not None:
        displacement, missing = _read_displacement(columns, table)
        is_censored |= displacement > cleaning.fd_threshold_mm
        notes += missing
    if is_unsteady[n_dummy:].any():
        notes.append(
            f"{is_unsteady[n_dummy:].sum()} volumes that the confounds mark as not in steady state "
            "were kept; --dummy-scans auto drops those at the beginning."
        )
    regressors, names = None, no_names
    if cleaning.denoise is not None:
        frame, is_kept = _load(cleaning, columns, table.path, n_volumes=n_volumes)
        is_censored |= ~is_kept & ~is_unsteady
        if frame is not None:
            regressors, names, mended = _to_matrix(frame)
            notes += mended
    is_fitted = everything & ~is_censored & ~is_unsteady
    is_fitted[:n_dummy] = False
    if regressors is not None:
        _check_freedom(regressors.shape[1], int(is_fitted.sum()), run.path)
    asked = cleaning.fd_threshold_mm is not None or is_censored.any()
    return Nuisance(
        n_dummy, regressors, names, is_censored if asked else None, is_fitted, tuple(notes)
    )


def _check_dummies(n_dummy: int, n_volumes: int, path: Path) -> None:
    if n_dummy > n_volumes - 2:
        raise DataError(
            f"{n_dummy} volumes were to be dropped at the beginning of {path.name}, which has "
            f"{n_volumes}; expected two to be left. Choose --dummy-scans anew."
        )


def _check_freedom(n_regressors: int, n_fitted: int, path: Path) -> None:
    if n_regressors + 1 >= n_fitted:
        raise DataError(
            f"{n_regressors} confounds cannot be regressed out of {path.name}: only {n_fitted} of "
            "its volumes are neither dropped nor censored, which leaves no degree of freedom. "
            "Choose a smaller --denoise, or a higher --fd-threshold."
        )


def _find_unsteady(columns: Mapping[str, Sequence[str]], n_volumes: int) -> NDArray[np.bool_]:
    is_unsteady = np.zeros(n_volumes, dtype=np.bool_)
    for name, cells in columns.items():
        if name.startswith(_UNSTEADY):
            is_unsteady |= np.nan_to_num(parse_numbers(cells)) > 0
    return is_unsteady


def _read_displacement(
    columns: Mapping[str, Sequence[str]], table: Table
) -> tuple[NDArray[np.float64], list[str]]:
    """Read the framewise displacement, mm; 0 where it is missing, as before the first movement.

    Missing values after the first number are told.
    """
    if DISPLACEMENT not in columns:
        raise DataError(
            f"--fd-threshold needs the column {DISPLACEMENT}, which {table.path} does not have. "
            "Leave the option out, or preprocess the run again."
        )
    displacement = parse_numbers(columns[DISPLACEMENT])
    is_known = np.isfinite(displacement)
    if not is_known.any():
        raise DataError(
            f"--fd-threshold needs numbers in the column {DISPLACEMENT} of {table.path}; found "
            "none. Leave the option out, or preprocess the run again."
        )
    n_missing = int((~is_known[is_known.argmax() :]).sum())
    notes = []
    if n_missing:
        notes.append(
            f"{n_missing} volumes have no framewise displacement in the confounds and were not "
            "censored for it."
        )
    return np.where(is_known, displacement, 0.0), notes


def _load(
    cleaning: Cleaning, columns: Mapping[str, Sequence[str]], path: Path, *, n_volumes: int
) -> tuple[pd.DataFrame | None, NDArray[np.bool_]]:
    """Let nilearn choose regressors: a column each, if any, and which volumes it keeps.

    nilearn finds the table by the name of its image, so that both are given names of today.
    """
    from nilearn.interfaces import fmriprep  # noqa: PLC0415 - seconds, and rarely needed
    from nilearn.interfaces.fmriprep.load_confounds_utils import (  # noqa: PLC0415
        MissingConfoundError,
    )

    arguments: dict[str, Any] = cleaning.arguments
    if cleaning.denoise == "ica_aroma":
        arguments = _AROMA
    with tempfile.TemporaryDirectory() as scratch:
        stem = Path(scratch) / _STEM
        image = stem.with_name(f"{_STEM}_desc-preproc_bold.nii.gz")
        image.touch()
        confounds = stem.with_name(f"{_STEM}_desc-confounds_timeseries.tsv")
        rows = zip(*columns.values(), strict=True)
        lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
        confounds.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sidecar = path.with_suffix(".json")
        if sidecar.exists() and check_readable(sidecar) <= MAX_JSON_BYTES:
            shutil.copyfile(sidecar, confounds.with_suffix(".json"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if arguments:
                    frame, kept = fmriprep.load_confounds(str(image), **arguments)
                else:
                    frame, kept = fmriprep.load_confounds_strategy(
                        str(image), denoise_strategy=cleaning.denoise
                    )
        except (MissingConfoundError, *_UNUSABLE) as err:
            reason = " ".join(str(err).replace(scratch, "").split())[:300]
            raise DataError(
                f"--denoise {cleaning.strategy} cannot be done with the confounds {path}: "
                f"{reason}. Choose another strategy, or preprocess the run again."
            ) from err
    is_kept = np.ones(n_volumes, dtype=np.bool_)
    if kept is not None:
        is_kept[:] = False
        is_kept[kept] = True
    return frame, is_kept


def _to_matrix(
    frame: pd.DataFrame,
) -> tuple[NDArray[np.float64], tuple[str, ...], list[str]]:
    """Turn nilearn's columns into finite numbers: (T, K), names, and what was mended."""
    matrix = frame.to_numpy(dtype=np.float64)
    is_finite = np.isfinite(matrix)
    names = tuple(map(str, frame.columns))
    holes = [name for name, whole in zip(names, is_finite.all(axis=0), strict=True) if not whole]
    if not holes:
        return matrix, names, []
    counts = np.maximum(is_finite.sum(axis=0), 1)
    means = np.where(is_finite, matrix, 0).sum(axis=0) / counts
    note = (
        f"Missing values in the confounds {', '.join(holes[:5])}"
        f"{' and others' if holes[5:] else ''} were taken for the mean."
    )
    return np.where(is_finite, matrix, means), names, [note]
