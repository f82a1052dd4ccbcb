"""What a backbone was trained on before: marks of files, by which their use is noticed later.

A mark is the beginning of a hash of a file's contents. Whoever holds the file can tell whether it
was among them; nobody else learns anything, for it tells neither names nor datasets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import DataError
from neurostorm_bids.model import fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MARK_DIGITS = 12
"""Of a mark, hexadecimal: among 50,000 files and 10,000, two alike by chance in 1 of 500,000."""

MAX_MARKS = 50_000
"""Of all lessons of a backbone; the configuration that holds them is of bounded size."""

_MARKS = re.compile(rf"(?:[0-9a-f]{{{MARK_DIGITS}}}(?: [0-9a-f]{{{MARK_DIGITS}}})*)?")


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One training of a backbone.

    Attributes
    ----------
    target : what it learnt; None for pretraining.
    marks : of the files that it learnt from, with blanks between them.
    """

    target: str | None
    marks: str

    def __post_init__(self) -> None:
        if self.target is not None:
            fields.check_type(self, "target", str, expected="a text")
        fields.check_type(self, "marks", str, expected="a text")
        if len(self.marks) > MAX_MARKS * (MARK_DIGITS + 1) or not _MARKS.fullmatch(self.marks):
            raise DataError(
                f"Lesson: expected marks of {MARK_DIGITS} hexadecimal digits, {MAX_MARKS:,} at "
                f"most, found {self.marks[:80]!r}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Lesson:
        """Read what `dataclasses.asdict` gave; raise `DataError` for anything else."""
        return fields.from_dict(cls, values)


def mark_file(fingerprint: str) -> str:
    """Return the mark of a file, from a hash of its contents in hexadecimal."""
    return fingerprint[:MARK_DIGITS]


def add_lesson(
    lessons: tuple[Lesson, ...], target: str | None, fingerprints: Iterable[str | None]
) -> tuple[Lesson, ...]:
    """Return the lessons of a backbone with one more.

    The new one is left out where it would be too long, or where not all files are known: half a
    list would be taken for a whole one.
    """
    found = list(fingerprints)
    marks = sorted({mark_file(one) for one in found if one is not None})
    n_before = sum(len(lesson.marks.split()) for lesson in lessons)
    if None in found or not marks or n_before + len(marks) > MAX_MARKS:
        return lessons
    return (*lessons, Lesson(target=target, marks=" ".join(marks)))
