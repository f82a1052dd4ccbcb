"""What the map of the embeddings is coloured by."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from neurostorm_bids.errors import UserError
from neurostorm_bids.group.pictures import Colouring
from neurostorm_bids.inputs.columns import read_column
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.names import drop_prefix
from neurostorm_bids.inputs.tsv import MISSING, read_tsv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.results import Result
    from neurostorm_bids.group.options import GroupOptions

logger = logging.getLogger(__name__)

_MAX_CLASSES = 6
_FEW_NUMBERS = 3
_MAX_CHOSEN = 4
_OTHERS = "others"
_MAX_NAMES = 12
_MAX_COLUMNS = 40
_MOST_NAMES = 0.5
"""Of the participants; a column with more different names than that tells nothing by colours."""


def choose_colourings(
    results: Sequence[Result],
    options: GroupOptions,
    *,
    targets: Iterable[str],
    roots: Sequence[Path],
) -> list[Colouring]:
    """Choose columns: those asked for, else what is predicted, the task and the session.

    Parameters
    ----------
    targets : columns with the truth, which are left out where they cannot be read.

    Raises
    ------
    UserError
        If a column that was asked for cannot be read.
    """
    rows = [result.entities for result in results]
    found = [
        make_colouring(name, read_column(name, rows, roots=roots).cells)
        for name in options.colour_by
    ]
    if not found:
        for name in dict.fromkeys(targets):
            try:
                found.append(make_colouring(name, read_column(name, rows, roots=roots).cells))
            except UserError:
                continue
        for name, key in (("task", "task"), ("session", "ses")):
            cells = [row.get(key) for row in rows]
            if name not in {one.name for one in found} and len(set(cells)) > 1:
                found.append(make_colouring(name, cells))
        found = found[:_MAX_CHOSEN]
    return found or [Colouring("all runs", ("",) * len(results))]


def list_colourings(
    results: Sequence[Result],
    first: Sequence[Colouring],
    *,
    roots: Sequence[Path],
    measured: Mapping[str, Sequence[str | None]],
) -> list[Colouring]:
    """List all that a reader may colour the map by.

    Parameters
    ----------
    first : what the list begins with.
    roots : folders of the tables; the first participants.tsv is read.
    measured : by name, a cell for each result: what is predicted, and what is known of the runs.
    """
    found = {one.name: one for one in first}
    columns = {
        "task": [result.entities.get("task") for result in results],
        "session": [result.entities.get("ses") for result in results],
        **measured,
        **_read_participants([result.participant for result in results], roots),
    }
    for name, cells in columns.items():
        if name not in found and len(set(cells) - {None}) > 1:
            found[name] = make_colouring(name, cells, max_names=_MAX_NAMES)
    return list(found.values())


def _read_participants(
    participants: Sequence[str], roots: Sequence[Path]
) -> dict[str, list[str | None]]:
    """Read the columns of participants.tsv that tell participants apart by something they share."""
    path = next((path for root in roots if (path := root / "participants.tsv").is_file()), None)
    if path is None:
        return {}
    try:
        columns = read_tsv(path).columns
    except UserError as err:
        logger.warning("The map of the embeddings cannot be coloured by %s. %s", path.name, err)
        return {}
    owners = [drop_prefix(label, "sub") for label in columns.get("participant_id", [])]
    if len(set(owners)) < len(owners):  # a row for each session: --color-by knows which is whose
        return {}
    place = {owner: at for at, owner in enumerate(owners)}
    kept: dict[str, list[str | None]] = {}
    for name, cells in columns.items():
        if name == "participant_id" or len(kept) == _MAX_COLUMNS:
            continue
        own = [cells[place[one]] if one in place else MISSING for one in participants]
        known = {cell for cell in own if cell != MISSING}
        are_names = any(parse_number(cell) is None for cell in known)
        if not are_names or len(known) <= max(_MAX_NAMES, _MOST_NAMES * len(set(participants))):
            kept[name] = [None if cell == MISSING else cell for cell in own]
    return kept


def make_colouring(
    name: str, cells: Sequence[str | None], *, max_names: int = _MAX_CLASSES
) -> Colouring:
    """Take cells as numbers if all are and there are more than a few, else as names.

    Of many names the most frequent are kept; the others share one.
    """
    known = [cell for cell in cells if cell is not None]
    numbers = {cell: parse_number(cell) for cell in known}
    if None not in numbers.values() and len(set(numbers.values())) > _FEW_NUMBERS:
        return Colouring(name, tuple(None if c is None else numbers[c] for c in cells))
    counts = Counter(known)
    kept = sorted(counts, key=lambda cell: (-counts[cell], cell))
    if len(kept) > max_names:
        kept = kept[: max_names - 1]
    return Colouring(name, tuple(c if c is None or c in kept else _OTHERS for c in cells))
