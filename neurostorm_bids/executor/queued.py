"""Who is in the queue already: a note beside each array, and what Slurm says of it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.atomic import write_text
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import UserError
from neurostorm_bids.inputs.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOTE = "array.json"


def write_note(
    folder: Path, *, number: str, packs: Sequence[Sequence[str]], words: Sequence[str]
) -> None:
    """Write down who is in which task of a job.

    Parameters
    ----------
    folder : that of the job, in the folder of all jobs.
    number : Slurm's.
    packs : participants of each task.
    words : those of every task's call, without whom it is for.
    """
    tasks = [f"{number}_{place}" for place in range(len(packs))] if len(packs) > 1 else [number]
    content = {"Words": list(words), "Tasks": dict(zip(tasks, map(list, packs), strict=True))}
    write_text(folder / NOTE, format_json(content))


def find_queued(folder: Path, *, words: Sequence[str] | None = None) -> dict[str, str]:
    """Return the participants whose tasks wait or run, and their jobs' numbers.

    Parameters
    ----------
    folder : of all jobs of an output folder.
    words : only tasks of calls with the same words; None for all.
    """
    notes = [_read_note(path) for path in sorted(folder.glob(f"*/{NOTE}"))]
    if words is not None:
        notes = [note for note in notes if note.get("Words") == list(words)]
    queue = _list_queue() if notes else set()
    queued: dict[str, str] = {}
    for note in notes:
        tasks = note.get("Tasks")
        for task, labels in tasks.items() if isinstance(tasks, dict) else ():
            if task in queue:
                queued |= dict.fromkeys(labels, task.partition("_")[0])
    return queued


def _read_note(path: Path) -> dict[str, object]:
    try:
        return dict(read_json_object(path))
    except UserError:  # without it somebody may be submitted twice, which does no harm
        return {}


def _list_queue() -> set[str]:
    """Return the tasks of this user that wait or run; none if Slurm does not answer."""
    asked = subprocess.run(  # noqa: S603 - words, no shell
        ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return set(asked.stdout.split())
