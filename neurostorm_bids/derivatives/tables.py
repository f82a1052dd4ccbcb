"""Tables: columns, what they mean, and their text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

MISSING = "n/a"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, and how BIDS declares it in the sidecar."""

    name: str
    cells: Sequence[object] | NDArray[np.float32]
    description: str
    unit: str | None = None
    levels: Mapping[str, str] | None = None

    def declare(self) -> dict[str, Any]:
        """Return the column's entry in the JSON sidecar."""
        entry: dict[str, Any] = {"Description": self.description}
        if self.unit is not None:
            entry["Units"] = self.unit
        if self.levels is not None:
            entry["Levels"] = dict(self.levels)
        return entry


def format_table(columns: Sequence[Column]) -> str:
    """Return the text of a TSV file: a header, then one line per row."""
    rows = zip(*(map(format_cell, column.cells) for column in columns), strict=True)
    lines = ["\t".join(column.name for column in columns), *("\t".join(row) for row in rows)]
    return "\n".join(lines) + "\n"


def format_cell(value: object) -> str:
    """Return one cell; what is missing or not finite is ``n/a``.

    Numbers are written with as many digits as it takes to read the same number back, in float32 or
    float64 as they come.
    """
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return MISSING
    return " ".join(str(value).split()) or MISSING


def make_column_names(stem: str, labels: Iterable[str]) -> list[str]:
    """Return ``stem_label`` per label, with nothing but ASCII letters, digits and ``_``.

    Labels that become the same, or nothing at all, get a number at the end.
    """
    names: list[str] = []
    for position, label in enumerate(labels):
        words = re.findall(r"[A-Za-z0-9]+", label)
        plain = "_".join([stem, *words])
        numbered = (f"{plain}_{number}" for number in count(position))
        candidates = chain([plain] if words else [], numbered)
        names.append(next(name for name in candidates if name not in names))
    return names
