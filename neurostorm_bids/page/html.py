"""A report as one HTML file that needs nothing else: parts of a page, and the page around them.

Every function takes plain text and numbers and returns HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from neurostorm_bids.page.words import format_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Link(NamedTuple):
    """A text that leads to a file beside the page."""

    text: str
    path: str


Cell = str | int | float | Link | None

CHART = '<figure class="chart">'
"""How a chart begins in a page."""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; \
form-action 'none'">
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
{scripts}
</body>
</html>
"""
_MANY_ROWS = 25
# Both can be reached and scrolled by the keyboard; only what is tall is a landmark of the page.
_WIDE = '<div class="scroll" tabindex="0" role="group" aria-label="{label}">'
_TALL = '<div class="scroll tall" tabindex="0" role="region" aria-label="{label}">'
_WITHOUT_SCRIPTS = """\
<noscript><p class="note">Scripts are off: charts are still pictures, and tables cannot be sorted or
filtered. Nothing is missing.</p></noscript>"""


def format_page(
    title: str, body: Iterable[str], *, footer: str, scripts: Iterable[str] = ()
) -> str:
    """Return a whole page of parts that are HTML already; it may load nothing from anywhere.

    Parameters
    ----------
    scripts : programs to run after that of the tables. Nothing else runs: the page names each of
        its scripts by a checksum.
    """
    programs = [f"\n{program}" for program in (read_page_file("report.js"), *scripts)]
    return _PAGE.format(
        title=escape(title),
        style=read_page_file("report.css"),
        allowed=" ".join(map(_name_script, programs)),
        body="\n".join([_WITHOUT_SCRIPTS, *body]),
        footer=escape(footer),
        scripts="\n".join(f"<script>{program}</script>" for program in programs),
    )


def read_page_file(name: str) -> str:
    """Return the text of a program or a style that pages are made with."""
    return (files("neurostorm_bids") / "data" / name).read_text(encoding="utf-8")


def _name_script(program: str) -> str:
    """Return what allows a script in a Content-Security-Policy: its checksum.

    Raises
    ------
    ValueError
        If a page would take a part of it for its end.
    """
    if "</script" in program.lower() or "\r" in program:
        raise ValueError("A script within a page may hold no end of a script, and no return.")
    digest = hashlib.sha256(program.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def format_section(title: str, *parts: str, anchor: str = "") -> str:
    """Return a section of parts that are HTML already.

    Parameters
    ----------
    anchor : for `format_contents` to lead to.
    """
    content = "\n".join(part for part in parts if part)
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<section{name}>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def format_contents(titles: Mapping[str, str]) -> str:
    """Return links to the sections of a page: their titles by anchor."""
    items = "\n".join(
        f'<li><a href="#{escape(anchor)}">{escape(title)}</a></li>'
        for anchor, title in titles.items()
    )
    return f'<nav aria-label="Contents">\n<ul>\n{items}\n</ul>\n</nav>'


def format_heading(title: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(title)}</h3>"


def format_list(texts: Iterable[str]) -> str:
    """Return a list with an item for each text."""
    items = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>\n{items}\n</ul>"


def format_verbatim(text: str, *, label: str) -> str:
    """Return text as it is, such as a traceback, that can be scrolled by keyboard."""
    return f'<pre tabindex="0" role="region" aria-label="{escape(label)}">{escape(text)}</pre>'


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


def format_facts(facts: Mapping[str, object], *, label: str) -> str:
    """Return a table of names and values; `label` says of what, to those who cannot see it."""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_format_value(value))}</td></tr>'
        for name, value in facts.items()
    )
    frame = _WIDE.format(label=escape(label))
    return f'{frame}<table class="facts"><tbody>\n{rows}\n</tbody></table></div>'


def format_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    caption: str,
    is_sortable: bool = False,
    is_filterable: bool = False,
) -> str:
    """Return a table.

    Parameters
    ----------
    columns : their heads. A column that holds any number is set to the right.
    rows : a value for each column; what is missing is None or NaN. The first names the row.
    caption : what the table shows; may be empty where the text around it says so.
    is_sortable : by a click on a head.
    is_filterable : by a text that rows must hold.
    """
    rows = list(rows)
    numeric = [
        any(isinstance(row[place], int | float) for row in rows) for place in range(len(columns))
    ]
    heads = "".join(
        f'<th scope="col"{_align(is_number)}>{escape(column)}</th>'
        for column, is_number in zip(columns, numeric, strict=True)
    )
    lines = "\n".join(f"<tr>{_format_row(row, numeric)}</tr>" for row in rows)
    kinds = ["sortable"] * is_sortable + ["filterable"] * is_filterable
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    is_tall = is_filterable and len(rows) > _MANY_ROWS
    frame = (_TALL if is_tall else _WIDE).format(label=escape(caption or ", ".join(columns)))
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f"{frame}<table{kind}>{title}\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def format_picture(image: bytes, *, alt: str, caption: str, media: str = "image/png") -> str:
    """Return a picture that is part of the page.

    Parameters
    ----------
    image : the picture; scripts in an SVG do not run.
    alt : what it shows, for those who cannot see it.
    caption : how to read it.
    media : its type.
    """
    source = f"data:{escape(media)};base64,{base64.b64encode(image).decode('ascii')}"
    return (
        f'<figure>\n<img src="{source}" alt="{escape(alt)}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def format_chart(png: bytes, chart: Mapping[str, object], *, alt: str, caption: str) -> str:
    """Return a picture in whose place a chart is drawn where scripts run, but not on paper.

    Parameters
    ----------
    png, alt, caption : see `format_picture`.
    chart : what the page's script reads, of values that JSON knows.
    """
    picture = format_picture(png, alt=alt, caption=caption)
    block = f'<script type="application/json">{embed_json(chart)}</script>'
    place = f'<div class="plot" role="group" aria-label="{escape(alt)}" hidden></div>'
    return picture.replace("<figure>", CHART, 1).replace(
        "<figcaption>", f"{place}\n{block}\n<figcaption>", 1
    )


def embed_json(value: object) -> str:
    """Return JSON that a page cannot take for HTML, whatever texts it holds.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


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
    if isinstance(value, str | Link):
        return ""
    return ' data-value=""' if _is_missing(value) else f' data-value="{value!r}"'


def _format_cell(value: Cell) -> str:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Link):
        return f'<a href="{escape(quote(value.path))}">{escape(value.text)}</a>'
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
