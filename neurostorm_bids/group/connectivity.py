"""Functional connectivity that the participant level wrote, for the runs of embeddings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.derivatives.connectivity import NODE, STATISTIC, SUFFIX
from neurostorm_bids.errors import DataError, UserError
from neurostorm_bids.inputs.files import list_names
from neurostorm_bids.inputs.names import parse_name
from neurostorm_bids.inputs.tsv import read_tsv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.derivatives.results import Result

PLAIN_DESC = "preproc"
MAX_REGIONS = 2000
MAX_VALUES = 2**28
"""Correlations of all runs together: 1 GiB."""

HOW_TO = (
    "Run the participant level again with --connectivity auto (or the name of an atlas); what is "
    "finished is not computed anew."
)


class Connectome(NamedTuple):
    """The connectivity of runs between the regions of one parcellation.

    Attributes
    ----------
    regions : the label in the files' names.
    has_it : (n_runs,) which runs have it.
    correlations : Fisher's z, shape (n_runs_that_have_it, R * (R - 1) / 2); 0 for what a run lacks.
    """

    regions: str
    has_it: NDArray[np.bool_]
    correlations: NDArray[np.float32]


def read_connectomes(results: Sequence[Result]) -> tuple[list[Connectome], list[str]]:
    """Read the connectivity beside the results, one for each parcellation; and what is amiss.

    A table that cannot be read, or tells of other regions than most, is as if it were not there,
    and told.
    """
    found = [_find_tables(result) for result in results]
    connectomes, notes = [], []
    for regions in sorted({label for tables in found for label in tables}):
        rows: list[NDArray[np.float32] | None] = []
        for tables in found:
            try:
                row = _read(tables[regions]) if regions in tables else None
            except UserError as err:
                notes.append(str(err))
                row = None
            rows.append(row)
            if sum(len(one) for one in rows if one is not None) > MAX_VALUES:
                break
        if len(rows) < len(results):
            notes.append(
                f"The connectivity of {regions} was not compared: more than {MAX_VALUES:,} "
                "correlations in all. Choose an atlas with fewer regions."
            )
            continue
        lengths = Counter(len(row) for row in rows if row is not None)
        if not lengths:
            continue
        length = lengths.most_common(1)[0][0]
        if lengths.total() > lengths[length]:
            notes.append(
                f"The connectivity of {regions} is that of other regions in "
                f"{lengths.total() - lengths[length]} run(s), which were left out of it."
            )
        kept = [row if row is not None and len(row) == length else None for row in rows]
        has_it = np.array([row is not None for row in kept])
        values = np.stack([row for row in kept if row is not None])
        connectomes.append(Connectome(regions, has_it, values))
    return connectomes, notes


def _find_tables(result: Result) -> dict[str, Path]:
    """Find the tables of a run's connectivity by the label of their regions."""
    folder = result.table.parent
    own = dict(result.entities)
    own.setdefault("desc", PLAIN_DESC)
    tables = {}
    for name in list_names(folder):
        parts = parse_name(name) if name.endswith(f"_{SUFFIX}.tsv") else None
        if parts is None:
            continue
        entities = {"desc": PLAIN_DESC, **parts.entities}
        regions, statistic = entities.pop("seg", None), entities.pop("stat", None)
        if regions is not None and statistic == STATISTIC and entities == own:
            tables[regions] = folder / name
    return tables


def _read(path: Path) -> NDArray[np.float32]:
    """Read Fisher's z of the lower triangle of a matrix, row by row.

    Raises
    ------
    MissingFileError, ReadError, DataError
        If the table cannot be read, or is no matrix of correlations.
    """
    columns = dict(read_tsv(path).columns)
    nodes = columns.pop(NODE, [])
    if list(columns) != nodes or not 1 < len(nodes) <= MAX_REGIONS:
        raise DataError(
            f"{path.name} is no matrix with the same 2 to {MAX_REGIONS} regions in rows and "
            f"columns. {HOW_TO}"
        )
    rows, others = np.tril_indices(len(nodes), k=-1)
    try:
        matrix = np.array(list(columns.values()), dtype="U32")
        lower = np.where(matrix[rows, others] == "n/a", "0", matrix[rows, others]).astype(float)
    except ValueError as err:
        raise DataError(f"{path.name} holds something else than numbers: {err}. {HOW_TO}") from err
    if not (np.abs(lower) <= 1).all():
        raise DataError(f"{path.name} holds something else than correlations. {HOW_TO}")
    z: NDArray[np.float32] = np.arctanh(np.clip(lower, -0.9999999, 0.9999999)).astype(np.float32)
    return z
