"""Copies of a cohort's tables and files in which what was planted has been torn from its owner.

Whatever finds anything in them finds it by chance.
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd

from benchmarks.planted import TEMPLATE
from neurostorm_bids.synthetic import read_brain, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHUFFLED = "_shuffled"
"""What the name of a shuffled column ends in."""

KEY = "participant_id"
N_DRAFTS = 500
BLOCK_VOXELS = 5


def add_shuffled_columns(raw: Path, *, seed: int) -> None:
    """Add to the tables of participants a shuffled copy of each column that is planted.

    Of many shuffles the one is taken that goes least with any column as it was, itself included: a
    shuffle that happens to resemble age can be predicted from what follows age.
    """
    tables = {path: pd.read_csv(path, sep="\t") for path in _list_tables(raw)}
    columns = [table.drop(columns=KEY) for table in tables.values()]
    planted = pd.get_dummies(pd.concat(columns, axis=1), dtype=float).to_numpy()
    generator = np.random.default_rng(seed)
    for path, table in tables.items():
        for column in table.columns.drop(KEY):
            codes = pd.factorize(table[column], sort=True)[0].astype(float)
            orders = [generator.permutation(len(table)) for _ in range(N_DRAFTS)]
            found = [_find_largest_correlation(codes[order], planted) for order in orders]
            best = orders[int(np.argmin(found))]
            table[f"{column}{SHUFFLED}"] = table[column].to_numpy()[best]
        write_table(path, table)


def copy_with_shuffled_events(raw: Path, copy: Path, *, seed: int) -> None:
    """Copy a raw dataset without its derivatives; the blocks of each run change places."""
    shutil.copytree(raw, copy, ignore=shutil.ignore_patterns("derivatives"))
    generator = np.random.default_rng(seed)
    for path in sorted(copy.glob("sub-*/**/*_events.tsv")):
        events = pd.read_csv(path, sep="\t")
        order = generator.permutation(len(events))
        for column in ("trial_type", "stim_file"):
            events[column] = events[column].to_numpy()[order]
        write_table(path, events)


def copy_with_shuffled_tasks(
    preprocessed: Path, copy: Path, sessions: Sequence[str], *, seed: int
) -> None:
    """Copy sessions, such as ``sub-01/ses-1``; in half of them, by lot, tasks change names."""
    copy.mkdir(parents=True)
    shutil.copy2(preprocessed / "dataset_description.json", copy)
    other = {"task-rest": "task-blocks", "task-blocks": "task-rest"}
    chance = np.random.default_rng(seed).permutation(np.arange(len(sessions)) % 2 == 1)
    for session, is_swapped in zip(sessions, chance, strict=True):
        func = copy / session / "func"
        func.mkdir(parents=True)
        for path in sorted((preprocessed / session / "func").iterdir()):
            task = next(name for name in other if f"_{name}_" in path.name)
            name = path.name.replace(task, other[task]) if is_swapped else path.name
            shutil.copy2(path, func / name)


def copy_with_exchanged_sessions(output: Path, copy: Path, session: str) -> None:
    """Copy what `participant` wrote; each person's second session is given to the next person."""
    shutil.copytree(output, copy)
    people = sorted(path.name for path in copy.glob("sub-*") if path.is_dir())
    for label in people:
        (copy / label / session).rename(copy / f"{label}_taken")
    for label, owner in pairwise([*people, people[0]]):
        (copy / f"{label}_taken").rename(copy / owner / session)
        for path in sorted((copy / owner / session).rglob(f"{label}_*")):
            if path.suffix == ".json":
                text = path.read_text(encoding="utf-8").replace(label, owner)
                path.write_text(text, encoding="utf-8")
            path.rename(path.with_name(path.name.replace(label, owner, 1)))


def write_blocks(path: Path) -> None:
    """Write an atlas of cubes of 40 mm, which know nothing of where networks lie."""
    mask = read_brain(TEMPLATE).mask
    cube = np.indices(mask.shape) // BLOCK_VOXELS  # (3, X, Y, Z)
    numbers = np.ravel_multi_index(tuple(cube), tuple(cube.max(axis=(1, 2, 3)) + 1))
    labels = np.zeros(mask.shape, dtype=np.int16)
    labels[mask] = 1 + np.unique(numbers[mask], return_inverse=True)[1]
    nib.save(nib.Nifti1Image(labels, TEMPLATE.affine), path)


def _list_tables(raw: Path) -> list[Path]:
    return [raw / "participants.tsv", *sorted((raw / "phenotype").glob("*.tsv"))]


def _find_largest_correlation(codes: NDArray[np.float64], columns: NDArray[np.float64]) -> float:
    """Return the largest correlation of codes (n,) with any of the columns (n, K)."""
    correlation = np.corrcoef(codes, columns, rowvar=False)[0, 1:]
    return float(np.abs(correlation).max())
