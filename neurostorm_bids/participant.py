"""The participant level: every chosen run through every model, into BIDS derivatives."""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import (
    RunStatus,
    check_distinct,
    check_output_dir,
    hash_configuration,
    is_finished,
    make_run_uuid,
    name_outputs,
    write_dataset_files,
    write_run,
    write_status,
)
from neurostorm_bids.errors import TemporaryError, UsageError, UserError
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.inputs import find_bold_runs, find_datasets
from neurostorm_bids.inputs.fingerprint import fingerprint_file
from neurostorm_bids.predict import choose_device, predict_series
from neurostorm_bids.pretrained import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from neurostorm_bids.inputs import BoldRun, Discovery
    from neurostorm_bids.options import ParticipantOptions, TargetScale
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)

FALLBACK_SPACES = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")


class Job(NamedTuple):
    """A run, and for each model that is still to do its configuration hash, by position."""

    run: BoldRun
    hashes: dict[int, str]


def discover(options: ParticipantOptions) -> Discovery:
    """Find the runs that the options choose; the models' spaces are preferred, in order."""
    spaces = [model.grid.space for model in _load_models(options)] if options.models else []
    datasets = find_datasets(options.bids_dir, dict(options.derivatives))
    return find_bold_runs(
        datasets,
        options.selection,
        preferred_spaces=tuple(dict.fromkeys((*spaces, *FALLBACK_SPACES))),
    )


def run_participant_level(options: ParticipantOptions) -> int:
    """Run every chosen run through every model, write the results, report, return the exit status.

    Returns
    -------
    int
        0 when all is done or was done before, 1 when some runs failed; when every run failed for
        the same kind of reason, the exit status of that reason.
    """
    if not options.models:
        raise UsageError(
            "No model is given. Give --model with a model folder, a published .ckpt file, "
            "hf://owner/repo/file@revision, or a name that `neurostorm-model show` lists."
        )
    discovery = discover(options)
    datasets = list({run.dataset.path: run.dataset for run in discovery.runs}.values())
    check_output_dir(options.output_dir, bids_dir=options.bids_dir, datasets=datasets)
    check_distinct(options.output_dir, discovery.runs)
    jobs, statuses = plan_jobs(discovery, options)
    if jobs:
        write_dataset_files(
            options.output_dir,
            datasets=datasets,
            participants=discovery.participants,
            models=_load_models(options),
        )
        try:
            for status in run_jobs(jobs, options):
                statuses.append(status)
                _log_status(status)
        finally:
            write_status(
                options.output_dir,
                statuses,
                run_uuid=make_run_uuid(),
                options=asdict(options),
                bids_dir=options.bids_dir,
                datasets=datasets,
                debug=options.debug,
            )
    return summarise(statuses, options)


def plan_jobs(
    discovery: Discovery, options: ParticipantOptions
) -> tuple[list[Job], list[RunStatus]]:
    """Split the runs into those with something to do and those that are finished or unusable."""
    models = _load_models(options)
    names = name_outputs(models)
    jobs: list[Job] = []
    settled = [
        RunStatus.of_failure(item.error, run=item.path.name, participant=item.participant)
        for item in discovery.unusable
    ]
    for run in discovery.runs:
        try:
            hashes = {i: _hash(run, model) for i, model in enumerate(models)}
        except UserError as err:
            settled.append(RunStatus.of_failure(err, run=run.label, participant=run.participant))
            continue
        todo = {
            i: value
            for i, value in hashes.items()
            if options.overwrite
            or not is_finished(options.output_dir, run, names=names[i], configuration_hash=value)
        }
        if todo:
            jobs.append(Job(run, todo))
        else:
            settled.append(RunStatus(run=run.label, participant=run.participant, state="skipped"))
    return jobs, settled


def run_jobs(jobs: Sequence[Job], options: ParticipantOptions) -> Iterator[RunStatus]:
    """Work on the jobs, several at a time where the options allow it; statuses as jobs end."""
    n_workers = min(options.runs_at_once, len(jobs))
    on_gpu = choose_device(options.device).type == "cuda"
    statuses = (
        (run_job(job, options, progress=True) for job in jobs)
        if n_workers == 1 or on_gpu
        else _run_in_processes(jobs, options, n_workers=n_workers)
    )
    with (
        logging_redirect_tqdm([logging.getLogger("neurostorm_bids")]),
        tqdm(statuses, total=len(jobs), unit="run", disable=None) as bar,
    ):
        for status in bar:
            yield status
            if status.state == "failed" and options.stop_on_first_crash:
                logger.error("Stopping at the first failure, as asked for")
                return


def run_job(job: Job, options: ParticipantOptions, *, progress: bool = False) -> RunStatus:
    """Bring one run to the grids of its models, predict, write. Whatever goes wrong is returned."""
    started = time.monotonic()
    run = job.run
    warnings: tuple[str, ...] = ()
    error: Exception | None = None
    try:
        warnings = _predict_and_write(job, options, progress=progress)
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


def summarise(statuses: Sequence[RunStatus], options: ParticipantOptions) -> int:
    """Log what became of the runs, list the failed ones, and return the exit status."""
    count = Counter(status.state for status in statuses)
    failed = [status for status in statuses if status.state == "failed"]
    if count["done"] == 0 and not failed:
        logger.info(
            "Nothing to do: all %d run(s) are finished in %s with this configuration",
            count["skipped"],
            options.output_dir,
        )
    else:
        logger.info(
            "%d run(s) done, %d finished before, %d failed; results in %s",
            count["done"],
            count["skipped"],
            count["failed"],
            options.output_dir,
        )
    for status in failed:
        logger.error("Failed: %s: %s", status.run, status.message)
    reasons = {status.exit_status for status in failed}
    if len(failed) == len(statuses) and len(reasons) == 1:
        return reasons.pop()
    return 1 if failed else 0


def _run_in_processes(
    jobs: Sequence[Job], options: ParticipantOptions, *, n_workers: int
) -> Iterator[RunStatus]:
    """Work on the jobs in processes of their own; each loads the models once."""
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
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


def _log_status(status: RunStatus) -> None:
    if status.state == "failed":
        logger.error("%s failed after %.1f s: %s", status.run, status.seconds, status.message)
        return
    logger.info("%s done in %.1f s", status.run, status.seconds)
    for warning in status.warnings:
        logger.warning("%s: %s", status.run, warning)


def _predict_and_write(job: Job, options: ParticipantOptions, *, progress: bool) -> tuple[str, ...]:
    """Do the work of one run; models that read the same grid share the series."""
    models = _load_models(options)
    names = name_outputs(models)
    run = job.run
    warnings: list[str] = list(run.warnings)
    grids = dict.fromkeys(models[i].grid for i in job.hashes)
    for grid in grids:
        series = grid_run(
            run.path,
            grid,
            repetition_time_s=run.repetition_time_s,
            brain_mask=run.brain_mask,
            source_space=run.space,
        )
        for i, configuration_hash in job.hashes.items():
            if models[i].grid != grid:
                continue
            prediction = predict_series(
                models[i], series, batch_size=options.batch_size, progress=progress
            )
            warnings += prediction.series.warnings
            write_run(
                options.output_dir,
                run,
                prediction,
                model=models[i],
                names=names[i],
                configuration_hash=configuration_hash,
            )
    return tuple(dict.fromkeys(warnings))


@lru_cache(maxsize=1)
def _load_models(options: ParticipantOptions) -> tuple[Model, ...]:
    """Load the models onto the device, once per process."""
    device = choose_device(options.device)
    torch.set_num_threads(options.threads_per_run)
    models = tuple(load_model(name) for name in options.models)
    _scale_targets(models, {scale.name: scale for scale in options.target_scales})
    for model in models:
        model.backbone.to(device)
        if model.head is not None:
            model.head.to(device)
    return models


def _scale_targets(models: Sequence[Model], scales: Mapping[str, TargetScale]) -> None:
    """Give regression targets the mean and SD from the command line; tell which have none."""
    targets = {
        m.target.name: m.target for m in models if m.target and m.target.kind == "regression"
    }
    if unknown := sorted(scales.keys() - targets.keys()):
        raise UsageError(
            f"--target-scale names {', '.join(unknown)}, a value that no model given predicts. "
            f"The models predict these values: {', '.join(sorted(targets)) or 'none'}."
        )
    for model in models:
        if model.target is None or model.target.kind != "regression":
            continue
        if scale := scales.get(model.target.name):
            scaled = replace(
                model.target, mean=scale.mean, sd=scale.sd, unit=scale.unit or model.target.unit
            )
            if model.calibration is not None and scaled != model.target:
                model.calibration = model.calibration.keep_novelty()
                logger.warning(
                    "%s is not calibrated for the scale that --target-scale gives: no intervals",
                    model.provenance.name,
                )
            model.target = scaled
        elif model.target.mean is None:
            logger.warning(
                "%s does not hold the mean and SD of %s: its predictions are z-scores. Give them "
                "with --target-scale %s=MEAN,SD,UNIT",
                model.provenance.name,
                model.target.name,
                model.target.name,
            )


def _hash(run: BoldRun, model: Model) -> str:
    """Return the hash of all that decides what the files of a run and a model hold."""
    configuration = {
        "version": __version__,
        "model": model.provenance.sha256,
        "config": model.config.to_dict(),
        "head": model.head_config.to_dict() if model.head_config else None,
        "target": model.target.to_dict() if model.target else None,
        "grid": model.grid.to_dict(),
        "bold": fingerprint_file(run.path),
        "brain_mask": fingerprint_file(run.brain_mask) if run.brain_mask else None,
        "repetition_time_s": run.repetition_time_s,
        "space": run.space,
    }
    # The arrays of a novelty lie beside the weights, so that the model's hash is also theirs.
    if model.calibration is not None:
        configuration["calibration"] = model.calibration.to_dict()
    return hash_configuration(configuration)
