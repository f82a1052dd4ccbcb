"""The file of a run's functional connectivity: a matrix of correlations between regions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_files
from neurostorm_bids.derivatives.names import derive_path, make_label
from neurostorm_bids.derivatives.run import hash_configuration, read_hash
from neurostorm_bids.derivatives.tables import Column, format_table
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.inputs.fingerprint import fingerprint_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.connectivity import Connectivity, Parcellation
    from neurostorm_bids.inputs import BoldRun

logger = logging.getLogger(__name__)

SUFFIX, STATISTIC, NODE = "relmat", "pearsoncorrelation", "node"


class _Pair(NamedTuple):
    table: Path
    sidecar: Path


def hash_connectivity(run: BoldRun, parcellation: Parcellation) -> str:
    """Return the hash of all that decides what the file of a run holds."""
    atlas = parcellation.atlas
    return hash_configuration(
        {
            "version": __version__,
            "parcellation": [parcellation.name, *parcellation.names],
            "atlas": None if atlas is None else fingerprint_file(atlas.path),
            "bold": fingerprint_file(run.path),
            "brain_mask": fingerprint_file(run.brain_mask) if run.brain_mask else None,
            "confounds": fingerprint_file(run.confounds) if run.confounds else None,
            "repetition_time_s": run.repetition_time_s,
            "space": run.space,
        }
    )


def has_connectivity(
    output_dir: Path, run: BoldRun, parcellation: Parcellation, *, configuration_hash: str
) -> bool:
    """Return whether the file of a run is there, made with this configuration."""
    pair = _name_pair(output_dir, run, parcellation)
    return pair.table.is_file() and read_hash(pair.sidecar) == configuration_hash


def write_connectivity(
    output_dir: Path,
    run: BoldRun,
    parcellation: Parcellation,
    found: Connectivity,
    *,
    configuration_hash: str,
    warnings: tuple[str, ...] = (),
) -> Path:
    """Write the connectivity of a run, and return the path of the table.

    Parameters
    ----------
    configuration_hash : from `hash_connectivity`.
    warnings : what a reader should know of it.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    columns = tabulate_connectivity(parcellation.names, found)
    sidecar: dict[str, Any] = {
        **{column.name: column.declare() for column in columns},
        "Description": "Functional connectivity: correlations between the mean signals of regions, "
        "of a covariance shrunk after Ledoit and Wolf.",
        "Sources": [
            f"bids:{run.dataset.name}:{path.relative_to(run.dataset.path).as_posix()}"
            for path in (run.path, run.brain_mask, run.confounds)
            if path is not None and path.is_relative_to(run.dataset.path)
        ],
        "SoftwareName": "neurostorm-bids",
        "SoftwareVersion": __version__,
        "ConfigurationHash": configuration_hash,
        "Parcellation": parcellation.name,
        "NumberOfRegions": len(parcellation.names),
        "NumberOfRegionsNotShown": found.n_missing,
        "PreparationSteps": list(found.steps),
        "Warnings": list(dict.fromkeys((*parcellation.notes, *warnings))),
    }
    pair = _name_pair(output_dir, run, parcellation)
    texts = {pair.table: format_table(columns), pair.sidecar: format_json(sidecar)}
    remove_leftovers(pair.sidecar.parent)
    write_files(texts, seals=[pair.sidecar])
    logger.info("Wrote %s", pair.table.relative_to(output_dir))
    return pair.table


def tabulate_connectivity(names: tuple[str, ...], found: Connectivity) -> list[Column]:
    """Return a row and a column for each region; missing are those that the run does not show."""
    plain = [" ".join(name.split()) for name in names]
    is_clear = len({NODE, *plain}) == len(plain) + 1 and all(plain)
    nodes = plain if is_clear else [f"region{place}" for place in range(1, len(plain) + 1)]
    matrix = _unfold(found)
    return [
        Column(name=NODE, cells=nodes, description="The region of the row."),
        *(
            Column(
                name=node,
                cells=[round(float(value), 6) for value in column],
                description=f"Correlation with the region {name}, -1 to 1; n/a where the run does "
                "not show a region.",
            )
            for node, name, column in zip(nodes, names, matrix.T, strict=True)
        ),
    ]


def _unfold(found: Connectivity) -> NDArray[np.float64]:
    """Return correlations (R, R) of Fisher's z in the lower triangle; NaN for what is missing."""
    n_regions = len(found.is_shown)
    matrix = np.eye(n_regions)
    rows, columns = np.tril_indices(n_regions, k=-1)
    matrix[rows, columns] = matrix[columns, rows] = np.tanh(found.values.astype(np.float64))
    matrix[~found.is_shown] = np.nan
    matrix[:, ~found.is_shown] = np.nan
    return matrix


def _name_pair(output_dir: Path, run: BoldRun, parcellation: Parcellation) -> _Pair:
    entities = {"seg": make_label(parcellation.name, fallback="regions"), "stat": STATISTIC}
    return _Pair(
        *(
            derive_path(output_dir, run, suffix=SUFFIX, extension=extension, entities=entities)
            for extension in (".tsv", ".json")
        )
    )
