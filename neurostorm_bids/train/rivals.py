"""What baselines read of the same examples: connectivity of their runs, and what is no brain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from neurostorm_bids import __version__
from neurostorm_bids.connectivity import find_parcellation, measure_connectivity
from neurostorm_bids.derivatives import hash_configuration
from neurostorm_bids.errors import UserError
from neurostorm_bids.inputs.fingerprint import fingerprint_file
from neurostorm_bids.train.arrays import read_arrays, write_arrays
from neurostorm_bids.train.nuisance import tabulate_nuisance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from neurostorm_bids.connectivity import Parcellation
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.scans import Scan

    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)


def connect_examples(
    examples: Examples, folder: Path, *, atlas: str | None = None
) -> tuple[Floats, tuple[str, ...]]:
    """Return functional connectivity (n, P), averaged over the runs of an example, and notes.

    What is in the folder is not computed again. Clips have no connectivity of their own: each gets
    that of its run. `atlas` is a name or path, None for that of `find_parcellation`.
    """
    spaces = {examples.scans[position].run.space for position in examples.used_scans}
    parcellation = find_parcellation(min(spaces), atlas)
    rows = np.full((len(examples.target.keys), parcellation.n_pairs), np.nan)
    notes = list(parcellation.notes)
    for position in tqdm(
        examples.used_scans, desc="Functional connectivity", unit="run", disable=None
    ):
        scan = examples.scans[position]
        values, note = _connect(scan, parcellation, folder)
        rows[examples.owners == position] = values
        notes += [note] if note else []
    return examples.pool(rows), (f"Functional connectivity of {parcellation.name}.", *notes)


def describe_nuisance(
    examples: Examples, *, sites: Mapping[str, str | None] | None
) -> pd.DataFrame:
    """Return mean displacement, volumes, repetition time and site of each example; n rows."""
    used = examples.used_scans
    table = tabulate_nuisance([examples.scans[position].run for position in used])
    rows = np.full((len(examples.target.keys), table.shape[1]), np.nan)
    for position, values in zip(used, table.to_numpy(dtype=np.float64), strict=True):
        rows[examples.owners == position] = values
    pooled = type(table)(examples.pool(rows), columns=table.columns)
    if sites is None:
        return pooled
    return pooled.assign(
        site=np.array([sites[label] for label in examples.participants], dtype=object)
    )


def _connect(
    scan: Scan, parcellation: Parcellation, folder: Path
) -> tuple[NDArray[np.float32], str]:
    """Return the connectivity of a run, and a note if its confounds could not be used."""
    run = scan.run
    key = hash_configuration(
        {
            "version": __version__,
            "parcellation": [parcellation.name, *parcellation.names],
            "confounds": run.confounds and fingerprint_file(run.confounds),
        }
    )
    path = folder / key[:16] / run.dataset.name / f"{scan.stored.path.stem}.npz"
    found = read_arrays(path, ("values", "note"))
    if found is not None:
        return found["values"], str(found["note"])
    given: dict[str, Any] = {
        "space": run.space,
        "repetition_time_s": run.repetition_time_s,
        "brain_mask": run.brain_mask,
    }
    note = ""
    try:
        values, *_ = measure_connectivity(run.path, parcellation, confounds=run.confounds, **given)
    except UserError as err:
        if run.confounds is None:
            raise
        note = f"The confounds of {run.label} were not removed for connectivity: {err}"
        logger.warning("%s", note)
        values, *_ = measure_connectivity(run.path, parcellation, confounds=None, **given)
    write_arrays(path, {"values": values, "note": np.array(note)})
    return values, note
