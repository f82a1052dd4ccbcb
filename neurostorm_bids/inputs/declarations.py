"""What a JSON sidecar declares of a table's column: unit, levels, and codes for a missing value."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.inputs.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

# A level is a code for a missing value when its text says so and nothing else: "Missing data",
# "not collected", "declined to answer", but not "Unknown face".
_WORDS = "missing|unknown|unspecified|undefined|unavailable|invalid|refused|declined|withheld"
_PHRASES = (
    r"n/?a|no (data|answer|response|value|information)|prefer(s|red)? not to \w+|"
    r"(do not|don't|did not|didn't|does not|doesn't) (know|answer|respond|say)|"
    "(not|never) (available|applicable|known|recorded|reported|collected|acquired|measured|"
    "assessed|administered|answered|done|tested|provided|given|asked|specified|determined)"
)
_MEANS_MISSING = re.compile(
    "((data|values?|answers?|responses?|information|item|question|participant|subject) )?"
    "((is|are|was|were|has|have) )?"
    f"(({_WORDS})( (data|values?|answers?|responses?|information|to (answer|say|respond)))?"
    f"|{_PHRASES})"
    r"(\s*[(,;:/.].*| (at|by|in|for|on|during|from|because|due|since) .*)?"
)


class Declaration(NamedTuple):
    """What is declared of a column.

    Attributes
    ----------
    unit : as the sidecar spells it, or None.
    levels : what values mean, by value.
    notes : what could not be read in it.
    """

    unit: str | None
    levels: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def find_level(self, cell: str) -> str | None:
        """Return the declared value that a cell holds, as text or as the same number."""
        if cell in self.levels:
            return cell
        number = parse_number(cell)
        same = (value for value in self.levels if parse_number(value) == number)
        return None if number is None else next(same, None)

    def explain_missing(self, cell: str) -> str | None:
        """Return the words by which the levels call a cell's value missing, if they do."""
        value = self.find_level(cell)
        meaning = "" if value is None else self.levels[value]
        text = " ".join(meaning.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
        return meaning if _MEANS_MISSING.fullmatch(text) else None


NOTHING = Declaration(None, {})


def parse_number(cell: str) -> float | None:
    """Return a finite number spelt with digits, a point and an exponent; None for all else."""
    if _NUMBER.fullmatch(cell) is None:
        return None
    number = float(cell)
    return number if math.isfinite(number) else None


def parse_numbers(cells: Iterable[str]) -> NDArray[np.float64]:
    """Return the numbers of a column, as of `parse_number`; NaN where there is none."""
    numbers = (parse_number(cell) for cell in cells)
    return np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)


def read_declaration(
    sidecar: Path, column: str, *, dataset_root: Path | None = None
) -> Declaration:
    """Read what a sidecar declares of a column; nothing if there is no such file or entry.

    Raises
    ------
    MissingFileError, ReadError, DataError : the file is there and cannot be read. It may name
        codes for missing values, so it is not passed over.
    """
    if not sidecar.is_symlink() and not sidecar.exists():
        return NOTHING
    entry = read_json_object(sidecar, dataset_root=dataset_root).get(column)
    if entry is None:
        return NOTHING
    if not isinstance(entry, dict):
        return Declaration(
            None, {}, (f"{sidecar.name} does not describe {column!r} as BIDS asks.",)
        )
    notes = []
    unit = entry.get("Units")
    if unit is not None and not isinstance(unit, str):
        notes.append(f"{sidecar.name}: the Units of {column!r} are no text and were not read.")
        unit = None
    levels = entry.get("Levels", {})
    if not isinstance(levels, dict):
        notes.append(f"{sidecar.name}: the Levels of {column!r} are no object and were not read.")
        levels = {}
    return Declaration(
        unit=(unit or "").strip() or None,
        levels={value.strip(): _describe(meaning) for value, meaning in levels.items()},
        notes=tuple(notes),
    )


def _describe(meaning: object) -> str:
    """Return the text of a level, which BIDS allows to be an object with a description."""
    text = meaning.get("Description") if isinstance(meaning, dict) else meaning
    return text if isinstance(text, str) else ""
