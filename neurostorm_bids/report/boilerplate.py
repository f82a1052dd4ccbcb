"""The methods text of a whole dataset, and what it cites: ``logs/CITATION.*``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import write_text
from neurostorm_bids.derivatives.dataset import lock_dataset, read_dataset_description
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import SelectionError, UserError
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.inputs.scan import list_participants
from neurostorm_bids.page.html import (
    format_list,
    format_page,
    format_paragraphs,
    format_section,
)
from neurostorm_bids.report.found import find_participant
from neurostorm_bids.report.methods import list_generators, tell_methods
from neurostorm_bids.report.procedures import Procedure, join_procedures, read_procedures
from neurostorm_bids.report.references import format_bibliography

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from neurostorm_bids.report.methods import Methods

logger = logging.getLogger(__name__)

_TITLE = "Methods"
_LICENCE = (
    "This text was written by neurostorm-bids from what it did. It may be copied into a paper as "
    "it is (CC0)."
)


def write_boilerplate(output_dir: Path, participants: Iterable[str] | None = None) -> None:
    """Write ``logs/CITATION.md``, ``.html``, ``.bib`` and ``.json``.

    Several processes may call this at the same time, each with its own participants: it works
    under a lock, and adds to what ``CITATION.json`` holds.

    Parameters
    ----------
    participants : whose results are told of, besides what is told already; None to tell of all
        that are there, and of nothing else.

    Raises
    ------
    SelectionError
        If nobody has results.
    OutputError, TemporaryError
        If the files cannot be written.
    """
    labels = list(list_participants(output_dir)) if participants is None else list(participants)
    found = [one for label in labels for one in _read_participant(output_dir, label)]
    folder = output_dir / "logs"
    with lock_dataset(output_dir):
        known = [] if participants is None else _read_known(folder / "CITATION.json")
        procedures = join_procedures([*known, *found])
        if not procedures:
            raise SelectionError(
                f"There are no results in {output_dir} to tell of. Run the participant level first."
            )
        generators = list_generators(read_dataset_description(output_dir))
        methods = tell_methods(procedures, generators)
        texts = {
            "CITATION.md": _format_markdown(methods),
            "CITATION.html": _format_html(methods),
            "CITATION.bib": format_bibliography(methods.references),
            "CITATION.json": format_json(
                {
                    "Description": "What CITATION.md tells, for later calls to add to.",
                    "Procedures": [one.to_dict() for one in procedures],
                }
            ),
        }
        for name, text in texts.items():
            if not _is_there(folder / name, text):
                write_text(folder / name, text)
    logger.info("Wrote %s", "logs/CITATION.md")


def _read_participant(output_dir: Path, label: str) -> list[Procedure]:
    try:
        found = find_participant(output_dir, label)
    except UserError as err:
        logger.debug("Nothing to tell of sub-%s: %s", label, err)
        return []
    results = [result for run in found.runs for result in run.results]
    return read_procedures(results, found.attributions)


def _read_known(path: Path) -> list[Procedure]:
    """Return what is told already; nothing if that cannot be understood."""
    if not path.is_file():
        return []
    try:
        return [Procedure.from_dict(one) for one in read_json_object(path)["Procedures"]]
    except (UserError, KeyError, TypeError, ValueError) as err:
        logger.warning("logs/CITATION.json cannot be added to and is written anew: %s", err)
        return []


def _is_there(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def _format_markdown(methods: Methods) -> str:
    lines = [f"# {_TITLE}", "", _LICENCE, ""]
    for paragraph in methods.paragraphs:
        lines += [paragraph, ""]
    lines += ["## References", ""]
    lines += [f"- {one.tell()}" for one in methods.references]
    return "\n".join(lines) + "\n"


def _format_html(methods: Methods) -> str:
    body = [
        format_paragraphs(_LICENCE, *methods.paragraphs),
        format_section("References", format_list(one.tell() for one in methods.references)),
    ]
    return format_page(_TITLE, body, footer=f"Written by neurostorm-bids {__version__}.")
