"""The text of JSON and TOML files."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def format_json(content: object) -> str:
    """Return the text of a JSON file, readable and in UTF-8; NaN is refused."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


MAX_DEPTH = 20
"""Of lists and mappings within one another; indented, a deep one is many times its own size."""


def make_writable(value: object, *, depth: int = 0) -> object:
    """Return what stood in somebody else's JSON as `format_json` can write it.

    Python reads NaN, Infinity and halves of characters, which neither JSON nor UTF-8 have: these
    become text, and question marks. What lies deeper than `MAX_DEPTH` becomes three dots.
    """
    if isinstance(value, Mapping | list | tuple) and depth == MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {
            str(make_writable(key)): make_writable(item, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [make_writable(item, depth=depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8")
    return value


def to_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON and TOML can write them.

    Tuples become lists, paths absolute, and whatever else there is text, numbers that are not
    finite among it.
    """

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return to_plain(value)
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, Path):
            return os.path.abspath(value)  # noqa: PTH100 - Path keeps the dots in a/../b
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value if isinstance(value, str | int | float | None) else str(value)

    return {key: plain(value) for key, value in options.items()}


def format_toml(options: Mapping[str, Any]) -> str:
    """Return the text of a TOML file.

    Parameters
    ----------
    options : texts, numbers, booleans, lists, mappings, and None, which TOML has no word for and
        which is left out. Mappings at the top become tables, deeper ones inline tables.
    """
    options = {key: value for key, value in options.items() if value is not None}
    tables = {key: value for key, value in options.items() if isinstance(value, Mapping)}
    lines = [_format_pair(key, value) for key, value in options.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{_format_key(name)}]"]
        lines += [_format_pair(key, value) for key, value in table.items() if value is not None]
    return "\n".join(lines).lstrip("\n") + "\n"


def _format_pair(key: str, value: object) -> str:
    return f"{_format_key(key)} = {_format_value(value)}"


def _format_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _format_text(key)


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        items = [_format_value(item) for item in value if item is not None]
        return f"[{', '.join(items)}]"
    if isinstance(value, Mapping):
        pairs = [_format_pair(key, item) for key, item in value.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    return _format_text(str(value))


def _format_text(text: str) -> str:
    # JSON's escapes are TOML's too; JSON alone lets a raw DEL pass.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
