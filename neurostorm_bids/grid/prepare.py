"""Many runs into a store: in parallel, with bounded memory, and on from where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tqdm import tqdm

from neurostorm_bids.errors import OutputError, TemporaryError, UserError
from neurostorm_bids.grid.bring import bring_run, describe_choices
from neurostorm_bids.grid.store import FORMAT_VERSION, StoredRun, StoreSettings, write_run
from neurostorm_bids.inputs.fingerprint import fingerprint_file
from neurostorm_bids.workers import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs.records import BoldRun

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CALLS_AHEAD = 2
"""Calls handed out per worker: one at work, one waiting."""


class PreparedRun(NamedTuple):
    """A run and its file in the store."""

    run: BoldRun
    path: Path


class FailedRun(NamedTuple):
    """A run that could not be prepared, and why."""

    run: BoldRun
    error: BaseException


class Preparation(NamedTuple):
    """What came of preparing runs; both lists in the order of the runs."""

    prepared: list[PreparedRun]
    failed: list[FailedRun]


class Outcome(NamedTuple):
    """How a call ended: the number of its argument, and what it returned or raised."""

    number: int
    value: Any
    error: BaseException | None


def prepare_runs(
    runs: Sequence[BoldRun],
    spec: GridSpec,
    folder: Path,
    *,
    n_workers: int = 1,
    settings: StoreSettings | None = None,
) -> Preparation:
    """Bring runs to a grid and store them; what is in the store already stays as it is.

    Each worker is a process with one run in memory at a time: 4 bytes per source volume and brain
    voxel, at 2 mm 0.3 GB for 300 volumes and 1.1 GB for 1200. A run that fails is reported and the
    others go on, also where the system kills its worker. The same call after an interruption does
    what is left, and makes damaged files again.

    Parameters
    ----------
    runs : from discovery.
    spec : the model's grid.
    folder : the store; several grids and datasets may share it.
    n_workers : processes at work at the same time.
    settings : how to store; the defaults if None.

    Raises
    ------
    OutputError
        If the store cannot be written: no other run would fare better.
    """
    function = partial(_prepare, spec=spec, folder=folder, settings=settings or StoreSettings())
    outcomes: list[Outcome] = []
    with (
        tqdm(total=len(runs), desc="Preparing runs", unit="run", disable=None) as bar,
        closing(call_each(function, runs, n_workers=n_workers)) as ended,
    ):
        for outcome in ended:
            bar.update()
            if isinstance(outcome.error, OutputError):
                raise outcome.error
            run = runs[outcome.number]
            if outcome.error is None:
                logger.info("In the store: %s", outcome.value)
            else:
                logger.warning("Could not prepare %s: %s", run.path, outcome.error)
            outcomes.append(outcome)
    outcomes.sort(key=lambda outcome: outcome.number)
    return Preparation(
        [PreparedRun(runs[o.number], o.value) for o in outcomes if o.error is None],
        [FailedRun(runs[o.number], o.error) for o in outcomes if o.error is not None],
    )


def find_stored_path(
    run: BoldRun, spec: GridSpec, folder: Path, settings: StoreSettings | None = None
) -> Path:
    """Name the file of a run in a store.

    Its key is a hash of the contents of the run and its mask, of repetition time, space, grid,
    cleaning, settings and format version: another source or configuration has another file.

    Raises
    ------
    ReadError
        If the run or its mask cannot be read.
    """
    return _locate(run, _describe_source(run, spec), spec, folder, settings or StoreSettings())


def call_each(
    function: Callable[[T], object], arguments: Sequence[T], *, n_workers: int
) -> Generator[Outcome, None, None]:
    """Call a function in other processes, and tell how each call ended, as they end.

    When a process dies, all calls at work fail with it; each of these is tried once more, alone.

    Parameters
    ----------
    function, arguments : can be pickled.
    n_workers : processes at the same time.
    """
    waiting = deque(range(len(arguments)))
    while waiting:
        running: dict[Future[object], int] = {}
        pool = open_pool(n_workers)
        try:
            while waiting or running:
                while waiting and len(running) < _CALLS_AHEAD * n_workers:
                    running[pool.submit(function, arguments[waiting[0]])] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = _read_outcome(running[future], future)
                    if isinstance(outcome.error, BrokenProcessPool):
                        raise outcome.error
                    del running[future]
                    yield outcome
        except BrokenProcessPool:
            logger.warning("A worker was killed; %d runs are tried again, alone", len(running))
        finally:
            pool.shutdown(cancel_futures=True)
        for number in running.values():
            yield _call_alone(function, number, arguments[number])


def _call_alone(function: Callable[[T], object], number: int, argument: T) -> Outcome:
    with open_pool(1) as pool:
        outcome = _read_outcome(number, pool.submit(function, argument))
    if not isinstance(outcome.error, BrokenProcessPool):
        return outcome
    error = TemporaryError(
        "The process that prepared it was killed, most likely for want of memory. Take fewer "
        "workers or a machine with more memory, and run again."
    )
    return outcome._replace(error=error)


def _read_outcome(number: int, future: Future[object]) -> Outcome:
    error = future.exception()
    return Outcome(number, None if error else future.result(), error)


def _prepare(run: BoldRun, *, spec: GridSpec, folder: Path, settings: StoreSettings) -> Path:
    source = _describe_source(run, spec)
    path = _locate(run, source, spec, folder, settings)
    if not _is_stored(path):
        write_run(bring_run(run, spec), path, settings=settings, source=source)
    return path


def _is_stored(path: Path) -> bool:
    try:
        StoredRun.open(path)
    except UserError:  # not there, or damaged: to be made again
        return False
    return True


def _describe_source(run: BoldRun, spec: GridSpec) -> dict[str, Any]:
    files = {"bold": run.path, "brain_mask": run.brain_mask}
    return {
        **{
            kind: path and {"name": path.name, "fingerprint": fingerprint_file(path)}
            for kind, path in files.items()
        },
        "repetition_time_s": run.repetition_time_s,
        "space": run.space,
        **describe_choices(run, spec),
    }


def _locate(
    run: BoldRun, source: dict[str, Any], spec: GridSpec, folder: Path, settings: StoreSettings
) -> Path:
    configuration = [FORMAT_VERSION, source, spec.to_dict(), asdict(settings)]
    key = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
    name = f"{run.label}_{key[:16]}.safetensors"
    return folder / run.dataset.name / f"sub-{run.participant}" / name
