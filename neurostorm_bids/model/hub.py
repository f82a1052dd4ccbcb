"""Find a model: on disk, by its name in the catalogue, or on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.model.config import TargetSpec
from neurostorm_bids.model.digest import digest_file

logger = logging.getLogger(__name__)

SCHEME = "hf://"
NOTES = "neurostorm-first-use"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ADDRESS = re.compile(
    rf"hf://(?P<repository>{_NAME}/{_NAME})/(?P<file>{_NAME}(?:/{_NAME})*)(?:@(?P<revision>{_NAME}))?"
)


@dataclass(frozen=True, kw_only=True)
class HubAddress:
    """A file in a repository on the Hugging Face Hub.

    Attributes
    ----------
    repository : ``owner/name``.
    file : its path in there.
    revision : a commit, tag or branch.
    """

    repository: str
    file: str
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``hf://owner/repository/path/of/file@revision``; without a revision, main."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not the address of a file on the Hub. Expected "
                "hf://OWNER/REPOSITORY/PATH/OF/FILE, with @REVISION after it to pin a revision."
            )
        return cls(**{name: value for name, value in match.groupdict().items() if value})

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}/{self.file}@{self.revision}"

    @property
    def fetch_command(self) -> str:
        """The shell command that puts the file into the Hub's cache."""
        return f"hf download {self.repository} {self.file} --revision {self.revision}"


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A published file that is known by name.

    Attributes
    ----------
    name, description, licence : as shown.
    address : on the Hub.
    sha256, size_bytes : of the file; None where not known.
    target : what its head predicts; None for a file without a head.
    """

    name: str
    description: str
    licence: str
    address: HubAddress
    sha256: str | None
    size_bytes: int | None
    target: TargetSpec | None


@cache
def read_catalogue() -> dict[str, CatalogueEntry]:
    """Return the published files that are known, by name."""
    text = (files("neurostorm_bids") / "data" / "catalogue.json").read_text(encoding="utf-8")
    return {entry["name"]: _read_entry(entry) for entry in json.loads(text)["models"]}


def find_entry(name_or_path: str | Path) -> CatalogueEntry | None:
    """Return what the catalogue knows of a model, named by its name or its ``hf://`` address.

    A path is never looked up, whatever its name: another file may lie there.
    """
    text = str(name_or_path)
    if text.startswith(SCHEME):
        address = HubAddress.parse(text)
        return next((e for e in read_catalogue().values() if e.address == address), None)
    return None if Path(text).exists() else read_catalogue().get(text)


def locate_model(name_or_path: str | Path) -> Path:
    """Return where a model lies on disk, fetched from the Hub if it must be.

    Parameters
    ----------
    name_or_path : a path; else a name in the folder ``NEUROSTORM_MODELS``, or in the catalogue;
        else an address as `HubAddress` reads it.

    Raises
    ------
    MissingFileError
        If there is no such file or name, or the file is not in the cache and cannot be fetched;
        the message holds the command that fetches it.
    DataError
        If the file is not the one that the catalogue knows.
    """
    text = str(name_or_path)
    entry = find_entry(name_or_path)
    if (kept := find_kept(text)) is not None:
        if entry is not None and kept.is_file():
            _check_known(kept, entry)
        return kept
    if entry is not None:
        path = fetch(entry.address)
        _check_known(path, entry)
        if entry.sha256 is None:
            check_unchanged(path, entry.address)
        return path
    if text.startswith(SCHEME):
        address = HubAddress.parse(text)
        path = fetch(address)
        check_unchanged(path, address)
        return path
    if Path(text).exists():
        return Path(text)
    raise MissingFileError(
        f"No model {text!r}: no such file or folder, and no such name in the catalogue "
        f"({', '.join(read_catalogue())}). Files on the Hub are named hf://OWNER/REPOSITORY/FILE."
    )


def find_kept(name: str) -> Path | None:
    """Return a model of the folder that ``NEUROSTORM_MODELS`` names, as in our images; or None.

    A path is never looked up there, whatever its name. What lies there under a name of the
    catalogue need not be what the catalogue means, unless `CatalogueEntry.sha256` says so.
    """
    folder = os.environ.get("NEUROSTORM_MODELS")
    if not folder or not re.fullmatch(_NAME, name) or Path(name).exists():
        return None
    candidates = (Path(folder) / name, Path(folder) / f"{name}.ckpt")
    return next((path for path in candidates if path.exists()), None)


def fetch(address: HubAddress) -> Path:
    """Return a file of the Hub on disk: from the Hub's cache (``HF_HOME``), else downloaded.

    Raises
    ------
    MissingFileError
        If it is neither in the cache nor to be had.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - takes long, needed seldom

    try:
        path = hf_hub_download(address.repository, address.file, revision=address.revision)
    except Exception as err:
        # Which exceptions reach us depends on the client's version and on its HTTP library.
        reason = str(err).strip().splitlines()
        raise MissingFileError(
            f"{address} is not in the Hub's cache and cannot be fetched: {type(err).__name__}: "
            f"{reason[0] if reason else 'no reason given'}. On a machine with access to the Hub "
            f"and to the same cache (HF_HOME), run: {address.fetch_command}{_advise_in_container()}"
        ) from err
    logger.info("%s lies at %s", address, path)
    return Path(path)


def _advise_in_container() -> str:
    """Return what else to do where the cache is gone with the container, and often the network."""
    if "NEUROSTORM_CONTAINER" not in os.environ:
        return ""
    return (
        " (in a container: mount the file and give its path to --model, or build the image with "
        "NEUROSTORM_MODELS; neurostorm-docker --network lets it be fetched)"
    )


def check_unchanged(path: Path, address: HubAddress) -> None:
    """Compare a file with what came under the same address before; note it at first use.

    A branch may show another file tomorrow. Its SHA-256 is kept in the Hub's cache, in a folder
    of this program; a commit cannot change, and is kept all the same.

    Raises
    ------
    DataError
        If the file is another than at first use.
    """
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415 - takes long

    found = digest_file(path)
    name = hashlib.sha256(str(address).encode()).hexdigest()[:32]
    note = Path(HF_HUB_CACHE).parent / NOTES / f"{name}.json"
    try:
        first = json.loads(note.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        _note_first_use(note, {"address": str(address), "sha256": found})
        return
    if first != found:
        raise DataError(
            f"{address} is not the file that it was when it was first used here: expected SHA-256 "
            f"{first}, found {found} at {path}. If the change is meant, remove {note}; to keep "
            "to the file of then, give its commit: hf://OWNER/REPOSITORY/FILE@COMMIT."
        )


def _note_first_use(note: Path, facts: dict[str, str]) -> None:
    """Write a note whole or not at all; a cache that is read-only, as in images, is none."""
    partial = note.with_name(f".{note.name}.{os.getpid()}.tmp")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        partial.replace(note)
    except OSError as err:
        logger.debug("The SHA-256 of %s is not kept: %s", facts["address"], err)


def _check_known(path: Path, entry: CatalogueEntry) -> None:
    size = path.stat().st_size
    if entry.size_bytes not in (None, size):
        raise DataError(
            f"{entry.name}: expected a file of {entry.size_bytes} bytes, found {size} at {path}. "
            f"Fetch it again: {entry.address.fetch_command} --force-download"
        )
    if entry.sha256 is not None and (found := digest_file(path)) != entry.sha256:
        raise DataError(
            f"{entry.name}: expected SHA-256 {entry.sha256}, found {found} at {path}. "
            f"Fetch it again: {entry.address.fetch_command} --force-download"
        )


def _read_entry(entry: dict[str, Any]) -> CatalogueEntry:
    target = entry["target"]
    return CatalogueEntry(
        name=entry["name"],
        description=entry["description"],
        licence=entry["licence"],
        address=HubAddress.parse(entry["address"]),
        sha256=entry["sha256"],
        size_bytes=entry["size_bytes"],
        target=None if target is None else TargetSpec.from_dict(target),
    )
