"""A picture with all that a page says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "figures"
"""Of the figures of a participant, and the desc of the file that tells of a run's."""

# Told apart by the colour-blind, and each with a contrast of at least 3 : 1 to white.
COLOURS = ("#0060a8", "#b03a00", "#6a2c91", "#00735c", "#8a6100", "#1b1b1b")
GREY = "#8c8c8c"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure.

    Attributes
    ----------
    kind : a word of letters for its file's name.
    title : a heading.
    extension : ``.svg`` or ``.png``.
    content : the file.
    alt : what it shows, for those who cannot see it.
    caption : how to read it.
    measures : numbers found on the way, by name.
    """

    kind: str
    title: str
    extension: str
    content: bytes
    alt: str
    caption: str
    measures: Mapping[str, float] = field(default_factory=dict)
