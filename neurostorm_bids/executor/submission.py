"""What is missing, packed into tasks and handed to Slurm; then the group level after it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.audit import audit, choose_entries
from neurostorm_bids.errors import UserError
from neurostorm_bids.executor.packing import pack_participants
from neurostorm_bids.executor.queued import find_queued, write_note
from neurostorm_bids.executor.slurm import (
    Resources,
    Task,
    check_slurm,
    number_of,
    submit_after,
    submit_array,
    wait_for,
)
from neurostorm_bids.inputs.names import natural_key
from neurostorm_bids.participant.level import plan_level, summarise, write_dataset
from neurostorm_bids.participant.reports import tell_settled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from submitit import Job

    from neurostorm_bids.derivatives import RunStatus
    from neurostorm_bids.executor.options import SlurmOptions
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.participant.jobs import Job as RunJob
    from neurostorm_bids.participant.level import Plan

logger = logging.getLogger(__name__)

FOLDER = ".work/slurm"
"""Where in the output folder, which all nodes see, submitit keeps what it hands to the tasks."""


class Calls(NamedTuple):
    """The command, and the words of its calls in the jobs.

    Attributes
    ----------
    main : the command; it takes words and returns an exit status.
    participant : returns the words of the participant level for some participants.
    group : those of the group level; None if it was not asked for.
    """

    main: Callable[[Sequence[str]], int]
    participant: Callable[[Sequence[str]], tuple[str, ...]]
    group: tuple[str, ...] | None = None


def submit_levels(
    options: ParticipantOptions, slurm: SlurmOptions, *, calls: Calls, resources: Resources
) -> int:
    """Submit the participants who are not finished, then the group level; return an exit status.

    Parameters
    ----------
    options : those of the participant level, for this machine to find out what is missing.

    Returns
    -------
    int
        0 when all is submitted; 1 when there are runs that cannot be read at all. After waiting
        also 1 when any of the jobs failed.
    """
    check_slurm()
    plan = plan_level(options)
    folder = options.output_dir / FOLDER / options.call.run_uuid
    words = calls.participant(())
    queued = find_queued(folder.parent, words=words)
    packs = pack_missing(plan, slurm, queued=queued)
    _settle(plan, options)
    if queued:
        logger.info(
            "%d participant(s) wait or run already, in job %s",
            len(queued),
            ", ".join(sorted(set(queued.values()))),
        )
    jobs: list[Job[int]] = []
    if packs:
        _tell_earlier_failures(options, packs)
        tasks = [Task(calls.main, calls.participant(pack)) for pack in packs]
        jobs = submit_array(tasks, folder=folder, resources=resources, options=slurm)
        write_note(folder, number=number_of(jobs[0]), packs=packs, words=words)
        logger.info(
            "Submitted %d participant(s) in %d task(s) as job %s; `squeue -j %s` shows them, "
            "`neurostorm-audit %s` tells who is done; logs are in %s",
            sum(len(pack) for pack in packs),
            len(packs),
            number_of(jobs[0]),
            number_of(jobs[0]),
            options.output_dir,
            folder,
        )
    status = 0
    if not plan.jobs:
        status = summarise(plan.settled, options)
    elif _list_failed(plan):
        summarise(plan.settled, options)
        status = UserError.exit_status
    if calls.group is not None:
        group = Task(calls.main, calls.group)
        before = dict.fromkeys([*queued.values(), *map(number_of, jobs)])
        jobs.append(submit_after(group, list(before), folder=folder, options=slurm))
        logger.info("Submitted the group level as job %s, after the others", number_of(jobs[-1]))
    return max(status, int(not _wait(jobs, packs, options))) if slurm.wait and jobs else status


def pack_missing(
    plan: Plan, slurm: SlurmOptions, *, queued: Collection[str] = ()
) -> list[tuple[str, ...]]:
    """Return the participants of each task: those with something to do who are not queued."""
    sizes: dict[str, int] = {}
    for job in sorted(plan.jobs, key=lambda job: natural_key(job.run.participant)):
        label = job.run.participant
        if label not in queued:
            sizes[label] = sizes.get(label, 0) + _measure(job)
    return pack_participants(sizes, participants_per_task=slurm.participants_per_task)


def describe_packs(packs: Sequence[Sequence[str]]) -> str:
    """Return what a dry run says of the tasks."""
    lines = [f"{len(packs)} task(s) would be submitted:"]
    lines += [f"  task {i}  {' '.join(f'sub-{x}' for x in pack)}" for i, pack in enumerate(packs)]
    return "\n".join(lines)


def _measure(job: RunJob) -> int:
    try:
        return job.run.path.stat().st_size
    except OSError:  # the task will say why
        return 0


def _settle(plan: Plan, options: ParticipantOptions) -> None:
    """Write what is known before any task runs: who is done, whom to expect, what is unusable."""
    write_dataset(plan, options)
    tell_settled(options, plan.settled, plan.datasets)


def _list_failed(plan: Plan) -> list[RunStatus]:
    return [status for status in plan.settled if status.state == "failed"]


def _tell_earlier_failures(options: ParticipantOptions, packs: Iterable[Sequence[str]]) -> None:
    """Tell who is submitted again after a failure, and what the failure was."""
    labels = [label for pack in packs for label in pack]
    for entry in choose_entries(audit(options.output_dir), labels):
        if entry.state == "failed":
            logger.warning("sub-%s failed before: %s", entry.participant, entry.message)


def _wait(
    jobs: Sequence[Job[int]], packs: Iterable[Sequence[str]], options: ParticipantOptions
) -> bool:
    """Wait for the jobs, tell who did not come through, and return whether all went well."""
    logger.info("Waiting; to stop waiting leaves the jobs as they are")
    is_well = wait_for(jobs)
    labels = [label for pack in packs for label in pack]
    for entry in choose_entries(audit(options.output_dir), labels) if labels else ():
        if entry.state != "done":
            logger.error("sub-%s %s: %s", entry.participant, entry.state, entry.message)
    if is_well:
        logger.info("All jobs ended well; results in %s", options.output_dir)
    else:
        logger.error("Not all jobs ended well; the same call submits what is missing")
    return is_well
