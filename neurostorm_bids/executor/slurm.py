"""Jobs of Slurm, by submitit: an array of tasks, a job after it, and waiting for their end."""

from __future__ import annotations

import logging
import math
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from submitit import SlurmExecutor
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from neurostorm_bids.errors import TemporaryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from submitit import Job

    from neurostorm_bids.executor.options import SlurmOptions

logger = logging.getLogger(__name__)

POLL_S = 15.0
"""How often Slurm is asked whether jobs have ended."""
SUBMIT_ERRORS = (FailedJobError, FailedSubmissionError, OSError, RuntimeError, ValueError)
BUSY = ("contact slurm controller", "timed out", "temporarily")
"""What sbatch says when it may work later."""
GPU_REQUESTS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")


class Resources(NamedTuple):
    """What a task needs of its node."""

    n_cpus: int = 1
    on_gpu: bool = False
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Task:
    """A call of the command, as a task of a job.

    Attributes
    ----------
    main : the command; it takes words and returns an exit status.
    words : the call, without the name of the command.
    """

    main: Callable[[Sequence[str]], int]
    words: tuple[str, ...]

    def __call__(self) -> int:
        """Run the command, and end the process with its status unless that is 0."""
        status = self.main(self.words)
        if status:
            raise SystemExit(status)
        return status

    def checkpoint(self) -> DelayedSubmission:
        """Say what is to be done when a task that ran out of time is started again: the same.

        The command passes over what is finished.
        """
        return DelayedSubmission(self)


def check_slurm() -> None:
    """Check that jobs can be submitted from this machine.

    Raises
    ------
    UsageError
        If Slurm's commands are not there.
    """
    for name in ("sbatch", "srun", "squeue"):
        if shutil.which(name) is None:
            raise UsageError(
                f"--executor slurm needs Slurm, and there is no {name} on PATH. Run it where "
                "sbatch works (a login node; not in a container), or leave --executor out to work "
                "on this machine."
            )


def submit_array(
    tasks: Sequence[Task], *, folder: Path, resources: Resources, options: SlurmOptions
) -> list[Job[int]]:
    """Submit tasks as one array; a single one becomes a job without an array.

    Parameters
    ----------
    folder : for what submitit keeps of the jobs, and their logs; all nodes have to see it.

    Raises
    ------
    UsageError, TemporaryError
        If Slurm refuses.
    """
    executor = _make_executor(
        folder,
        job_name="neurostorm",
        options=options,
        array_parallelism=len(tasks),
        **_request(resources, dict(options.sbatch)),
    )
    return _submit(executor, tasks)


def submit_after(
    task: Task, before: Sequence[str], *, folder: Path, options: SlurmOptions
) -> Job[int]:
    """Submit a job that starts when others have ended, however they ended.

    It asks for one CPU and no GPU.

    Parameters
    ----------
    before : numbers of the others.

    Raises
    ------
    UsageError, TemporaryError
        If Slurm refuses.
    """
    sbatch = {name: value for name, value in options.sbatch if name not in GPU_REQUESTS}
    executor = _make_executor(
        folder,
        job_name="neurostorm-group",
        options=options,
        dependency=":".join(["afterany", *before]) if before else None,
        **_request(Resources(), sbatch),
    )
    return _submit(executor, [task])[0]


def number_of(job: Job[int]) -> str:
    """Return the number that Slurm's commands know a job by: for a task that of its array."""
    return str(job.job_id).partition("_")[0]


def wait_for(jobs: Sequence[Job[int]]) -> bool:
    """Wait until jobs have ended, and return whether all of their tasks ended with status 0."""
    numbers = ",".join(dict.fromkeys(number_of(job) for job in jobs))
    while _is_queued(numbers):
        time.sleep(POLL_S)
    # A task that ended otherwise, or was killed, leaves no result.
    return all(job.paths.result_pickle.exists() for job in jobs)


def _is_queued(numbers: str) -> bool:
    """Return whether any of the jobs waits or runs; a controller that does not answer may say."""
    asked = subprocess.run(  # noqa: S603 - words, no shell
        ["squeue", "--noheader", "--jobs", numbers],  # noqa: S607 - wherever the site has it
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:
        return bool(asked.stdout.strip())
    # Slurm forgets a job some minutes after its end.
    return "Invalid job id" not in asked.stderr


def _make_executor(
    folder: Path,
    *,
    job_name: str,
    options: SlurmOptions,
    **parameters: Any,  # noqa: ANN401 - submitit's
) -> SlurmExecutor:
    executor = SlurmExecutor(folder)
    executor.update_parameters(
        job_name=job_name,
        time=options.minutes,
        stderr_to_stdout=True,
        wckey=None,
        **parameters,
    )
    return executor


def _request(resources: Resources, sbatch: dict[str, str]) -> dict[str, Any]:
    """Return what submitit is told of CPUs, GPU and memory; what the user says of these wins."""
    n_cpus = resources.n_cpus
    # srun takes the CPUs of the job no longer for those of its task, since Slurm 22.05.
    request: dict[str, Any] = {"cpus_per_task": n_cpus, "srun_args": [f"--cpus-per-task={n_cpus}"]}
    if resources.on_gpu and sbatch.keys().isdisjoint(GPU_REQUESTS):
        request["gpus_per_node"] = 1
    if resources.memory_bytes is not None and not any(name.startswith("mem") for name in sbatch):
        request["mem"] = f"{math.ceil(resources.memory_bytes / 2**20)}M"
    return request | ({"additional_parameters": sbatch} if sbatch else {})


def _submit(executor: SlurmExecutor, tasks: Sequence[Task]) -> list[Job[int]]:
    try:
        return executor.submit_array(list(tasks))
    except SUBMIT_ERRORS as err:
        said = "; ".join(str(err).strip().splitlines())
        message = f"Slurm did not take the job: {said}."
        if any(word in said for word in BUSY):
            raise TemporaryError(f"{message} Try again later.") from err
        raise UsageError(
            f"{message} Mend --slurm-time, --slurm-option, --nprocs or --mem to what this cluster "
            "offers (see `sinfo`)."
        ) from err
