"""What is asked of Slurm; importable without torch and submitit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from neurostorm_bids.errors import UsageError

Executor = Literal["local", "slurm"]
OURS = {
    *("array", "dependency", "error", "job-name", "open-mode", "output", "signal"),
    *("cpus-per-task", "nodes", "ntasks", "ntasks-per-node", "time", "wait", "wrap"),
}
"""Options of sbatch that this program sets, or that would run a task's work more than once."""
MINUTES_PER_DAY = 24 * 60


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What each task of an array asks for, and how participants share tasks.

    Attributes
    ----------
    time_limit : of each task, in one of Slurm's forms.
    participants_per_task : None packs small participants together, by the size of their files.
    sbatch : further options of sbatch, by name without dashes.
    wait : return when the jobs have ended, with their exit status.
    """

    time_limit: str = "4:00:00"
    participants_per_task: int | None = None
    sbatch: tuple[tuple[str, str], ...] = ()
    wait: bool = False

    @property
    def minutes(self) -> int:
        """The time limit in minutes."""
        return parse_time(self.time_limit)

    def check(self) -> None:
        """Check that the time limit is one."""
        parse_time(self.time_limit)


def parse_time(text: str) -> int:
    """Read a time limit in one of Slurm's forms, and return minutes, rounded up.

    Minutes, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes`` or ``days-hours:minutes:seconds``.
    """
    match = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,6}))?(?::(\d{1,6}))?", text)
    if match is None:
        seconds = 0
    else:
        days, *rest = match.groups()
        parts = [int(part) for part in rest if part is not None]
        # With days, hours come first; without, one or two parts are minutes and seconds.
        parts = parts if days is not None or len(parts) > 2 else [0, *parts]  # noqa: PLR2004
        hours, minutes, rest_s = [*parts, 0, 0][:3]
        seconds = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest_s
    if seconds == 0:
        raise UsageError(
            f"--slurm-time {text!r} is not a time limit as Slurm has it: minutes, or "
            "hours:minutes:seconds, or days-hours, as in 90, 4:00:00 or 1-12."
        )
    return -(-seconds // 60)


def parse_sbatch_option(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``, an option of sbatch without its dashes.

    Raises
    ------
    UsageError
        If it has another form, or is one of those that this program sets.
    """
    name, equals, value = text.partition("=")
    name = name.lstrip("-").replace("_", "-")
    if not (equals and value and value.isprintable() and re.fullmatch("[a-z][a-z-]*", name)):
        raise UsageError(
            f"--slurm-option {text!r} is not of the form NAME=VALUE, with a long option of sbatch, "
            "as in partition=gpu or mem=16G."
        )
    if name in OURS:
        raise UsageError(
            f"--slurm-option {name} is set by neurostorm itself. See --slurm-time, --nprocs, "
            "--participants-per-task; for anything else write an sbatch script of your own "
            "(docs/hpc.md)."
        )
    return name, value
