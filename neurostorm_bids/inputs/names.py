"""File names as BIDS spells them: strict reading, writing, comparing and sorting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

LABEL = r"[0-9A-Za-z+]+"
PARTICIPANT_FOLDER = re.compile(rf"sub-(?P<label>{LABEL})")
SESSION_FOLDER = re.compile(rf"ses-(?P<label>{LABEL})")
_NAME = re.compile(
    rf"(?P<entities>(?:[a-z]+-{LABEL}_)*)(?P<suffix>[0-9A-Za-z]+)(?P<extension>(?:\.[0-9A-Za-z]+)+)"
)
# fMRIPrep 1.x: sub-01_task-rest_bold_space-X[_variant-Y]_preproc.nii.gz, ..._brainmask.nii.gz and
# ..._bold_confounds.tsv.
_OLD_NAME = re.compile(
    rf"(?P<run>(?:[a-z]+-{LABEL}_)+)bold_(?P<image>(?:[a-z]+-{LABEL}_)*)"
    r"(?P<suffix>preproc|brainmask|confounds)(?P<extension>(?:\.[0-9A-Za-z]+)+)"
)
_OLD_SUFFIXES = {
    "preproc": ("preproc", "bold"),
    "brainmask": ("brain", "mask"),
    "confounds": ("confounds", "timeseries"),
}


class BidsName(NamedTuple):
    """The parts of a BIDS file name; entities keep the order of the name."""

    entities: Mapping[str, str]
    suffix: str
    extension: str


def parse_name(name: str) -> BidsName | None:
    """Take a file name apart; None if BIDS does not allow it (other signs, an entity twice)."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    pairs = [part.split("-") for part in match["entities"].split("_")[:-1]]
    entities = {key: value for key, value in pairs}  # noqa: C416 (dict() loses the types)
    if len(entities) < len(pairs):
        return None
    return BidsName(entities=entities, suffix=match["suffix"], extension=match["extension"])


def read_name(name: str) -> BidsName | None:
    """Take a file name apart as `parse_name` does; names of fMRIPrep 1.x become those of today.

    ``sub-01_task-rest_bold_space-X_preproc.nii.gz`` is read as
    ``sub-01_task-rest_space-X_desc-preproc_bold.nii.gz``. A ``variant-`` is what the series is
    described by: ``variant-smoothAROMAnonaggr`` becomes the ``desc-``.
    """
    match = _OLD_NAME.fullmatch(name) if "_bold_" in name else None
    if match is None:
        return parse_name(name)
    desc, suffix = _OLD_SUFFIXES[match["suffix"]]
    parts = parse_name(f"{match['run']}{match['image']}{suffix}{match['extension']}")
    if parts is None:
        return None
    entities = dict(parts.entities)
    entities["desc"] = entities.pop("variant", desc)
    return parts._replace(entities=entities)


def join_entities(entities: Mapping[str, str]) -> str:
    """Spell entities in the order given, such as ``sub-01_task-rest``."""
    return "_".join(f"{key}-{value}" for key, value in entities.items())


def drop_prefix(label: str, key: str) -> str:
    """Return a label that a user typed, with or without its prefix, without it."""
    return label.removeprefix(f"{key}-")


def is_same_index(one: str, other: str) -> bool:
    """Tell whether two labels agree, as numbers if both are (``1`` and ``01``)."""
    if one.isascii() and other.isascii() and one.isdigit() and other.isdigit():
        return one.lstrip("0") == other.lstrip("0")
    return one == other


def natural_key(text: str) -> tuple[str, str]:
    """Return a key that sorts numbers inside a text by value: ``run-2`` before ``run-10``."""
    return re.sub("[0-9]+", lambda digits: digits.group().zfill(20), text), text
