"""Checks of configuration fields, and their way to and from JSON values."""

from __future__ import annotations

import sys
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from neurostorm_bids.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Return the fields of a configuration as JSON writes them."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
    }


def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Make a configuration of these values, which name its fields: no more, and none missing."""
    try:
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    except AttributeError as err:
        raise DataError(f"{cls.__name__}: expected named values, found {values!r}.") from err
    unexpected = sorted(str(name) for name in set(values) - {field.name for field in fields(cls)})
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
    if unexpected or missing:
        raise DataError(f"{cls.__name__}: missing {missing}, unexpected {unexpected}.")
    return cls(**values)


def check_type(config: object, name: str, kind: type, *, expected: str) -> None:
    """Raise `DataError` unless the field is of this type; `expected` says it in words."""
    if not isinstance(getattr(config, name), kind):
        _fail(config, name, expected)


def check_choice(config: object, name: str, choices: Sequence[str]) -> None:
    """Raise `DataError` unless the field is one of these words."""
    if getattr(config, name) not in choices:
        _fail(config, name, "one of " + ", ".join(choices))


def check_int(config: object, name: str, *, low: int, high: int) -> None:
    """Raise `DataError` unless the field is a whole number within these bounds, both included."""
    if not _is_int(getattr(config, name), low, high):
        _fail(config, name, f"a whole number from {low} to {high}")


def check_real(config: object, name: str, *, low: float, high: float) -> None:
    """Raise `DataError` unless the field is a finite number within these bounds, both included."""
    value = getattr(config, name)
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared, not converted: JSON may hold whole numbers that no float can.
    if not is_real or not abs(value) <= sys.float_info.max or not low <= value <= high:
        _fail(config, name, f"a finite number from {low} to {high}")


def check_sizes(config: object, name: str, *, length: int | None, high: int) -> None:
    """Raise `DataError` unless the field is a tuple of `length` (None: any) sizes up to `high`."""
    sizes = getattr(config, name)
    fits = isinstance(sizes, tuple) and len(sizes) == (length or len(sizes)) and len(sizes) > 0
    if not fits or not all(_is_int(size, 1, high) for size in sizes):
        count = "a list of" if length is None else str(length)
        _fail(config, name, f"{count} whole numbers from 1 to {high}")


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _fail(config: object, name: str, expected: str) -> None:
    raise DataError(
        f"{type(config).__name__}: expected {expected} as {name}, found {getattr(config, name)!r}."
    )
