"""Splits on disk: a table of participants by fold, to be written, given by a user, and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.names import drop_prefix
from neurostorm_bids.inputs.tsv import MISSING, read_tsv
from neurostorm_bids.train.splits import ROLES, Fold, Splits, sort_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def check_groups(splits: Splits, groups: Mapping[str, str | None]) -> None:
    """Raise `DataError` if a group (a family, a site) is on two sides of any fold."""
    for fold in splits.folds:
        learnt = {groups.get(label) for label in (*fold.train, *fold.validation)} - {None}
        leaked = sorted({str(groups[label]) for label in fold.test if groups.get(label) in learnt})
        if leaked:
            raise DataError(
                f"Fold {fold.name!r} learns from and tests members of the same groups: "
                f"{', '.join(leaked[:5])}. Move each group to one side."
            )


def format_splits(splits: Splits) -> str:
    """Return the text of a split file: one row per participant, one column per fold."""
    roles = [
        {label: role for role in ROLES for label in getattr(fold, role)} for fold in splits.folds
    ]
    header = "\t".join(["participant_id", *(" ".join(fold.name.split()) for fold in splits.folds)])
    rows = (
        "\t".join([f"sub-{label}", *(fold.get(label, MISSING) for fold in roles)])
        for label in splits.participants
    )
    return "\n".join([header, *rows]) + "\n"


def read_splits(path: Path, labels: Sequence[str]) -> Splits:
    """Read a split file, written by `format_splits` or by hand.

    Parameters
    ----------
    path : TSV with a column participant_id and one column per fold, which holds train, validation,
        test or n/a.
    labels : of the participants that there are; others in the file are left out, and noted, and so
        are those whom the file does not name.

    Raises
    ------
    DataError
        If the file says something else, puts a participant on two sides, or leaves a side empty.
    MissingFileError, ReadError
        If the file is not there or cannot be read.
    """
    table = read_tsv(path)
    names = [name for name in table.columns if name != "participant_id"]
    if "participant_id" not in table.columns or not names:
        raise DataError(
            f"Expected columns participant_id and one per fold in {path}, found "
            f"{', '.join(table.columns)}."
        )
    listed = [drop_prefix(label, "sub") for label in table.columns["participant_id"]]
    known = set(labels)
    folds = []
    for name in names:
        roles = _read_roles(table.columns[name], listed, where=f"column {name!r} of {path}")
        folds.append(
            Fold(
                name=name,
                **{
                    role: sort_labels(
                        label for label, given in roles.items() if given == role and label in known
                    )
                    for role in ROLES
                },
            )
        )
    notes = [*table.notes]
    for what, count in (
        ("in the split file have no data", len(set(listed) - known)),
        ("with data are not in the split file and were left out", len(known - set(listed))),
    ):
        if count:
            notes.append(f"{count} participant(s) {what}.")
    return Splits(folds=tuple(folds), method=f"read from {path.name}", notes=tuple(notes))


def _read_roles(cells: Sequence[str], listed: Sequence[str], *, where: str) -> dict[str, str]:
    roles: dict[str, str] = {}
    for label, role in zip(listed, cells, strict=True):
        if role not in {*ROLES, MISSING}:
            raise DataError(
                f"Expected {', '.join(ROLES)} or {MISSING} in {where}, found {role!r} for {label}."
            )
        if roles.setdefault(label, role) != role:
            raise DataError(
                f"Participant {label} is on two sides in {where}: {roles[label]} and {role}."
            )
    return roles
