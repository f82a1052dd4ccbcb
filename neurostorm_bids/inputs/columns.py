"""One column of a dataset's tables, brought to the rows that ask for it.

Every row that gets no value gets the reason instead.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.declarations import NOTHING, Declaration, parse_number
from neurostorm_bids.inputs.names import drop_prefix, is_same_index, join_entities
from neurostorm_bids.inputs.tables import Place, find_column
from neurostorm_bids.inputs.tsv import MISSING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs.tsv import Table

Level = Literal["participant", "session", "run", "clip"]

TASK = "task"
"""The name that stands for the ``task`` entity of a run's file name."""

MAX_AGE_YEARS = 120.0

_ALSO_MISSING = {"", "na", "n/a", "nan", "#n/a", "null"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """Cells of text, one for each row that was asked for.

    Attributes
    ----------
    name : of the column.
    source : where it comes from, in words: ``participants.tsv``.
    level : what a value belongs to.
    participants : label of the participant of each row, without ``sub-``.
    keys : what the value of each row belongs to: rows with the same key share one value.
    cells : text; None where a row has no value.
    reasons : why it has none; None where it has one.
    declaration : of the sidecar.
    notes : what was found on the way, in sentences.
    doubts : those of the notes that say that values cannot be what they are taken for.
    """

    name: str
    source: str
    level: Level
    participants: tuple[str, ...]
    keys: tuple[str, ...]
    cells: tuple[str | None, ...]
    reasons: tuple[str | None, ...]
    declaration: Declaration = NOTHING
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


class _Index(NamedTuple):
    """Cells of a table by participant, then by session; None where the table names no session."""

    cells: Mapping[str, Mapping[str | None, str]]
    has_sessions: bool
    notes: tuple[str, ...]


class _Row(NamedTuple):
    participant: str
    session: str | None
    cell: str
    line: int


class _Answer(NamedTuple):
    cell: str | None
    reason: str | None


def read_column(
    name: str,
    rows: Sequence[Mapping[str, str]],
    *,
    roots: Sequence[Path],
    excluded: Collection[str] | None = None,
) -> Column:
    """Read one value for every row from the tables of a dataset, or from the rows' names.

    Parameters
    ----------
    name : ``task`` for the entity of that name, else a column of ``participants.tsv``, of a table
        in ``phenotype/`` or of the participants' ``sessions.tsv``. Where several tables have it:
        ``participants:NAME``, ``phenotype/TABLE:NAME`` or ``sessions:NAME``.
    rows : entities of each row, BIDS keys without prefixes (``{"sub": "01", "task": "rest"}``).
    roots : folders that may hold the tables; the first that has the column is read.
    excluded : labels of participants whom the filters of the call leave without a row, so that it
        can be told why those in the tables have none; None where it is not known.

    Raises
    ------
    UsageError
        If there is no such column, or several.
    DataError
        If a table is broken, tells two things of the same participant, or knows none of the rows.
    MissingFileError, ReadError
        If a table or its sidecar is a link that was not fetched, or cannot be read.
    """
    if name == TASK:
        return _read_task(rows)
    participants = list(dict.fromkeys(row["sub"] for row in rows))
    place = find_column(name, participants, roots=roots)
    index = _index(place)
    answers = [_look_up(index, row, place) for row in rows]
    if rows and not any(row["sub"] in index.cells for row in rows):
        raise DataError(_explain_strangers(place, participants, sorted(index.cells)))
    answers, notes = _leave_out_missing(answers, place)
    level: Level = "session" if index.has_sessions else "participant"
    keys = tuple(_key(row, level) for row in rows)
    doubts = _doubt_age(place, dict(zip(keys, answers, strict=True)).values())
    return Column(
        name=place.column,
        source=place.source,
        level=level,
        participants=tuple(row["sub"] for row in rows),
        keys=keys,
        cells=tuple(answer.cell for answer in answers),
        reasons=tuple(answer.reason for answer in answers),
        declaration=place.declaration,
        notes=(
            *place.declaration.notes,
            *doubts,
            *index.notes,
            *notes,
            *_count_without_rows(index, participants, place, excluded=excluded),
        ),
        doubts=tuple(doubts),
    )


def _doubt_age(place: Place, answers: Iterable[_Answer]) -> list[str]:
    """Tell of ages that nobody has in years, where no sidecar says that they are no years."""
    unit = (place.declaration.unit or "years").casefold()
    if "age" not in re.split("[^a-z]+", place.column.casefold()) or not unit.startswith("y"):
        return []
    ages = [parse_number(answer.cell) for answer in answers if answer.cell is not None]
    odd = [age for age in ages if age is not None and not 0 <= age <= MAX_AGE_YEARS]
    if not odd:
        return []
    worst = f"{min(odd):g}" if len(set(odd)) == 1 else f"{min(odd):g} to {max(odd):g}"
    note = (
        f"{place.source}: {len(odd)} value(s) of {place.column!r} lie outside 0 to "
        f"{MAX_AGE_YEARS:g} ({worst}), which is no age in years. If they are months or days, say "
        "so in the sidecar (Units); if they stand for missing values, name them there (Levels) or "
        "write n/a."
    )
    return [note]


def _read_task(rows: Sequence[Mapping[str, str]]) -> Column:
    cells = tuple(row.get("task") for row in rows)
    return Column(
        name=TASK,
        source="the task entity of the file names",
        level="run",
        participants=tuple(row["sub"] for row in rows),
        keys=tuple(join_entities(row) for row in rows),
        cells=cells,
        reasons=tuple("no task in the file name" if cell is None else None for cell in cells),
    )


def _key(row: Mapping[str, str], level: Level) -> str:
    parts = ("sub", "ses") if level == "session" else ("sub",)
    return join_entities({part: row[part] for part in parts if part in row})


def _index(place: Place) -> _Index:
    """Sort the cells of the place's tables by participant and session.

    Raises
    ------
    DataError
        If two rows of one participant (and session) differ.
    """
    first: dict[tuple[str, str | None], _Row] = {}
    cells: dict[str, dict[str | None, str]] = {}
    n_repeated, n_nameless = 0, 0
    notes: list[str] = []
    for owner, table in place.tables:
        notes += table.notes
        for row in _list_rows(table, owner, place.column):
            if not row.participant:
                n_nameless += 1
                continue
            earlier = first.setdefault((row.participant, row.session), row)
            if earlier.cell != row.cell:
                raise DataError(_explain_conflict(table, earlier, row, place.column))
            n_repeated += earlier is not row
            cells.setdefault(row.participant, {})[row.session] = row.cell
    if n_repeated:
        notes.append(f"{place.source}: {n_repeated} row(s) repeat an earlier one and count once.")
    if n_nameless:
        notes.append(f"{place.source}: {n_nameless} row(s) name no participant and were left out.")
    has_sessions = any("session_id" in table.columns for _, table in place.tables)
    return _Index(cells=cells, has_sessions=has_sessions, notes=tuple(notes))


def _list_rows(table: Table, owner: str | None, column: str) -> Iterator[_Row]:
    """Yield the rows of a table, of which a participant may be the owner."""
    n_rows = len(table.lines)
    labels = [owner] * n_rows if owner is not None else table.columns["participant_id"]
    sessions = table.columns.get("session_id", [MISSING] * n_rows)
    for label, session, cell, line in zip(
        labels, sessions, table.columns[column], table.lines, strict=True
    ):
        yield _Row(
            participant="" if label.lower() in _ALSO_MISSING else drop_prefix(label, "sub"),
            session=None if session.lower() in _ALSO_MISSING else drop_prefix(session, "ses"),
            cell=cell,
            line=line,
        )


def _explain_conflict(table: Table, earlier: _Row, later: _Row, column: str) -> str:
    of_session = "" if later.session is None else f" in session {later.session}"
    return (
        f"{table.path} gives participant {later.participant}{of_session} two different values of "
        f"{column!r}: {earlier.cell!r} in line {earlier.line} and {later.cell!r} in line "
        f"{later.line}. Keep one row, or tell the rows apart by session_id."
    )


def _look_up(index: _Index, row: Mapping[str, str], place: Place) -> _Answer:
    session = row.get("ses")
    own = index.cells.get(row["sub"], {})
    for key in (session, None):
        if key in own:
            return _Answer(own[key], None)
    if not own:
        return _Answer(None, f"no row in {place.source}")
    if session is not None:
        return _Answer(None, f"no row for the session in {place.source}")
    values = set(own.values())
    if len(values) == 1:
        return _Answer(values.pop(), None)
    return _Answer(None, f"several sessions in {place.source}, and the run names none")


def _leave_out_missing(answers: Sequence[_Answer], place: Place) -> tuple[list[_Answer], list[str]]:
    """Give cells without a value a reason; note those that are not spelt as BIDS does."""
    spelt: Counter[str] = Counter()
    checked = []
    for answer in answers:
        cell = answer.cell
        reason = answer.reason
        if cell is not None:
            meaning = place.declaration.explain_missing(cell)
            if meaning is not None:
                reason = f"{cell!r} means {meaning!r}"
            elif cell.lower() in _ALSO_MISSING and place.declaration.find_level(cell) is None:
                reason = f"no value ({MISSING})"
                spelt[cell] += cell != MISSING
        checked.append(_Answer(cell if reason is None else None, reason))
    notes = [
        f"{place.source}: {count} cell(s) {cell!r} of {place.column!r} were read as {MISSING}."
        for cell, count in spelt.items()
        if count
    ]
    return checked, notes


def _count_without_rows(
    index: _Index,
    participants: Sequence[str],
    place: Place,
    *,
    excluded: Collection[str] | None,
) -> list[str]:
    idle = index.cells.keys() - set(participants)
    if excluded is None:
        counts = {"are not among those of this call": len(idle)}
    else:
        n_filtered = len(idle & set(excluded))
        counts = {
            "are excluded by the filters of this call": n_filtered,
            "have no usable run": len(idle) - n_filtered,
        }
    return [
        f"{place.source}: {number} participant(s) {why}."
        for why, number in counts.items()
        if number
    ]


def _explain_strangers(place: Place, asked: Sequence[str], known: Sequence[str]) -> str:
    same = [
        f"{label} and {other}"
        for label in asked[:10]
        for other in known
        if label.isdigit() and is_same_index(label, other)
    ]
    hint = f" Zeros may have been lost: {same[0]} are the same number." if same else ""
    return (
        f"None of the {len(asked)} participants with runs ({', '.join(asked[:3])}, ...) stands in "
        f"{place.source}, which has {', '.join(known[:3]) or 'none'}.{hint} "
        "Give the table of this dataset."
    )
