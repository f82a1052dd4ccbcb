"""Sentences about many runs out of sentences about each: numbers that differ become ranges."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A number by itself: not a part of a name such as MNI152NLin6Asym, nor of a version.
_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w]|\.\d)")
_SLOT = "\0"


class Step(NamedTuple):
    """A sentence with a range in place of each number.

    Attributes
    ----------
    template : the sentence, NUL in place of numbers.
    low, high : of each number, as they were written.
    """

    template: str
    low: tuple[str, ...]
    high: tuple[str, ...]

    def tell(self) -> str:
        """Return the sentence: ``4 to 6`` where numbers differ."""
        ranges = iter(
            low if low == high else f"{low} to {high}"
            for low, high in zip(self.low, self.high, strict=True)
        )
        return re.sub(_SLOT, lambda _: next(ranges), self.template)


def read_step(sentence: str) -> Step:
    """Take the numbers out of a sentence."""
    sentence = sentence.replace(_SLOT, "")
    numbers = tuple(_NUMBER.findall(sentence))
    return Step(_NUMBER.sub(_SLOT, sentence), numbers, numbers)


def merge_steps(lists: Iterable[Sequence[Step]]) -> list[Step]:
    """Join lists of steps: those that differ only in numbers become one, the order is kept."""
    merged: dict[str, Step] = {}
    for steps in lists:
        for step in steps:
            known = merged.get(step.template, step)
            merged[step.template] = Step(
                step.template,
                tuple(map(_smaller, known.low, step.low)),
                tuple(map(_larger, known.high, step.high)),
            )
    return list(merged.values())


def _smaller(one: str, other: str) -> str:
    return one if float(one) <= float(other) else other


def _larger(one: str, other: str) -> str:
    return one if float(one) >= float(other) else other
