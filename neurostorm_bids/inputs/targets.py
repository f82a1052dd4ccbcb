"""What is to be predicted: the values of a column as classes or numbers, and what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.columns import Column, Level, read_column
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.names import natural_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Kind = Literal["classification", "regression"]

_USUAL_CODES = {-9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0}
_MAX_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Target:
    """One value to predict for each row that was asked for.

    Attributes
    ----------
    name : of the column.
    source : where it comes from, in words.
    kind : classification or regression.
    why : how the kind was found, in words.
    level : what a value belongs to: participant, session, run or clip.
    classes : names of the classes; for two classes the second is the one that is predicted.
    unit : of a regression target, from the sidecar; None if it names none.
    participants : label of the participant of each row.
    keys : what the value of each row belongs to: rows with the same key share one value.
    values : a class name or a number; None where a row was left out.
    reasons : why it was left out; None where it was not.
    notes : what was found on the way, in sentences.
    """

    name: str
    source: str
    kind: Kind
    why: str
    level: Level
    classes: tuple[str, ...] = ()
    unit: str | None = None
    participants: tuple[str, ...]
    keys: tuple[str, ...]
    values: tuple[str | float | None, ...]
    reasons: tuple[str | None, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which rows have a value; shape (n_rows,)."""
        return np.array([value is not None for value in self.values], dtype=bool)

    def encode(self) -> NDArray[np.float64]:
        """Return positions in `classes`, or numbers in the unit; (n_rows,), NaN where left out."""
        codes: Mapping[str | float | None, float] = {
            name: float(code) for code, name in enumerate(self.classes)
        }
        if self.kind == "regression":
            return np.array(
                [np.nan if value is None else value for value in self.values], dtype=np.float64
            )
        return np.array([codes.get(value, np.nan) for value in self.values], dtype=np.float64)

    def describe(self) -> list[str]:
        """Say what the target is and what was left out, in lines for a person to read."""
        shared = dict(zip(self.keys, self.values, strict=True))
        known = [value for value in shared.values() if value is not None]
        of = f"{self.name} ({self.source}): {self.kind}, {self.why}"
        unit = self.level
        if self.kind == "classification":
            counts = Counter(known)
            listed = ", ".join(f"{name} {counts[name]}" for name in self.classes[:_MAX_SHOWN])
            more = ", ..." if len(self.classes) > _MAX_SHOWN else ""
            what = f"{len(known)} {unit}(s) in {len(self.classes)} classes: {listed}{more}"
        else:
            numbers = np.array(known, dtype=np.float64)
            what = (
                f"{len(known)} {unit}(s), {numbers.min():g} to {numbers.max():g}, mean "
                f"{numbers.mean():.4g}, SD {numbers.std(ddof=1):.3g} "
                f"{self.unit or '(the sidecar names no unit)'}"
            )
        return [f"{of}. {what}.", *_describe_left_out(self), *self.notes]


def read_target(
    name: str,
    rows: Sequence[Mapping[str, str]],
    *,
    roots: Sequence[Path],
    kind: Kind | None = None,
    excluded: Collection[str] | None = None,
) -> Target:
    """Read a target for every row from a dataset's tables or from the rows' names.

    Parameters are those of `columns.read_column` and `make_target`, which say what is raised.
    """
    return make_target(read_column(name, rows, roots=roots, excluded=excluded), kind=kind)


def make_target(column: Column, *, kind: Kind | None = None) -> Target:
    """Make classes or numbers of a column's text.

    Parameters
    ----------
    column : with a reason for every row that has no value.
    kind : None infers it. Values that are not all numbers are classes, and so are numbers that
        the sidecar's Levels all name, and two different numbers that each occur several times.
        All other numbers are values.

    Raises
    ------
    DataError
        If the values leave nothing to predict (none, one class, a constant, classes that all occur
        only once), or are a mixture of numbers and words and `kind` is None.
    """
    cells = _once_per_key(column)
    if not cells:
        left_out = "; ".join(_count_reasons(column.reasons, column.keys)) or "there are no rows"
        raise DataError(f"No value of {column.name!r} ({column.source}) to predict: {left_out}.")
    inferred, why = _infer_kind(column, cells) if kind is None else (kind, "as asked for")
    return (
        _make_classes(column, cells, why)
        if inferred == "classification"
        else _make_numbers(column, why)
    )


def _once_per_key(column: Column) -> list[str]:
    """Return the known cells, each as often as there are keys that have it."""
    shared = dict(zip(column.keys, column.cells, strict=True))
    return [cell for cell in shared.values() if cell is not None]


def _infer_kind(column: Column, cells: Sequence[str]) -> tuple[Kind, str]:
    counts = Counter(cells)
    numbers = {cell: parse_number(cell) for cell in counts}
    declared = column.declaration
    if column.level in {"run", "clip"}:
        return "classification", "labels of states"
    if all(declared.find_level(cell) is not None for cell in counts) and declared.unit is None:
        return "classification", "for the sidecar's Levels name all values"
    if all(number is None for number in numbers.values()):
        return "classification", "for the values are words"
    odd = [cell for cell, number in numbers.items() if number is None]
    if odd:
        raise DataError(
            f"{column.name!r} ({column.source}) mixes numbers with words ({', '.join(odd[:5])}). "
            "Say what it is: --target-kind classification takes every value as a class, "
            "--target-kind regression leaves the words out."
        )
    if declared.unit is not None:
        return "regression", "for the sidecar gives a unit"
    repeated = Counter(parse_number(cell) for cell in cells)
    if len(repeated) == 2 and min(repeated.values()) > 1:  # noqa: PLR2004
        return "classification", "for there are two different numbers"
    return "regression", "for the values are numbers"


def _make_classes(column: Column, cells: Sequence[str], why: str) -> Target:
    names, merged = _merge_spellings(cells)
    counts = Counter(names[cell] for cell in cells)
    classes = _sort_classes(column, counts)
    if len(classes) < 2:  # noqa: PLR2004
        raise DataError(
            f"Expected two classes or more in {column.name!r} ({column.source}), found only "
            f"{classes[0]!r} ({counts[classes[0]]} {column.level}(s)). "
            f"{_join(_count_reasons(column.reasons, column.keys))}"
        )
    if max(counts.values()) == 1:
        raise DataError(
            f"Each of the {len(classes)} values of {column.name!r} ({column.source}) occurs only "
            "once, so none can be learnt. If they are numbers, give --target-kind regression."
        )
    return Target(
        name=column.name,
        source=column.source,
        kind="classification",
        why=why,
        level=column.level,
        classes=classes,
        participants=column.participants,
        keys=column.keys,
        values=tuple(None if cell is None else names[cell] for cell in column.cells),
        reasons=column.reasons,
        notes=(*column.notes, *merged, *_doubt_classes(column, counts)),
    )


def _merge_spellings(cells: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Give cells that spell the same number (``1``, ``1.0``) one name: the shortest of them."""
    spellings: dict[float, set[str]] = {}
    names: dict[str, str] = {}
    for cell in set(cells):
        number = parse_number(cell)
        if number is None:
            names[cell] = cell
        else:
            spellings.setdefault(number, set()).add(cell)
    notes = []
    for group in spellings.values():
        ordered = sorted(group, key=lambda cell: (len(cell), cell))
        names |= dict.fromkeys(ordered, ordered[0])
        if len(ordered) > 1:
            notes.append(f"{', '.join(ordered)} are the same number: one class, {ordered[0]!r}.")
    return names, sorted(notes)


def _sort_classes(column: Column, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Sort classes as the sidecar does if it names all, else as numbers, else as names."""
    levels = list(column.declaration.levels)
    named = {name: column.declaration.find_level(name) for name in counts}
    if None not in named.values():
        return tuple(sorted(counts, key=lambda name: levels.index(str(named[name]))))
    numbers = {name: parse_number(name) for name in counts}
    if None not in numbers.values():
        return tuple(sorted(counts, key=lambda name: numbers[name] or 0.0))
    return tuple(sorted(counts, key=natural_key))


def _doubt_classes(column: Column, counts: Mapping[str, int]) -> list[str]:
    rare = sorted((name for name, count in counts.items() if count == 1), key=natural_key)
    folded = Counter(name.casefold() for name in counts)
    alike = sorted(name for name in counts if folded[name.casefold()] > 1)
    notes = []
    if rare:
        shown = ", ".join(rare[:_MAX_SHOWN])
        notes.append(f"{len(rare)} class(es) occur only once and cannot be tested: {shown}.")
    if alike:
        notes.append(f"Classes of {column.name!r} that differ only by case: {', '.join(alike)}.")
    return notes


def _make_numbers(column: Column, why: str) -> Target:
    values = [None if cell is None else parse_number(cell) for cell in column.cells]
    reasons = [
        f"{cell!r} is not a number" if cell is not None and value is None else reason
        for cell, value, reason in zip(column.cells, values, column.reasons, strict=True)
    ]
    known = sorted({value for value in values if value is not None})
    if len(known) < 2:  # noqa: PLR2004
        found = f"only {known[0]:g}" if known else "no number"
        raise DataError(
            f"Expected different numbers in {column.name!r} ({column.source}), found {found}. "
            f"{_join(_count_reasons(reasons, column.keys))}"
        )
    unit, notes = _find_unit(column)
    return Target(
        name=column.name,
        source=column.source,
        kind="regression",
        why=why,
        level=column.level,
        unit=unit,
        participants=column.participants,
        keys=column.keys,
        values=tuple(values),
        reasons=tuple(reasons),
        notes=(*column.notes, *notes, *_doubt_numbers(column, known)),
    )


def _find_unit(column: Column) -> tuple[str | None, list[str]]:
    unit = column.declaration.unit
    if unit is None and (column.name, column.source) == ("age", "participants.tsv"):
        return "years", ["No sidecar gives the unit of age: years, as BIDS has it."]
    return unit, []


def _doubt_numbers(column: Column, known: Sequence[float]) -> list[str]:
    """Name values that may be codes; `known` is sorted."""
    named = {
        cell: column.declaration.levels[level]
        for cell in set(column.cells) - {None}
        if (level := column.declaration.find_level(str(cell))) is not None
    }
    notes = [
        f"{cell} ({meaning!r} in the Levels of {column.name!r}) is used as a number."
        for cell, meaning in sorted(named.items(), key=str)[:_MAX_SHOWN]
    ]
    notes += [
        f"{value:g} occurs in {column.name!r} and may stand for a missing value. If so, name it "
        "in the sidecar's Levels, or write n/a."
        for value in (known[0], known[-1])
        if value in _USUAL_CODES
    ]
    return notes


def _describe_left_out(target: Target) -> list[str]:
    counted = _count_reasons(target.reasons, target.keys)
    return [f"Left out: {'; '.join(counted)}."] if counted else []


def _count_reasons(reasons: Sequence[str | None], keys: Sequence[str]) -> list[str]:
    """Count, once per key, why rows have no value; the most frequent reason first."""
    shared = dict(zip(keys, reasons, strict=True))
    counts = Counter(reason for reason in shared.values() if reason is not None)
    return [f"{count} x {reason}" for reason, count in counts.most_common(_MAX_SHOWN)]


def _join(counted: Sequence[str]) -> str:
    return f"Left out: {'; '.join(counted)}." if counted else "None was left out."
