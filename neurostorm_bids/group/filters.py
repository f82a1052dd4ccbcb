"""Filter files, applied to the names of the BOLD files that results were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.inputs.names import is_same_index
from neurostorm_bids.inputs.queries import read_filter_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neurostorm_bids.inputs.queries import FilterValue


def read_filters(path: Path | None) -> Callable[[str], bool]:
    """Read a filter file; return what tells whether a BOLD file's name passes it.

    Raises
    ------
    UsageError : it is not JSON, or has a key or a value that means nothing.
    """
    if path is None:
        return lambda name: True  # noqa: ARG005 - the name of a file
    filters = read_filter_file(path)

    def passes(name: str) -> bool:
        from bids.layout import parse_file_entities  # noqa: PLC0415 (slow, rarely needed)

        found = parse_file_entities(f"/{name}", config=["bids", "derivatives"])
        return all(
            any(_agrees(found.get(key), one) for one in _as_list(value))
            for key, value in filters.items()
        )

    return passes


def _as_list(value: FilterValue | list[FilterValue]) -> list[FilterValue]:
    return value if isinstance(value, list) else [value]


def _agrees(found: object, wanted: FilterValue) -> bool:
    """Compare an entity, None for absent, with a label, None for absent or ``"*"`` for any."""
    if found is None or wanted is None:
        return found is None and wanted is None
    return wanted == "*" or is_same_index(str(found), str(wanted))
