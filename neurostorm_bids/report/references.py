"""The literature that a methods text cites."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Reference(NamedTuple):
    """A publication; `cite` is how it is named in a text."""

    key: str
    cite: str
    authors: str
    title: str
    journal: str
    year: int
    doi: str

    def tell(self) -> str:
        """Return the entry of a list of references."""
        return f"{self.authors} ({self.year}). {self.title}. {self.journal}. doi:{self.doi}"

    def format_bibtex(self) -> str:
        """Return the entry of a BibTeX file."""
        parts = [name.removeprefix("and ") for name in self.authors.split(", ")]
        names = " and ".join(re.sub(r" ([A-Z]+)$", r", \1", name) for name in parts)
        fields = {
            "author": names,
            "title": f"{{{self.title}}}",
            "journal": self.journal.replace("&", r"\&"),
            "year": str(self.year),
            "doi": self.doi.replace("_", r"\_"),
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@article{{{self.key},\n{lines}\n}}\n"


class Citations:
    """Collects what a text cites, in the order of the text."""

    def __init__(self) -> None:
        self._used: dict[str, Reference] = {}

    def cite(self, *keys: str) -> str:
        """Return the words in brackets that cite publications; nothing for unknown ones."""
        known = read_references()
        found = [known[key] for key in keys if key in known]
        self._used.update({one.key: one for one in found})
        return f" ({'; '.join(one.cite for one in found)})" if found else ""

    def list_used(self) -> list[Reference]:
        """Return the publications, by the names of their authors."""
        return sorted(self._used.values(), key=lambda one: (one.authors.casefold(), one.year))


@lru_cache(maxsize=1)
def read_references() -> Mapping[str, Reference]:
    """Return all publications by key."""
    text = (files("neurostorm_bids") / "data" / "references.json").read_text(encoding="utf-8")
    return {entry["key"]: Reference(**entry) for entry in json.loads(text)}


def format_bibliography(references: Iterable[Reference]) -> str:
    """Return the text of a BibTeX file."""
    return "\n".join(one.format_bibtex() for one in references)
