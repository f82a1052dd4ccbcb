"""Runs on a model's grid, in the store, with what their files' names say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.prepare import prepare_runs
from neurostorm_bids.grid.store import StoredRun, StoreSettings
from neurostorm_bids.train.cohort import LOCK
from neurostorm_bids.train.sampling import TrainingRun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.grid.quantise import NBits
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun


class Scan(NamedTuple):
    """A run and its file in the store."""

    run: BoldRun
    stored: StoredRun

    @property
    def training_run(self) -> TrainingRun:
        """The run as a training sees it."""
        return TrainingRun(
            dataset=self.run.dataset.name,
            participant=self.run.participant,
            label=self.run.label,
            path=self.stored.path,
            n_volumes=self.stored.n_volumes,
        )


class Scans(NamedTuple):
    """Runs that can be used, and those that cannot, with the reason in words."""

    usable: tuple[Scan, ...]
    failed: tuple[tuple[str, str], ...]


def prepare_scans(
    runs: Sequence[BoldRun], spec: GridSpec, store: Path, *, n_workers: int, n_bits: NBits
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
    with FileLock(store / LOCK, mode=0o666):
        preparation = prepare_runs(
            runs, spec, store, n_workers=n_workers, settings=StoreSettings(n_bits=n_bits)
        )
    if not preparation.prepared:
        first = preparation.failed[0].error if preparation.failed else "there are none"
        raise DataError(f"None of the {len(runs)} runs could be prepared. The first: {first}")
    return Scans(
        usable=tuple(Scan(one.run, StoredRun.open(one.path)) for one in preparation.prepared),
        failed=tuple((one.run.path.name, str(one.error)) for one in preparation.failed),
    )
