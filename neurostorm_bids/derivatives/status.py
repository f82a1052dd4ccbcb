"""What became of each run of a call: status files, logs of the call, crash files."""

from __future__ import annotations

import platform
import re
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_text
from neurostorm_bids.derivatives.conceal import conceal_paths, list_known_folders
from neurostorm_bids.derivatives.configuration import (
    CONFIGURATION,
    conceal_configuration,
    format_configuration,
)
from neurostorm_bids.derivatives.tables import Column, format_table
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from neurostorm_bids.call import Call
    from neurostorm_bids.inputs import SourceDataset

State = Literal["done", "skipped", "failed"]
MAX_NAME_LENGTH = 200
CALL_STATUS = "status.tsv"
"""What became of all runs of a call, in its folder of logs; the last file that the call writes."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What became of one run; plain values, so that it passes between processes.

    Attributes
    ----------
    run : the run's label; of a participant's folder that cannot be searched its name, ``sub-01``.
    participant : its participant, without ``sub-``.
    state : done now, skipped because it was finished before, or failed.
    seconds : wall time.
    warnings : those of the run's sidecars.
    error : name of the exception; None unless the run failed.
    message : what it says.
    exit_status : what the command would exit with for this alone.
    crash : the traceback of an exception that was not expected.
    """

    run: str
    participant: str
    state: State
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str | None = None
    message: str | None = None
    exit_status: int = 0
    crash: str | None = None

    @classmethod
    def of_failure(
        cls, error: Exception, *, run: str, participant: str, seconds: float = 0.0
    ) -> RunStatus:
        """Describe a run by the exception that ended it; keep the traceback if unexpected."""
        exit_status, crash = UserError.exit_status, None
        if isinstance(error, UserError):
            exit_status = error.exit_status
        else:
            crash = "".join(traceback.format_exception(error))
        return cls(
            run=run,
            participant=participant,
            state="failed",
            seconds=seconds,
            error=type(error).__name__,
            message=str(error),
            exit_status=exit_status,
            crash=crash,
        )


def write_status(
    output_dir: Path,
    statuses: Sequence[RunStatus],
    *,
    call: Call,
    bids_dir: Path,
    datasets: Sequence[SourceDataset],
    debug: bool = False,
    is_whole: bool = True,
) -> list[Path]:
    """Write what a call did, and return the paths of the files.

    ``logs/<run_uuid>/config.toml`` and ``status.tsv`` for the call; for each participant
    ``sub-X/log/<run_uuid>/status.json`` and a ``crash-<run>.txt`` with the traceback of every
    failure that was not expected. May be called again as more runs end: it writes the files anew.

    Parameters
    ----------
    call : its name and its options.
    debug : keep absolute paths; otherwise known folders are named and others cut.
    is_whole : these are all runs of the call so far; otherwise only the participants' own files are
        written, and the call's are not.
    """
    known_folders = list_known_folders(output_dir, bids_dir, datasets)

    def conceal(text: str) -> str:
        return text if debug else conceal_paths(text, known_folders)

    options = conceal_configuration(call, output_dir=output_dir, bids_dir=bids_dir, debug=debug)
    logs = output_dir / "logs" / call.run_uuid
    texts: dict[Path, str] = {}
    of_participant: dict[str, list[RunStatus]] = {}
    for status in statuses:
        of_participant.setdefault(status.participant, []).append(status)
    for participant, own in of_participant.items():
        folder = output_dir / f"sub-{participant}" / "log" / call.run_uuid
        texts[folder / "status.json"] = format_json(
            {
                "Software": "neurostorm-bids",
                "Version": __version__,
                "Options": options,
                "Participant": participant,
                "Runs": [_describe(status, conceal) for status in own],
            }
        )
        for status in own:
            if status.crash is not None:
                texts[folder / _name_crash_file(status)] = _report_crash(
                    status, conceal(status.crash)
                )
    if is_whole:
        texts[logs / CONFIGURATION] = format_configuration(call, options)
        texts[logs / CALL_STATUS] = format_table(_tabulate(statuses, conceal))
    for folder in {path.parent.parent for path in texts}:
        remove_leftovers(folder)
    for path, text in texts.items():
        # No later call looks into this one's folder: what a kill leaves has to lie above it.
        write_text(path, text, scratch=path.parent.parent)
    return list(texts)


def _tabulate(statuses: Sequence[RunStatus], conceal: Callable[[str], str]) -> list[Column]:
    """Return the columns of status.tsv: one row per run."""
    columns: dict[str, list[object]] = {
        "participant_id": [f"sub-{status.participant}" for status in statuses],
        "run": [status.run for status in statuses],
        "state": [status.state for status in statuses],
        "seconds": [round(status.seconds, 1) for status in statuses],
        "n_warnings": [len(status.warnings) for status in statuses],
        "error": [status.error for status in statuses],
        "exit_status": [status.exit_status for status in statuses],
        "message": [conceal(status.message or "") for status in statuses],
    }
    return [Column(name=name, cells=cells, description="") for name, cells in columns.items()]


def _describe(status: RunStatus, conceal: Callable[[str], str]) -> dict[str, Any]:
    """Return a run's entry in status.json."""
    entry: dict[str, Any] = {
        "Run": status.run,
        "State": status.state,
        "Seconds": round(status.seconds, 1),
        "Warnings": [conceal(warning) for warning in status.warnings],
        "ExitStatus": status.exit_status,
    }
    if status.error is not None:
        entry["Error"] = status.error
        entry["Message"] = conceal(status.message or "")
    if status.crash is not None:
        entry["CrashFile"] = _name_crash_file(status)
    return entry


def _name_crash_file(status: RunStatus) -> str:
    return f"crash-{re.sub(r'[^A-Za-z0-9+_.-]', '_', status.run)[:MAX_NAME_LENGTH]}.txt"


def _report_crash(status: RunStatus, crash: str) -> str:
    """Return the text of a crash file, from the traceback as it may be shown."""
    return (
        f"neurostorm-bids {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}\nrun: {status.run}\n\n{crash}"
    )
