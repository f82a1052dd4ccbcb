"""What the map of the embeddings is coloured by."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from neurostorm_bids.errors import UserError
from neurostorm_bids.group.pictures import Colouring
from neurostorm_bids.inputs.columns import read_column
from neurostorm_bids.inputs.declarations import parse_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.results import Result
    from neurostorm_bids.group.options import GroupOptions

_MAX_CLASSES = 6
_FEW_NUMBERS = 3
_MAX_CHOSEN = 4
_OTHERS = "others"


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


def make_colouring(name: str, cells: Sequence[str | None]) -> Colouring:
    """Take cells as numbers if all are and there are more than a few, else as names.

    Of many names the most frequent are kept; the others share one.
    """
    known = [cell for cell in cells if cell is not None]
    numbers = {cell: parse_number(cell) for cell in known}
    if None not in numbers.values() and len(set(numbers.values())) > _FEW_NUMBERS:
        return Colouring(name, tuple(None if c is None else numbers[c] for c in cells))
    counts = Counter(known)
    kept = sorted(counts, key=lambda cell: (-counts[cell], cell))
    if len(kept) > _MAX_CLASSES:
        kept = kept[: _MAX_CLASSES - 1]
    return Colouring(name, tuple(c if c is None or c in kept else _OTHERS for c in cells))
