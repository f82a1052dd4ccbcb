"""Numbers as a reader wants them."""

from __future__ import annotations

_MANY = 10_000


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def format_number(value: float) -> str:
    """Return a number as a reader wants it: of four digits, and whole numbers whole."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= _MANY else str(value)
    return f"{value:.4g}"
