"""The work itself: one run after the other, or several in processes of their own."""

from __future__ import annotations

import logging
import time
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from neurostorm_bids.derivatives import (
    RunStatus,
    name_outputs,
    write_resampled,
    write_run,
)
from neurostorm_bids.derivatives.atomic import explain_write_errors
from neurostorm_bids.errors import TemporaryError
from neurostorm_bids.grid.bring import bring_run
from neurostorm_bids.grid.read import Reading
from neurostorm_bids.participant.ahead import LookAhead, Step
from neurostorm_bids.participant.connectivity import write_connectivity_of
from neurostorm_bids.participant.extras import attribute_and_write
from neurostorm_bids.participant.memory import plan_memory
from neurostorm_bids.participant.models import load_models
from neurostorm_bids.predict import choose_device, predict_series
from neurostorm_bids.report.places import locate_seal
from neurostorm_bids.workers import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.participant.jobs import Job
    from neurostorm_bids.pretrained import Model

    Bring = Callable[[BoldRun, GridSpec], Series]

logger = logging.getLogger(__name__)


def run_jobs(jobs: Sequence[Job], options: ParticipantOptions) -> Generator[RunStatus, None, None]:
    """Work on the jobs, several at a time where the options allow it; statuses as jobs end."""
    total = len(jobs)
    jobs, n_workers, refused, looks_ahead = plan_memory(jobs, options)
    on_gpu = choose_device(options.device).type == "cuda"
    statuses = (
        _run_in_turn(jobs, options, looks_ahead=looks_ahead)
        if n_workers == 1 or on_gpu
        else _run_in_processes(jobs, options, n_workers=n_workers)
    )
    too_large = (
        RunStatus.of_failure(error, run=job.run.label, participant=job.run.participant)
        for job, error in refused
    )
    with (
        closing(statuses),
        logging_redirect_tqdm([logging.getLogger("neurostorm_bids")]),
        tqdm(chain(too_large, statuses), total=total, unit="run", disable=None) as bar,
    ):
        for status in bar:
            yield status
            if status.state == "failed" and options.stop_on_first_crash:
                logger.error("Stopping at the first failure, as asked for")
                return


def _run_in_turn(
    jobs: Sequence[Job], options: ParticipantOptions, *, looks_ahead: bool
) -> Generator[RunStatus, None, None]:
    """Work on the jobs in this process, one after the other; the next is read meanwhile."""
    steps: list[Step] = []
    if looks_ahead:
        models = load_models(options)
        steps = [Step(job.run, grid) for job in jobs for grid in _list_grids(job, models)]
    with LookAhead(steps, reading=choose_reading(options)) as ahead:
        for job in jobs:
            yield run_job(job, options, bring=ahead.bring, progress=True)


def choose_reading(options: ParticipantOptions) -> Reading:
    """Return how files are read while nothing else is done: by two threads, if there are CPUs."""
    return Reading(in_thread=options.threads_per_run > 1)


def run_job(
    job: Job, options: ParticipantOptions, *, bring: Bring | None = None, progress: bool = False
) -> RunStatus:
    """Bring one run to the grids of its models, predict, write. Whatever goes wrong is returned.

    Parameters
    ----------
    bring : brings a run to a grid; None does it when it is asked for.
    """
    if bring is None:
        bring = partial(bring_run, reading=choose_reading(options))
    started = time.monotonic()
    run = job.run
    warnings: tuple[str, ...] = ()
    error: Exception | None = None
    try:
        warnings = _predict_and_write(job, options, bring=bring, progress=progress)
    except MemoryError:
        error = TemporaryError(
            f"Not enough memory for {run.path.name}. Take a smaller --nprocs, or a larger machine."
        )
    except Exception as err:  # noqa: BLE001 - one bad run must not stop the others
        error = err
    seconds = time.monotonic() - started
    if error is not None:
        return RunStatus.of_failure(
            error, run=run.label, participant=run.participant, seconds=seconds
        )
    return RunStatus(
        run=run.label,
        participant=run.participant,
        state="done",
        seconds=seconds,
        warnings=warnings,
    )


def _run_in_processes(
    jobs: Sequence[Job], options: ParticipantOptions, *, n_workers: int
) -> Generator[RunStatus, None, None]:
    """Work on the jobs in processes of their own; each loads the models once."""
    with open_pool(n_workers) as pool:
        futures = {pool.submit(run_job, job, options): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    run = futures[future].run
                    error = TemporaryError(
                        f"The process that worked on {run.path.name} ended unexpectedly, most "
                        "likely for want of memory. Take a smaller --nprocs and run again."
                    )
                    yield RunStatus.of_failure(error, run=run.label, participant=run.participant)
        finally:
            pool.shutdown(cancel_futures=True)


def _list_grids(job: Job, models: Sequence[Model]) -> tuple[GridSpec, ...]:
    """Return the grids to which a run is brought, in the order of the work."""
    todo = sorted({*job.hashes, *job.attributions})
    return tuple(dict.fromkeys((*job.resampled, *(models[i].grid for i in todo))))


def _predict_and_write(
    job: Job, options: ParticipantOptions, *, bring: Bring, progress: bool
) -> tuple[str, ...]:
    """Do the work of one run; models that read the same grid share the series."""
    # matplotlib takes a moment, and a call that only lists what it would do draws nothing.
    from neurostorm_bids.report.figures import write_run_figures  # noqa: PLC0415

    models = load_models(options)
    names = name_outputs(models)
    run = job.run
    warnings: list[str] = list(run.warnings)
    todo = sorted({*job.hashes, *job.attributions})
    for grid in _list_grids(job, models):
        series = bring(run, grid)
        if grid in job.resampled:
            value = job.resampled[grid]
            write_resampled(options.output_dir, run, series, configuration_hash=value)
            warnings += series.warnings
        of_grid = [i for i, model in enumerate(models) if model.grid == grid]
        for i in todo:
            if i not in of_grid:
                continue
            prediction = predict_series(
                models[i],
                series,
                batch_size=job.batch_size or options.batch_size,
                progress=progress,
            )
            warnings += prediction.series.warnings
            if i in job.hashes:
                write_run(
                    options.output_dir,
                    run,
                    prediction,
                    model=models[i],
                    names=names[i],
                    configuration_hash=job.hashes[i],
                )
            if i in job.attributions:
                # Its figure is drawn later: without the seal, a call that is killed until then
                # leaves the run to the next one.
                seal = locate_seal(options.output_dir, run, names[i])
                with explain_write_errors(seal):
                    seal.unlink(missing_ok=True)
                warnings += attribute_and_write(
                    run,
                    prediction,
                    place=i,
                    models=models,
                    options=options,
                    batch_size=job.batch_size or options.batch_size,
                    configuration_hash=job.attributions[i],
                )
            warnings += write_run_figures(
                options.output_dir,
                run,
                prediction,
                model=models[i],
                names=names[i],
                with_series=i == of_grid[0],
            )
    if job.connectivity is not None:
        warnings += write_connectivity_of(run, options, configuration_hash=job.connectivity)
    return tuple(dict.fromkeys(warnings))
