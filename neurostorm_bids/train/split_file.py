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

SEED = "seed"
_MAX_DIGITS = 18  # of a seed


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
    roles = [_list_roles(fold) for fold in splits.folds]
    header = "\t".join(["participant_id", *(" ".join(fold.name.split()) for fold in splits.folds)])
    rows = (
        "\t".join([f"sub-{label}", *(fold.get(label, MISSING) for fold in roles)])
        for label in splits.participants
    )
    return "\n".join([header, *rows]) + "\n"


def format_rounds(by_seed: Mapping[int, Splits]) -> str:
    """Return the text of a split file for several seeds: one row per participant and seed.

    A column ``seed`` tells the rows apart; for one seed there is none.
    """
    if len(by_seed) == 1:
        return format_splits(*by_seed.values())
    names = dict.fromkeys(
        " ".join(fold.name.split()) for splits in by_seed.values() for fold in splits.folds
    )
    lines = [["participant_id", SEED, *names]]
    for seed, splits in by_seed.items():
        roles = {" ".join(fold.name.split()): _list_roles(fold) for fold in splits.folds}
        for label in splits.participants:
            cells = [roles.get(name, {}).get(label, MISSING) for name in names]
            lines.append([f"sub-{label}", str(seed), *cells])
    return "".join("\t".join(line) + "\n" for line in lines)


def _list_roles(fold: Fold) -> dict[str, str]:
    return {label: role for role in ROLES for label in getattr(fold, role)}


def read_splits(path: Path, labels: Sequence[str], *, seed: int = 0) -> Splits:
    """Read a split file, written by `format_splits` or by hand.

    Parameters
    ----------
    path : TSV with a column participant_id and one column per fold, which holds train, validation,
        test or n/a. A column ``seed`` of whole numbers tells which rows belong to which seed.
    labels : of the participants that there are; others in the file are left out, and noted, and so
        are those whom the file does not name.
    seed : whose rows are read, where the file has several; without such a column all are.

    Raises
    ------
    DataError
        If the file says something else, puts a participant on two sides, or leaves a side empty.
    MissingFileError, ReadError
        If the file is not there or cannot be read.
    """
    table = read_tsv(path)
    columns = _select_seed(table.columns, seed, path)
    names = [name for name in columns if name != "participant_id"]
    if "participant_id" not in table.columns or not names:
        raise DataError(
            f"Expected columns participant_id and one per fold in {path}, found "
            f"{', '.join(table.columns)}."
        )
    listed = [drop_prefix(label, "sub") for label in columns["participant_id"]]
    known = set(labels)
    folds = []
    for name in names:
        roles = _read_roles(columns[name], listed, where=f"column {name!r} of {path}")
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


def _select_seed(
    columns: Mapping[str, list[str]], seed: int, path: Path
) -> Mapping[str, list[str]]:
    """Return the rows of a seed, and the columns that say something of them; without its column."""
    cells = columns.get(SEED, [])
    if not cells or not all(cell.isdecimal() and len(cell) <= _MAX_DIGITS for cell in cells):
        return columns
    rows = [row for row, cell in enumerate(cells) if int(cell) == seed]
    if not rows:
        there = ", ".join(map(str, sorted(set(map(int, cells)))))
        raise DataError(
            f"{path} has the splits of the seeds {there}, and none of the seed {seed}. Choose "
            "--random-seed and --seeds from these; or remove the column, to use one split for all."
        )
    chosen = {name: [given[row] for row in rows] for name, given in columns.items() if name != SEED}
    return {
        name: given
        for name, given in chosen.items()
        if name == "participant_id" or set(given) != {MISSING}
    }


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
