"""The people of a training: their runs in the store, and who is trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.locks import hold_lock
from neurostorm_bids.errors import DataError, UserError
from neurostorm_bids.grid.clips import find_clip_starts
from neurostorm_bids.grid.prepare import FailedRun, prepare_runs
from neurostorm_bids.grid.store import StoredRun, StoreSettings
from neurostorm_bids.train.sampling import Split, TrainingRun, split_participants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.grid.prepare import Preparation
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
    clip_length: int,
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
    with hold_lock(store / LOCK):
        preparation = prepare_runs(
            runs, spec, store, n_workers=n_workers, settings=StoreSettings(n_bits=n_bits)
        )
    usable, failed = open_usable(preparation, clip_length=clip_length)
    stored = tuple(describe_run(run, opened) for run, opened in usable)
    split = split_participants(
        {run.participant for run in stored}, share=validation_share, seed=seed
    )
    logger.info(
        "%d run(s) in the store, %d failed; %d participant(s) to train on, %d to evaluate on",
        len(stored),
        len(failed),
        len(split.training),
        len(split.validation),
    )
    return Cohort(
        runs=stored,
        split=split,
        failed=tuple(failed),
    )


def open_usable(
    preparation: Preparation, *, clip_length: int
) -> tuple[list[tuple[BoldRun, StoredRun]], list[FailedRun]]:
    """Open the runs that were stored; those of which censoring leaves no clip join the failed.

    Raises
    ------
    DataError
        If no run can be used.
    """
    usable: list[tuple[BoldRun, StoredRun]] = []
    failed = list(preparation.failed)
    for run, path in preparation.prepared:
        stored = StoredRun.open(path)
        try:
            if stored.censoring is not None:
                starts = find_clip_starts(stored.n_volumes, clip_length)
                counts = stored.censoring.count(starts, clip_length, n_volumes=stored.n_volumes)
                stored.censoring.check_any(counts, name=run.path.name)
        except UserError as err:
            logger.warning("%s", err)
            failed.append(FailedRun(run, err))
        else:
            usable.append((run, stored))
    if not usable:
        first = failed[0].error if failed else "there are none"
        raise DataError(f"None of the {len(failed)} runs could be prepared. The first: {first}")
    return usable, failed


def describe_run(run: BoldRun, stored: StoredRun) -> TrainingRun:
    """Return a stored run as a training sees it."""
    return TrainingRun(
        dataset=run.dataset.name,
        participant=run.participant,
        label=run.label,
        path=stored.path,
        n_volumes=stored.n_volumes,
        censoring=stored.censoring,
        fingerprint=stored.fingerprint,
    )
