"""Figures as the bytes of a file: PNG, or SVG in which pixels stay pixels and text stays text."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 160
_N_COLOURS = 128
_OPAQUE = 255
# The same figure is the same file: no date, no random names.
_SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "neurostorm",
    "image.composite_image": False,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_PNG_IN_SVG = re.compile(r"(?<=data:image/png;base64,)[A-Za-z0-9+/=\s]+")
_PATH = re.compile(r'(?<= d=")[^"]+')
_POINT = re.compile(r"([MLz])\s*(?:(-?[\d.]+) (-?[\d.]+))?\s*")
_TENTHS = 10


def save_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def save_svg(figure: Figure) -> bytes:
    """Return a figure as SVG, small enough for a report that is sent by mail.

    Straight lines are rounded to a tenth of a point. Images that were drawn with
    ``interpolation="none"`` keep their own pixels, and get a palette.
    """
    file = BytesIO()
    with rc_context(_SVG_STYLE):
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    text = _PATH.sub(_shorten_path, file.getvalue().decode("utf-8"))
    return _PNG_IN_SVG.sub(_shrink_png, text).encode("utf-8")


def _shorten_path(match: re.Match[str]) -> str:
    """Write a path of straight lines in steps of tenths of a point; leave others as they are."""
    path = match[0]
    if _POINT.sub("", path):
        return path
    words, here = [], (0, 0)
    for command, x, y in _POINT.findall(path):
        if command == "z":
            words.append("z")
            continue
        there = round(float(x) * _TENTHS), round(float(y) * _TENTHS)
        if command == "M":
            words.append(f"M{there[0] / _TENTHS:g} {there[1] / _TENTHS:g}")
        elif there != here:
            right, down = ((b - a) / _TENTHS for a, b in zip(here, there, strict=True))
            words.append(f"l{right:g} {down:g}")
        here = there
    return "".join(words)


def _shrink_png(match: re.Match[str]) -> str:
    """Write a PNG again, as grey levels or with a palette."""
    image = Image.open(BytesIO(base64.b64decode(match[0]))).convert("RGBA")
    *colours, opacity = image.split()
    red, green, blue = (colour.tobytes() for colour in colours)
    if min(opacity.tobytes()) < _OPAQUE:
        small = image.quantize(_N_COLOURS, method=Image.Quantize.FASTOCTREE)
    elif red == green == blue:
        small = colours[0]
    else:
        small = image.convert("RGB").quantize(_N_COLOURS)
    file = BytesIO()
    small.save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
