"""Copies of a cohort's tables and files in which what was planted has been torn from its owner.

Whatever finds anything in them finds it by chance.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd

from benchmarks.planted import TEMPLATE
from neurostorm_bids.synthetic import read_brain, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


SHUFFLED = "_shuffled"
"""What the name of a shuffled column ends in."""

KEY = "participant_id"
BLOCK_VOXELS = 5


def add_shuffled_columns(raw: Path, *, seed: int) -> None:
    """Add to the tables of participants a shuffled copy of each column that is planted.

    It is the first that is drawn. One that is chosen for resembling nothing does worse than chance
    out of sample, and could never be found.
    """
    generator = np.random.default_rng(seed)
    for path in _list_tables(raw):
        table = pd.read_csv(path, sep="\t")
        for column in table.columns.drop(KEY):
            table[f"{column}{SHUFFLED}"] = generator.permutation(table[column].to_numpy())
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


def copy_with_exchanged_sessions(output: Path, copy: Path, session: str, *, seed: int) -> None:
    """Copy what `participant` wrote; a session of everybody is given to somebody, by lot."""
    shutil.copytree(output, copy)
    people = sorted(path.name for path in copy.glob("sub-*") if path.is_dir())
    for label in people:
        (copy / label / session).rename(copy / f"{label}_taken")
    owners = np.random.default_rng(seed).permutation(people).tolist()
    for label, owner in zip(people, owners, strict=True):
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
