"""A report as one HTML file that needs nothing else: parts of a page, and the page around them.

Every function takes plain text and numbers and returns HTML.
"""

from __future__ import annotations

import base64
import math
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from neurostorm_bids.page.words import format_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Cell = str | int | float | None

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
<footer>{footer}</footer>
<script>
{script}</script>
</body>
</html>
"""


def format_page(title: str, body: Iterable[str], *, footer: str) -> str:
    """Return a whole page of parts that are HTML already; it may load nothing from anywhere."""
    data = files("neurostorm_bids") / "data"
    return _PAGE.format(
        title=escape(title),
        style=(data / "report.css").read_text(encoding="utf-8"),
        script=(data / "report.js").read_text(encoding="utf-8"),
        body="\n".join(body),
        footer=escape(footer),
    )


def format_section(title: str, *parts: str) -> str:
    """Return a section of parts that are HTML already."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def format_paragraphs(*texts: str) -> str:
    """Return a paragraph for each text."""
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def format_warnings(warnings: Sequence[str]) -> str:
    """Return a box of warnings; nothing if there are none."""
    if not warnings:
        return ""
    items = "\n".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return (
        f'<section class="warnings">\n<h2>What to beware of</h2>\n<ul>\n{items}\n</ul>\n</section>'
    )


def format_facts(facts: Mapping[str, object]) -> str:
    """Return a table of names and values."""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_format_value(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div class="scroll"><table class="facts"><tbody>\n{rows}\n</tbody></table></div>'


def format_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    caption: str,
    is_sortable: bool = False,
) -> str:
    """Return a table.

    Parameters
    ----------
    columns : their heads. A column whose first value is a number is set to the right.
    rows : a value for each column; what is missing is None or NaN. The first names the row.
    caption : what the table shows.
    is_sortable : by a click on a head.
    """
    rows = list(rows)
    numeric = [isinstance(value, int | float) for value in (rows[0] if rows else columns)]
    heads = "".join(
        f'<th scope="col"{_align(is_number)}>{escape(column)}</th>'
        for column, is_number in zip(columns, numeric, strict=True)
    )
    lines = "\n".join(f"<tr>{_format_row(row, numeric)}</tr>" for row in rows)
    kind = ' class="sortable"' if is_sortable else ""
    return (
        f'<div class="scroll"><table{kind}><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def format_picture(png: bytes, *, alt: str, caption: str) -> str:
    """Return a picture that is part of the page.

    Parameters
    ----------
    png : the picture.
    alt : what it shows, for those who cannot see it.
    caption : how to read it.
    """
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return (
        f'<figure>\n<img src="{source}" alt="{escape(alt)}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _format_row(row: Sequence[Cell], numeric: Sequence[bool]) -> str:
    first, *others = row
    cells = [f'<th scope="row"{_align(numeric[0])}{_sort_by(first)}>{_format_cell(first)}</th>']
    for value, is_number in zip(others, numeric[1:], strict=True):
        cells.append(f"<td{_align(is_number)}{_sort_by(value)}>{_format_cell(value)}</td>")
    return "".join(cells)


def _align(is_number: bool) -> str:  # noqa: FBT001 - the name of the function says it
    return ' class="number"' if is_number else ""


def _is_missing(value: Cell) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _sort_by(value: Cell) -> str:
    if isinstance(value, str):
        return ""
    return ' data-value=""' if _is_missing(value) else f' data-value="{value!r}"'


def _format_cell(value: Cell) -> str:
    if isinstance(value, str):
        return escape(value)
    return "n/a" if value is None or _is_missing(value) else format_number(value)


def _format_value(value: object) -> str:
    """Return an option or a fact in words."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_format_value(item) for item in value) or "none"
    return str(value)
