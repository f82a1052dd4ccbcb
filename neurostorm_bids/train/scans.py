"""Runs on a model's grid, in the store, with what their files' names say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.derivatives.locks import hold_lock
from neurostorm_bids.grid.prepare import prepare_runs
from neurostorm_bids.grid.store import StoreSettings
from neurostorm_bids.train.cohort import LOCK, describe_run, open_usable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.grid.quantise import NBits
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.grid.store import StoredRun
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.train.sampling import TrainingRun


class Scan(NamedTuple):
    """A run and its file in the store."""

    run: BoldRun
    stored: StoredRun

    @property
    def training_run(self) -> TrainingRun:
        """The run as a training sees it."""
        return describe_run(self.run, self.stored)


class Scans(NamedTuple):
    """Runs that can be used, and those that cannot, with the reason in words."""

    usable: tuple[Scan, ...]
    failed: tuple[tuple[str, str], ...]


def prepare_scans(
    runs: Sequence[BoldRun],
    spec: GridSpec,
    store: Path,
    *,
    n_workers: int,
    n_bits: NBits,
    clip_length: int,
) -> Scans:
    """Bring runs to a grid and store them; what is stored already is not made again.

    Raises
    ------
    DataError
        If no run could be prepared.
    OutputError
        If the store cannot be written.
    """
    store.mkdir(parents=True, exist_ok=True)
    with hold_lock(store / LOCK):
        preparation = prepare_runs(
            runs, spec, store, n_workers=n_workers, settings=StoreSettings(n_bits=n_bits)
        )
    usable, failed = open_usable(preparation, clip_length=clip_length)
    return Scans(
        usable=tuple(Scan(run, stored) for run, stored in usable),
        failed=tuple((one.run.path.name, str(one.error)) for one in failed),
    )
