"""Folders that a person names by mistake: a level too low, a level too high, or one not fetched."""

from __future__ import annotations

import logging
import os
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.errors import MissingFileError, ReadError, UserError
from neurostorm_bids.inputs.files import list_names
from neurostorm_bids.inputs.names import PARTICIPANT_FOLDER, SESSION_FOLDER, natural_key
from neurostorm_bids.inputs.records import SourceDataset
from neurostorm_bids.inputs.scan import list_participants, scan_participant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neurostorm_bids.inputs.records import Selection

logger = logging.getLogger(__name__)

MAX_DEPTH = 3
"""Levels below a folder that datasets are looked for in."""

MAX_FOLDERS = 2000
"""Folders that such a search looks into, at most."""

_N_PARTICIPANTS = 5  # to look into before a dataset counts as one without preprocessed BOLD
_CLOSED = {"sourcedata", "code", "logs", "log", "figures", "work", "models", "group"}
_MODALITIES = {"func", "anat", "fmap", "figures", "log"}
_MAX_LISTING_BYTES = 10_000_000
_SUBMODULE = re.compile(r"^\s*path\s*=\s*(?P<path>.+?)\s*$", re.MULTILINE)


class Place(NamedTuple):
    """Where a person's folder lies in a dataset.

    Attributes
    ----------
    folder : of the dataset, or what was named where it is none.
    participant, session : labels, if the folder belongs to one.
    """

    folder: Path
    participant: str | None = None
    session: str | None = None

    def narrow(self, selection: Selection) -> Selection:
        """Choose the participant and session whose folder was named, if no other was asked for."""
        if self.participant is None or selection.participant_labels:
            return selection
        sessions = (self.session,) if self.session and not selection.session_ids else ()
        return replace(
            selection,
            participant_labels=(self.participant,),
            session_ids=selection.session_ids or sessions,
        )


def find_place(named: Path) -> Place:
    """Climb from a participant's, a session's or a ``func`` folder to the dataset around it.

    A folder that holds ``sub-*`` itself is a dataset, whatever it is called.
    """
    folder = named.absolute()
    if not folder.is_dir() or list_participants(folder):
        return Place(folder)
    session = None
    if folder.name in _MODALITIES:
        folder = folder.parent
    if match := SESSION_FOLDER.fullmatch(folder.name):
        session, folder = match["label"], folder.parent
    match = PARTICIPANT_FOLDER.fullmatch(folder.name)
    if match is None:
        return Place(named.absolute())
    within = f"sub-{match['label']}" + (f", ses-{session}," if session else "")
    logger.warning(
        "%s is a folder of %s in the dataset %s: only that is read. Name the dataset, with "
        "--participant-label %s.",
        named,
        within,
        folder.parent,
        match["label"],
    )
    return Place(folder.parent, match["label"], session)


def search_below(root: Path, *, max_depth: int = MAX_DEPTH) -> list[Path]:
    """Find folders of derivatives with preprocessed BOLD below a folder, in natural order.

    Hidden folders (``.git``, ``.datalad``), ``sourcedata`` and the insides of datasets but for
    their ``derivatives`` are not entered; a link that leads back is followed once.
    """
    found = [folder for folder in _walk(root, max_depth) if holds_preprocessed(folder)]
    return sorted(found, key=lambda folder: natural_key(str(folder)))


def holds_preprocessed(folder: Path) -> bool:
    """Tell whether the first participants of a folder have preprocessed BOLD in an MNI space."""
    try:
        participants = list_participants(folder)
    except UserError:
        return False
    dataset = SourceDataset(name="any", path=folder)
    for label in sorted(participants, key=natural_key)[:_N_PARTICIPANTS]:
        try:
            if scan_participant(participants[label], dataset).candidates:
                return True
        except UserError:
            continue
    return False


def check_fetched(folder: Path, *, dataset_root: Path) -> None:
    """Check that a folder is no DataLad subdataset that was not fetched: listed, and empty.

    Raises
    ------
    MissingFileError : it is one; the message has the command that fetches it.
    """
    if not list_names(folder) and folder in list_absent(dataset_root):
        raise MissingFileError(explain_absent([folder], root=dataset_root))


def list_absent(root: Path) -> list[Path]:
    """List the DataLad subdatasets of a folder that were not fetched: registered, and empty."""
    listing = root / ".gitmodules"
    try:
        if not listing.is_file() or listing.stat().st_size > _MAX_LISTING_BYTES:
            return []
        text = listing.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    folders = [root / match["path"] for match in _SUBMODULE.finditer(text)]
    inside = [one for one in folders if ".." not in one.parts]
    return [one for one in inside if one.is_dir() and _is_empty(one)]


def _is_empty(folder: Path) -> bool:
    try:
        return not list_names(folder)
    except UserError:  # not to be read, so not known to be empty
        return False


def explain_absent(folders: list[Path], *, root: Path) -> str:
    """Say that subdatasets were not fetched, and which command fetches them."""
    names = " ".join(shlex.quote(str(folder)) for folder in folders)
    return (
        f"The content of {folders[0]}{' and others' if folders[1:] else ''} is not on this "
        f"machine: a DataLad subdataset that was not fetched. Fetch it with: "
        f"datalad get -d {shlex.quote(str(root))} {names}"
    )


def _walk(root: Path, max_depth: int) -> Iterator[Path]:
    """Yield folders that hold ``sub-*``, the nearest first; each real folder once."""
    seen: set[str] = set()
    level = [root]
    for _ in range(max_depth + 1):
        below: list[Path] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real in seen or len(seen) > MAX_FOLDERS:
                continue
            seen.add(real)
            try:
                names = list_names(folder)
            except (MissingFileError, ReadError):
                continue
            is_dataset = any(PARTICIPANT_FOLDER.fullmatch(name) for name in names)
            if is_dataset:
                yield folder
            below += [
                folder / name
                for name in (["derivatives"] if is_dataset else names)
                if not name.startswith(".") and name not in _CLOSED and (folder / name).is_dir()
            ]
        level = below
