"""Tables of other people (TSV), read with care: every row as long as the header, or an error."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.errors import DataError, ReadError
from neurostorm_bids.inputs.files import check_readable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

MAX_TSV_BYTES = 100_000_000

MISSING = "n/a"


class Table(NamedTuple):
    """A table of text.

    Attributes
    ----------
    path : where it was read.
    columns : cells by column name, in the file's order, without blanks at their ends.
    lines : line of the file that each row ends in, from 1.
    notes : what was mended in reading.
    """

    path: Path
    columns: Mapping[str, list[str]]
    lines: list[int]
    notes: tuple[str, ...]


def read_header(path: Path, *, dataset_root: Path | None = None) -> list[str]:
    """Read the names of a table's columns and nothing below them; raises as `read_tsv` does."""
    _check_size(path, dataset_root)
    return _read_names(_iterate(path), path)


def read_tsv(
    path: Path, *, columns: Collection[str] | None = None, dataset_root: Path | None = None
) -> Table:
    """Read a TSV file in which every row has as many cells as the header.

    Line ends of any system, a byte order mark, empty lines and quoted cells are read; blanks at
    the ends of cells are removed, and that is noted.

    Parameters
    ----------
    path : UTF-8, at most 100 MB.
    columns : which of them to keep; None keeps all. Absent ones are no error.
    dataset_root : for the command that fetches a file which is only a link.

    Raises
    ------
    MissingFileError, ReadError : the file is not there, or cannot be read.
    DataError : it is too long, is not UTF-8, has rows of another length than the header, or
        columns with the same name or none.
    """
    _check_size(path, dataset_root)
    rows = _iterate(path)
    names = _read_names(rows, path)
    kept = [(name, at) for at, name in enumerate(names) if columns is None or name in columns]
    cells: dict[str, list[str]] = {name: [] for name, _ in kept}
    lines: list[int] = []
    stripped: Counter[str] = Counter()
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"Expected {len(names)} cells in every row, as in the header; found {len(row)} in "
                f"line {line} of {path}. Missing values are written n/a. Correct the file."
            )
        lines.append(line)
        for name, at in kept:
            cell = row[at].strip()
            stripped[name] += cell != row[at]
            cells[name].append(cell)
    notes = tuple(
        f"{path.name}: removed blanks at the ends of {count} cell(s) of column {name!r}."
        for name, count in stripped.items()
        if count
    )
    return Table(path=path, columns=cells, lines=lines, notes=notes)


def _check_size(path: Path, dataset_root: Path | None) -> None:
    size = check_readable(path, dataset_root=dataset_root)
    if size > MAX_TSV_BYTES:
        raise DataError(
            f"Expected a table of at most {MAX_TSV_BYTES} bytes, found {size}: {path}. "
            "Keep only the columns that are needed."
        )


def _read_names(rows: Iterator[tuple[int, Sequence[str]]], path: Path) -> list[str]:
    _, header = next(rows, (0, ()))
    names = [name.strip() for name in header]
    if not names:
        raise DataError(f"Expected a table with a header, found an empty file: {path}.")
    if "" in names:
        raise DataError(
            f"Expected a name for every column, found none for column {names.index('') + 1} of "
            f"{path}. Name it or remove it."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"Expected different names of columns, found {twice} twice in {path}.")
    return names


def _iterate(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the line number and the cells of every line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t", strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except OSError as err:
        raise ReadError(
            f"{path} cannot be read: {err.strerror}. Check its permissions and its disk."
        ) from err
    except UnicodeDecodeError as err:
        raise DataError(
            f"Expected UTF-8, found something else in {path}: {err}. Save the table as UTF-8."
        ) from err
    except csv.Error as err:
        raise DataError(f"{path} is not a table of tab-separated values: {err}.") from err
