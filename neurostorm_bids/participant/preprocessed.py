"""What fMRIPrep has made of the raw runs that a call chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.inputs.files import list_names
from neurostorm_bids.inputs.names import join_entities, natural_key, parse_name
from neurostorm_bids.inputs.queries import passes_filters, read_filter_file
from neurostorm_bids.inputs.scan import find_func_folders, list_participants
from neurostorm_bids.inputs.selection import choose_participants, explain_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from neurostorm_bids.inputs import Selection
    from neurostorm_bids.inputs.names import BidsName

_NOT_OF_A_RUN = {"echo", "part", "space", "cohort", "res", "den", "desc"}
"""Entities of one echo or part, which fMRIPrep combines, and of the grid that a run lies on."""


class Preprocessed(NamedTuple):
    """What there is of a participant.

    Attributes
    ----------
    has_report : whether fMRIPrep's page is there, which it writes last, after a failure too.
    n_runs : chosen raw runs with BOLD in a wanted space.
    missing : names of the other chosen raw runs.
    """

    has_report: bool
    n_runs: int
    missing: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do for fMRIPrep."""
        return self.has_report and self.n_runs > 0 and not self.missing


def look_at_results(
    folder: Path, bids_dir: Path, selection: Selection, *, spaces: Collection[str]
) -> dict[str, Preprocessed]:
    """Compare fMRIPrep's folder with the raw runs chosen, by names: participant → what there is.

    Parameters
    ----------
    spaces : standard spaces, of which a run needs one.

    Raises
    ------
    SelectionError, UsageError
        If the selection names nobody, or its filter file is none.
    """
    people = list_participants(bids_dir)
    runs = replace(selection, space=None)  # raw runs have none
    filters = None if selection.filter_file is None else read_filter_file(selection.filter_file)
    found: dict[str, Preprocessed] = {}
    for label in choose_participants(people, selection):
        raw = {
            _name_run(name)
            for name in _list_bold(people[label])
            if explain_labels(name.entities, runs) is None
            and (filters is None or passes_filters(_spell(name), filters))
        }
        there = {
            _name_run(name)
            for name in _list_bold(folder / f"sub-{label}")
            if name.entities.get("space") in spaces
        }
        found[label] = Preprocessed(
            has_report=_has_report(folder, label),
            n_runs=len(raw & there),
            missing=tuple(sorted(raw - there, key=natural_key)),
        )
    return found


def _has_report(folder: Path, label: str) -> bool:
    """Tell whether fMRIPrep's page is there; that of many sessions is in parts."""
    own = (folder / f"sub-{label}.html", *folder.glob(f"sub-{label}_*.html"))
    return any(path.is_file() for path in own)


def _list_bold(participant: Path) -> Iterator[BidsName]:
    if not participant.is_dir():
        return
    for folder in find_func_folders(participant).values():
        for file_name in list_names(folder):
            name = parse_name(file_name)
            if name and name.suffix == "bold" and name.extension in {".nii", ".nii.gz"}:
                yield name


def _name_run(name: BidsName) -> str:
    """Return what a run is called, raw and preprocessed."""
    return join_entities({k: v for k, v in name.entities.items() if k not in _NOT_OF_A_RUN})


def _spell(name: BidsName) -> str:
    return f"{join_entities(name.entities)}_{name.suffix}{name.extension}"
