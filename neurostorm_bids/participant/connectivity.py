"""The functional connectivity of runs, where it was asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from neurostorm_bids.connectivity import connect_run, find_parcellation
from neurostorm_bids.derivatives.connectivity import (
    has_connectivity,
    hash_connectivity,
    write_connectivity,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neurostorm_bids.connectivity import Parcellation
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.options import ParticipantOptions


def find_regions(runs: Iterable[BoldRun], options: ParticipantOptions) -> None:
    """Find the regions for all spaces of the runs, before anything is computed.

    Raises
    ------
    UsageError, MissingFileError, DataError
        If the regions that were asked for cannot be had.
    """
    if options.connectivity is not None:
        for space in sorted({run.space for run in runs}):
            _load_parcellation(options.connectivity, space)


def plan_connectivity(run: BoldRun, options: ParticipantOptions) -> str | None:
    """Return the configuration hash of a run's connectivity; None if there is nothing to do."""
    if options.connectivity is None:
        return None
    parcellation = _load_parcellation(options.connectivity, run.space)
    found = hash_connectivity(run, parcellation)
    is_there = has_connectivity(options.output_dir, run, parcellation, configuration_hash=found)
    return None if is_there and not options.overwrite else found


def write_connectivity_of(
    run: BoldRun, options: ParticipantOptions, *, configuration_hash: str
) -> tuple[str, ...]:
    """Measure and write the connectivity of a run, and return warnings."""
    if options.connectivity is None:
        return ()
    parcellation = _load_parcellation(options.connectivity, run.space)
    connectivity, note = connect_run(run, parcellation)
    warnings = (note,) if note else ()
    write_connectivity(
        options.output_dir,
        run,
        parcellation,
        connectivity,
        configuration_hash=configuration_hash,
        warnings=warnings,
    )
    return warnings


def forget_parcellations() -> None:
    """Give up the regions that were found."""
    _load_parcellation.cache_clear()


@lru_cache(maxsize=8)
def _load_parcellation(name: str, space: str) -> Parcellation:
    """Find the regions once per process and space."""
    return find_parcellation(space, name, option="--connectivity")
