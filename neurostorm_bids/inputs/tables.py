"""Where a column lies: participants.tsv, the tables of phenotype/, or each participant's sessions.

A place is found by the headers alone; then its tables are read, and their sidecar.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.inputs.declarations import NOTHING, Declaration, read_declaration
from neurostorm_bids.inputs.files import list_names
from neurostorm_bids.inputs.tsv import Table, read_header, read_tsv

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_LEVELS_BELOW_DERIVATIVES = 2

_SPELT_OUT = re.compile(r"(participants|sessions|phenotype/[^:/]+?)(?:\.tsv)?:(.+)")
_MAX_NAMED = 40


class Place(NamedTuple):
    """A column, and the tables that have it.

    Attributes
    ----------
    column : its name.
    source : the tables, in words.
    tables : each with the participant it belongs to; None where rows name their participants.
    declaration : of the column, from the sidecar.
    """

    column: str
    source: str
    tables: list[tuple[str | None, Table]]
    declaration: Declaration


class _Candidate(NamedTuple):
    """One table, or the sessions of all participants, before it is read."""

    name: str
    root: Path
    files: list[tuple[str | None, Path]]
    headers: list[list[str]]

    def has(self, column: str) -> bool:
        return any(column in header for header in self.headers)


def list_table_roots(folders: Iterable[Path]) -> list[Path]:
    """List the folders that may hold the tables of datasets, in the order to look.

    Parameters
    ----------
    folders : what the user named and the derivatives found there.

    Returns
    -------
    These, then the raw datasets that those of them belong to that lie in ``derivatives/``.
    """
    given = [folder.absolute() for folder in folders]
    above = [
        parent.parent
        for folder in given
        for parent in list(folder.parents)[:_LEVELS_BELOW_DERIVATIVES]
        if parent.name == "derivatives"
    ]
    return list(dict.fromkeys([*given, *above]))


def find_column(name: str, participants: Sequence[str], *, roots: Sequence[Path]) -> Place:
    """Find a column by its name, alone or as ``TABLE:NAME``; see `columns.read_column`.

    Raises
    ------
    UsageError
        If no table has it, or several tables of one folder have.
    DataError, MissingFileError, ReadError
        If a table cannot be read.
    """
    seen: list[_Candidate] = []
    for root in roots:
        candidates = _list_candidates(root, participants)
        found = [(one, name) for one in candidates if one.has(name)]
        spelt_out = _SPELT_OUT.fullmatch(name)
        if not found and spelt_out:
            table, column = spelt_out.groups()
            found = [(one, column) for one in candidates if one.name == table and one.has(column)]
        if len(found) > 1:
            ways = ", ".join(f"{one.name}:{name}" for one, _ in found)
            raise UsageError(
                f"Several tables of {root} have a column {name!r}. Write one of {ways}."
            )
        if found:
            return _read_place(*found[0])
        seen += candidates
    raise UsageError(_explain_absent(name, seen, roots))


def _list_candidates(root: Path, participants: Sequence[str]) -> list[_Candidate]:
    candidates = [
        _Candidate(name, root, [(None, path)], [read_header(path, dataset_root=root)])
        for name, path in _list_tables(root)
    ]
    sessions: list[tuple[str | None, Path]] = [
        (label, path)
        for label in participants
        if _is_there(path := root / f"sub-{label}" / f"sub-{label}_sessions.tsv")
    ]
    if sessions:
        headers = [read_header(path, dataset_root=root) for _, path in sessions]
        candidates.append(_Candidate("sessions", root, sessions, headers))
    return candidates


def _list_tables(root: Path) -> list[tuple[str, Path]]:
    tables = [("participants", root / "participants.tsv")]
    phenotype = root / "phenotype"
    if phenotype.is_dir():
        names = [name for name in list_names(phenotype) if name.endswith(".tsv")]
        tables += [(f"phenotype/{name[:-4]}", phenotype / name) for name in names]
    return [(name, path) for name, path in tables if _is_there(path)]


def _is_there(path: Path) -> bool:
    """Tell whether a file is there or should be: a link that was not fetched counts."""
    return path.is_symlink() or path.exists()


def _read_place(candidate: _Candidate, column: str) -> Place:
    root = candidate.root
    tables = [
        (owner, read_tsv(path, columns=_needed(owner, column), dataset_root=root))
        for (owner, path), header in zip(candidate.files, candidate.headers, strict=True)
        if column in header
    ]
    for owner, table in tables:
        key = "participant_id" if owner is None else "session_id"
        if key not in table.columns:
            raise DataError(f"Expected a column {key} in {table.path}, found none. Add it.")
    return Place(
        column=column,
        source=f"{candidate.name}.tsv",
        tables=tables,
        declaration=_read_declaration(candidate, column),
    )


def _needed(owner: str | None, column: str) -> set[str]:
    return {column, "session_id"} | ({"participant_id"} if owner is None else set())


def _read_declaration(candidate: _Candidate, column: str) -> Declaration:
    """Read the sidecar beside the tables, or for sessions the dataset's own."""
    sidecars = [path.with_suffix(".json") for _, path in candidate.files[:1]]
    if candidate.name == "sessions":
        sidecars.append(candidate.root / "sessions.json")
    for sidecar in sidecars:
        declaration = read_declaration(sidecar, column, dataset_root=candidate.root)
        if declaration is not NOTHING:
            return declaration
    return NOTHING


def _explain_absent(name: str, seen: Sequence[_Candidate], roots: Sequence[Path]) -> str:
    looked = ", ".join(str(root) for root in roots)
    if not seen:
        return (
            f"No table for {name!r}: expected participants.tsv, phenotype/*.tsv or "
            f"sub-*/sub-*_sessions.tsv in {looked}. Give the folder of the raw dataset."
        )
    columns = {
        column: f"{column} ({one.name})"
        for one in seen
        for header in one.headers
        for column in header
        if column not in {"participant_id", "session_id"}
    }
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(list(columns.values())[:_MAX_NAMED])
    return f"No column {name!r} in the tables of {looked}. There are: {listed}.{hint}"
