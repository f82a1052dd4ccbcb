"""Questions that PyBIDS answers: filter files, and what a raw dataset holds."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import DatasetError, UsageError
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.inputs.names import LABEL, is_same_index

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from bids.layout import BIDSLayout

logger = logging.getLogger(__name__)

FilterValue = str | int | None
Filters = dict[str, FilterValue | list[FilterValue]]

_MAX_INDEX = 2**31

# What fMRIPrep looks up by a filter file; all but "bold" mean nothing here.
_QUERIES = ("bold", "fmap", "sbref", "t1w", "t2w", "flair", "roi", "xfm")


def read_filter_file(path: Path) -> Filters:
    """Read the ``bold`` part of a filter file as fMRIPrep knows it.

    Returns
    -------
    PyBIDS entity → what it must be: a label, None for absent, ``"*"`` for any, or a list of those.

    Raises
    ------
    UsageError : it is not JSON, or has a key or a value that means nothing.
    """
    queries = read_json_object(path, error=UsageError)
    unknown = sorted(set(queries) - set(_QUERIES))
    if unknown:
        msg = f"Unknown keys {unknown} in {path}. Known are {', '.join(_QUERIES)}; bold is used."
        raise UsageError(msg)
    filters = queries.get("bold", {})
    if not isinstance(filters, dict):
        msg = f'Expected {{"entity": "label"}} under "bold" in {path}, found {filters!r:.80}.'
        raise UsageError(msg)
    if not filters:
        logger.warning('%s has no filters under "bold"; it leaves out nothing.', path)
    known = _list_entities()
    for key, value in filters.items():
        if key not in known:
            msg = f"Unknown entity {key!r} in {path}. Known are {', '.join(known)}."
            raise UsageError(msg)
        for one in value if isinstance(value, list) else [value]:
            if not _means_something(one):
                msg = f'Expected text, null, "*" or a list of them for {key!r} in {path}, found '
                raise UsageError(f"{msg}{one!r:.80}.")
    return filters


def _means_something(value: object) -> bool:
    """Tell whether PyBIDS, which asks a database, can look for a value."""
    if isinstance(value, str):
        return value.isprintable()
    return value is None or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_INDEX
    )


def find_filtered(root: Path, participants: Collection[str], filters: Filters) -> set[str]:
    """Ask PyBIDS which BOLD files of some participants pass filters.

    Only the chosen participants' ``func`` folders are indexed, in memory; nothing is written.

    Returns
    -------
    Paths relative to ``root``, with ``/``.
    """
    from bids.layout import Query  # noqa: PLC0415 (slow to import, rarely needed)

    special: dict[FilterValue, Query] = {None: Query.NONE, "*": Query.ANY}
    query: dict[str, Any] = {"suffix": "bold"}
    for key, value in filters.items():
        values = value if isinstance(value, list) else [value]
        query[key] = [special.get(one, one) for one in values]
    layout = _index(root, rf"sub-(?:{'|'.join(map(re.escape, participants))})")
    return _relative_paths(layout, root, query)


def passes_filters(name: str, filters: Filters) -> bool:
    """Tell whether a file of a given BIDS name passes filters, whatever it is called on disk."""
    from bids.layout import parse_file_entities  # noqa: PLC0415 (slow to import, rarely needed)

    found = parse_file_entities(f"/func/{name}", config=["bids", "derivatives"])

    def agrees(key: str, wanted: FilterValue) -> bool:
        if wanted is None or wanted == "*":
            return (key in found) == (wanted is not None)
        return key in found and is_same_index(str(found[key]), str(wanted))

    return all(
        any(agrees(key, one) for one in (value if isinstance(value, list) else [value]))
        for key, value in filters.items()
    )


def count_raw_bold(root: Path) -> int:
    """Count the BOLD runs of a raw dataset; echoes of one run count once."""
    from bids.layout import Query  # noqa: PLC0415 (slow to import, rarely needed)

    query = {"suffix": "bold", "echo": [Query.NONE, "1", "01"]}
    return len(_relative_paths(_index(root, rf"sub-{LABEL}"), root, query))


def _relative_paths(layout: BIDSLayout, root: Path, query: Mapping[str, Any]) -> set[str]:
    prefix = f"{root.resolve().as_posix()}/"
    return {path.removeprefix(prefix) for path in layout.get(return_type="file", **query)}


def _index(root: Path, participant: str) -> BIDSLayout:
    """Index the BOLD files of participants whose folder's name matches a regular expression."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer  # noqa: PLC0415

    bold = r"[0-9A-Za-z+_-]+_bold\.nii(?:\.gz)?"
    inside = rf"{participant}(?:/ses-{LABEL})?(?:/func(?:/{bold})?)?"
    try:
        return BIDSLayout(
            root.resolve(),
            validate=False,
            config=["bids", "derivatives"],
            indexer=BIDSLayoutIndexer(
                validate=False, index_metadata=False, ignore=[re.compile(rf"^/(?!{inside}\Z)")]
            ),
        )
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as err:
        msg = f"PyBIDS cannot index {root}: {err}. Check its dataset_description.json."
        raise DatasetError(msg) from err


def _list_entities() -> list[str]:
    from bids.layout.models import Config  # noqa: PLC0415 (slow to import, rarely needed)

    return sorted({name for kind in ("bids", "derivatives") for name in Config.load(kind).entities})
