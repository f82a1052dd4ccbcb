"""Names of an atlas's regions: found beside the image, and believed only where they fit it."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from neurostorm_bids.errors import DataError, ReadError
from neurostorm_bids.inputs.files import check_readable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

MAX_TABLE_BYTES = 10_000_000

_INDEX_COLUMNS = ("index", "component")
_NAME_COLUMNS = ("name", "label", "difumo_names")
_TABLE_SUFFIXES = (".tsv", ".csv", ".txt")
_BACKGROUND = re.compile(r"background|unknown|none|\?*|n/?a", re.IGNORECASE)
_ONLY_A_NUMBER = re.compile(r"(roi|region|label|parcel|area|node)?[\s_-]*\d+", re.IGNORECASE)
_SHOWN = 5  # examples in a message


def find_label_table(image: Path) -> Path | None:
    """Find the table that belongs to an atlas image, or None.

    A table of the same name with another ending (``.tsv``, ``.csv``, ``.txt``); else, by BIDS
    inheritance, a TSV with the same suffix whose entities are some of the image's, the more the
    better; else ``labels.tsv`` or ``labels.csv``.
    """
    stem = image.name.removesuffix(".gz").removesuffix(".nii")
    own = [image.with_name(f"{stem}{kind}") for kind in _TABLE_SUFFIXES]
    own.append(image.with_name(f"{stem}.nii.txt"))  # as AAL3 is distributed
    parts = set(stem.split("_"))
    inherited = [
        path
        for path in sorted(image.parent.glob(f"*_{stem.rpartition('_')[2]}.tsv"))
        if set(path.stem.split("_")) <= parts
    ]
    inherited.sort(key=lambda path: len(path.stem.split("_")), reverse=True)
    beside = [image.with_name("labels.tsv"), image.with_name("labels.csv")]
    found = (path for path in (*own, *inherited, *beside) if path.is_file() and path.stat().st_size)
    return next(found, None)


def read_label_table(path: Path) -> list[tuple[int, str]]:
    """Read the rows of a table of regions: index and name.

    Parameters
    ----------
    path : TSV or CSV with a column ``index`` (or ``Component``) and a column ``name`` (or
        ``label``, or ``Difumo_names``); or text with an index and a name at the start of each line.

    Raises
    ------
    MissingFileError, ReadError
        If the table is not there or cannot be read.
    DataError
        If it is no such table.
    """
    if check_readable(path) > MAX_TABLE_BYTES:
        raise DataError(f"Expected a table of at most {MAX_TABLE_BYTES} bytes; found {path}.")
    try:
        content = path.read_bytes()
    except OSError as err:
        raise ReadError(f"{path} cannot be read: {err.strerror}. Check its disk.") from err
    try:
        lines = content.decode("utf-8-sig").splitlines()
        rows = _split_text(lines) if path.suffix == ".txt" else _split_columns(path, lines)
        return [(int(index), name.strip()) for index, name in rows]
    except (ValueError, csv.Error) as err:
        raise DataError(
            f"{path} is not a table of regions: {err}. Expected a column {_INDEX_COLUMNS[0]!r} of "
            f"whole numbers and a column {_NAME_COLUMNS[0]!r}. Correct the table, or remove it."
        ) from err


def match_names(
    regions: Collection[int], rows: Sequence[tuple[int, str]], *, table: str
) -> tuple[dict[int, str], tuple[str, ...]]:
    """Give every region its name, or its number where the table does not fit the image.

    A table that contradicts the image anywhere is not believed at all: it may be off by one.

    Parameters
    ----------
    regions : the numbers in the image, without 0.
    rows : index and name, from `read_label_table`; none if there is no table.
    table : what the warning calls the table.

    Returns
    -------
    The names by number, and a warning if they are only numbers.
    """
    doubts = list(_find_doubts(regions, rows))
    if not doubts:
        names = dict(rows)
        return {region: names[region] for region in sorted(regions)}, ()
    warning = (
        f"Regions are called by their numbers, for the names in {table} were not used: "
        f"{'; '.join(doubts)}. Correct the table, or give the one that belongs to the image."
    )
    return {region: f"region {region}" for region in sorted(regions)}, (warning,)


def _find_doubts(regions: Collection[int], rows: Sequence[tuple[int, str]]) -> Iterator[str]:
    names = dict(rows)
    if not rows:
        yield "there are none"
        return
    if len(names) < len(rows):
        yield "some numbers have more than one row"
    if not _BACKGROUND.fullmatch(names.get(0, "")):
        yield f"0, the background, is called {names[0]!r}, so the table counts from 0"
    misplaced = [i for i in regions if i in names and _BACKGROUND.fullmatch(names[i])]
    if misplaced:
        yield (
            f"{_list_some(misplaced)} in the image are regions, not {names[misplaced[0]]!r}, so "
            "the table seems shifted"
        )
    nameless = [region for region in regions if region not in names]
    if nameless:
        yield f"{len(nameless)} regions of the image are not in it ({_list_some(nameless)})"
    if all(_ONLY_A_NUMBER.fullmatch(name) for _, name in rows):
        yield f"they name nothing ({rows[0][1]!r}, {rows[-1][1]!r})"


def _list_some(numbers: Collection[int]) -> str:
    shown = ", ".join(map(str, sorted(numbers)[:_SHOWN]))
    return f"{shown}, …" if len(numbers) > _SHOWN else shown


def _split_text(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.strip():
            index, name, *_ = [*line.split(), ""]
            yield index, name


def _split_columns(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    reader = csv.DictReader(lines, restval="", delimiter="\t" if path.suffix == ".tsv" else ",")
    columns = {column.strip().lower(): column for column in reader.fieldnames or ()}
    index, name = (
        next((columns[key] for key in keys if key in columns), None)
        for keys in (_INDEX_COLUMNS, _NAME_COLUMNS)
    )
    if index is None or name is None:
        raise ValueError(f"its columns are {list(columns.values())}")
    for row in reader:
        yield row[index], row[name] or ""
