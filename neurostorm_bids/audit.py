"""Who is done, who failed and who is missing, from the status files of an output folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from neurostorm_bids.derivatives.atomic import write_text
from neurostorm_bids.derivatives.tables import Column, format_table
from neurostorm_bids.errors import DatasetError, MissingFileError, SelectionError, UserError
from neurostorm_bids.inputs import find_datasets
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import drop_prefix, natural_key
from neurostorm_bids.inputs.scan import list_participants
from neurostorm_bids.inputs.tsv import read_tsv
from neurostorm_bids.printable import make_printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

State = Literal["done", "failed", "missing"]
MAX_MESSAGE = 300
"""Characters of a message that are shown; the whole stands in status.json."""


class Entry(NamedTuple):
    """What became of a participant, as the latest call tells of each run.

    Attributes
    ----------
    participant : the label, without ``sub-``.
    state : done; failed, when a run did; missing, when no status file tells of any run.
    n_done, n_failed : runs.
    last_call : name of the latest call that tells of the participant, which begins with its time.
    message : what the first failed run says, or why nothing is known.
    """

    participant: str
    state: State
    n_done: int = 0
    n_failed: int = 0
    last_call: str | None = None
    message: str | None = None


def audit(
    output_dir: Path, *, bids_dir: Path | None = None, derivatives: Mapping[str, Path] | None = None
) -> list[Entry]:
    """Tell what became of every participant.

    Expected are those of `bids_dir`, and those that a call was asked to read
    (``participants.tsv`` of the output folder), so that a call that was killed shows.

    Raises
    ------
    DatasetError
        If one of the folders is none, or `bids_dir` holds no dataset.
    SelectionError
        If there is nobody to tell of.
    """
    if not output_dir.is_dir():
        raise DatasetError(f"Expected the output folder of a call, found nothing at {output_dir}.")
    there = list_participants(output_dir)
    expected = set(there) | _read_participants(output_dir)
    if bids_dir is not None:
        expected |= _find_participants(bids_dir, derivatives or {})
    if not expected:
        raise SelectionError(
            f"There are no participants in {output_dir}, and it has no participants.tsv. Name the "
            "output folder of a call (with --output-layout multiverse, the folder in it)."
        )
    return [_look_at(label, there.get(label)) for label in sorted(expected, key=natural_key)]


def choose_entries(entries: Iterable[Entry], labels: Collection[str]) -> list[Entry]:
    """Keep participants by label, with or without ``sub-``; all if no label is given.

    A label that nobody has becomes a missing participant.
    """
    by_label = {entry.participant: entry for entry in entries}
    wanted = [drop_prefix(label, "sub") for label in labels] or list(by_label)
    return [by_label.get(label, Entry(label, "missing")) for label in dict.fromkeys(wanted)]


def write_audit(path: Path, entries: Sequence[Entry]) -> None:
    """Write a table with a row per participant."""
    write_text(path, format_table(_tabulate(entries)))


def format_audit(entries: Sequence[Entry]) -> str:
    """Return a table for a person to read; nothing in it steers the terminal."""
    columns = _tabulate(entries)
    rows = [[column.name for column in columns]]
    rows += [
        ["" if cell is None else str(cell) for cell in row]
        for row in zip(*(column.cells for column in columns), strict=True)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    counts = {state: sum(entry.state == state for entry in entries) for state in STATES}
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
    return "\n".join(make_printable(line.rstrip()) for line in lines)


STATES_OF_RUNS = ("done", "skipped", "failed")
STATES: tuple[State, ...] = ("done", "failed", "missing")


def _tabulate(entries: Sequence[Entry]) -> list[Column]:
    cells: dict[str, list[object]] = {
        "participant_id": [f"sub-{entry.participant}" for entry in entries],
        "state": [entry.state for entry in entries],
        "n_done": [entry.n_done for entry in entries],
        "n_failed": [entry.n_failed for entry in entries],
        "last_call": [entry.last_call for entry in entries],
        "message": [entry.message for entry in entries],
    }
    return [Column(name=name, cells=column, description="") for name, column in cells.items()]


def _read_participants(output_dir: Path) -> set[str]:
    """Return the participants that calls were asked to read; none if the table is not usable."""
    try:
        table = read_tsv(output_dir / "participants.tsv", columns=["participant_id"])
    except UserError:
        return set()
    cells = table.columns.get("participant_id", [])
    return {cell.removeprefix("sub-") for cell in cells if cell.startswith("sub-")}


def _find_participants(bids_dir: Path, derivatives: Mapping[str, Path]) -> set[str]:
    """Return the participants of a dataset, raw or preprocessed."""
    if bids_dir.is_dir() and not derivatives and (own := list_participants(bids_dir)):
        return set(own)
    datasets = find_datasets(bids_dir, derivatives)
    return {label for dataset in datasets for label in list_participants(dataset.path)}


def _look_at(label: str, folder: Path | None) -> Entry:
    """Read the status files of a participant, the oldest first; later ones win, run by run.

    That the folder could not be searched holds until a later call tells of the participant.
    """
    runs: dict[str, Mapping[str, object]] = {}
    last_call, unread = None, None
    for call in _list_calls(folder):
        try:
            content = read_json_object(call / "status.json")
        except MissingFileError:
            continue
        except UserError as err:
            unread = str(err)
            continue
        told = _read_runs(content)
        if told:
            runs.pop(f"sub-{label}", None)
            runs |= told
            last_call = call.name
    if not runs:
        return Entry(label, "missing", message=_shorten(unread or "no status.json tells of it"))
    failed = [run for run in runs.values() if run.get("State") == "failed"]
    message = failed[0].get("Message") if failed else None
    return Entry(
        participant=label,
        state="failed" if failed else "done",
        n_done=len(runs) - len(failed),
        n_failed=len(failed),
        last_call=last_call,
        message=_shorten(message if isinstance(message, str) else None),
    )


def _list_calls(folder: Path | None) -> list[Path]:
    """List the folders of a participant's calls by time, which their names begin with."""
    if folder is None or not (folder / "log").is_dir():
        return []
    return [folder / "log" / name for name in sorted(list_names(folder / "log"))]


def _read_runs(content: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return the runs that a status file tells of, by name; what is not in its form is left out."""
    runs = content.get("Runs")
    told: dict[str, Mapping[str, object]] = {}
    for run in runs if isinstance(runs, list) else []:
        if isinstance(run, Mapping) and run.get("State") in STATES_OF_RUNS:
            told[str(run.get("Run"))] = run
    return told


def _shorten(text: str | None) -> str | None:
    if text is None:
        return None
    words = " ".join(text[: 10 * MAX_MESSAGE].split())
    return words if len(words) <= MAX_MESSAGE else f"{words[:MAX_MESSAGE]}..."
