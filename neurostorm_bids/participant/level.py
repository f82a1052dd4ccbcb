"""The participant level: every chosen run through every model, into BIDS derivatives."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.derivatives import (
    RunStatus,
    check_distinct,
    check_output_dir,
    remove_all_leftovers,
    write_dataset_files,
)
from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs import discover as discover_runs
from neurostorm_bids.participant.jobs import plan_jobs
from neurostorm_bids.participant.models import load_models
from neurostorm_bids.participant.reports import Reporter, rebuild_reports, tell_settled
from neurostorm_bids.participant.work import run_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.inputs import Discovery, SourceDataset
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.participant.jobs import Job

logger = logging.getLogger(__name__)


def discover(options: ParticipantOptions) -> Discovery:
    """Find the runs that the options choose; the models' spaces are preferred, in order."""
    grids = [model.grid for model in load_models(options)] if options.models else []
    return discover_runs(
        options,
        spaces=[grid.space for grid in grids],
        voxel_size_mm=grids[0].side_mm if grids else None,
    )


class Plan(NamedTuple):
    """What a call finds: runs, the datasets they are of, what is to do, and what is not.

    Attributes
    ----------
    settled : of runs that are finished, or cannot be read.
    """

    discovery: Discovery
    datasets: list[SourceDataset]
    jobs: list[Job]
    settled: list[RunStatus]


def plan_level(options: ParticipantOptions) -> Plan:
    """Find the runs and what is to do for them, and check the output folder; write nothing.

    Raises
    ------
    UsageError
        If no model is given, or the output folder is an input.
    OutputError
        If the output folder cannot be written, or two runs would have the same results.
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
    return Plan(discovery, datasets, *plan_jobs(discovery, options))


def run_participant_level(options: ParticipantOptions) -> int:
    """Run every chosen run through every model, write the results, report, return the exit status.

    Returns
    -------
    int
        0 when all is done or was done before, 1 when some runs failed; when every run failed for
        the same kind of reason, the exit status of that reason.
    """
    if options.reports_only or options.boilerplate_only:
        return rebuild_reports(options)
    plan = plan_level(options)
    discovery, datasets, jobs, statuses = plan
    remove_all_leftovers(options.output_dir, discovery.participants)
    write_dataset(plan, options)
    if jobs:
        reporter = Reporter(jobs, statuses, options, datasets)
        try:
            for status in run_jobs(jobs, options):
                _log_status(status)
                reporter.add(status)
        finally:
            reporter.close()
        statuses = reporter.statuses
    else:
        tell_settled(options, statuses, datasets)
    return summarise(statuses, options)


def write_dataset(plan: Plan, options: ParticipantOptions) -> None:
    """Write the files of the dataset where there is something to do, or a failure to tell of."""
    if plan.jobs or any(status.state == "failed" for status in plan.settled):
        write_dataset_files(
            options.output_dir,
            datasets=plan.datasets,
            participants=plan.discovery.participants,
            models=load_models(options),
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


def _log_status(status: RunStatus) -> None:
    if status.state == "failed":
        logger.error("%s failed after %.1f s: %s", status.run, status.seconds, status.message)
        return
    logger.info("%s done in %.1f s", status.run, status.seconds)
    for warning in status.warnings:
        logger.warning("%s: %s", status.run, warning)
