"""The people of a training: their runs in the store, and who is trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.prepare import prepare_runs
from neurostorm_bids.grid.store import StoredRun, StoreSettings
from neurostorm_bids.train.sampling import Split, TrainingRun, split_participants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.grid.prepare import FailedRun
    from neurostorm_bids.grid.quantise import NBits
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun

logger = logging.getLogger(__name__)

LOCK = ".prepare.lock"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The runs that a training may use, and on which side their participants are.

    Attributes
    ----------
    runs : in the store.
    split : participants to train on, and to evaluate on.
    failed : runs that could not be prepared, and why.
    """

    runs: tuple[TrainingRun, ...]
    split: Split
    failed: tuple[FailedRun, ...]

    @property
    def training(self) -> list[TrainingRun]:
        """Runs to train on."""
        return [run for run in self.runs if run.participant in self.split.training]

    @property
    def validation(self) -> list[TrainingRun]:
        """Runs to evaluate on."""
        return [run for run in self.runs if run.participant in self.split.validation]


def prepare_cohort(
    runs: Sequence[BoldRun],
    spec: GridSpec,
    store: Path,
    *,
    n_workers: int,
    n_bits: NBits,
    validation_share: float,
    seed: int,
) -> Cohort:
    """Bring runs to a grid, store them, and set participants aside for evaluation.

    Of several processes that call this with the same store, on one machine or on several, one
    prepares the runs and the others wait for it.

    Raises
    ------
    DataError
        If fewer than two participants have a run that could be prepared.
    OutputError
        If the store cannot be written.
    """
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(store / LOCK, mode=0o666):
        preparation = prepare_runs(
            runs, spec, store, n_workers=n_workers, settings=StoreSettings(n_bits=n_bits)
        )
    stored = tuple(
        TrainingRun(
            dataset=prepared.run.dataset.name,
            participant=prepared.run.participant,
            label=prepared.run.label,
            path=prepared.path,
            n_volumes=StoredRun.open(prepared.path).n_volumes,
        )
        for prepared in preparation.prepared
    )
    if not stored:
        first = preparation.failed[0].error if preparation.failed else "there are none"
        raise DataError(f"None of the {len(runs)} runs could be prepared. The first: {first}")
    split = split_participants(
        {run.participant for run in stored}, share=validation_share, seed=seed
    )
    logger.info(
        "%d run(s) in the store, %d failed; %d participant(s) to train on, %d to evaluate on",
        len(stored),
        len(preparation.failed),
        len(split.training),
        len(split.validation),
    )
    return Cohort(
        runs=stored,
        split=split,
        failed=tuple(preparation.failed),
    )
