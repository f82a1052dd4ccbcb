"""What is learnt from and tested: people, sessions, runs or clips, and the rows they come from.

A row is a run, or a clip where clips of a run have different targets. Rows that share one value
are one example, so that a participant with two runs is one example of their age.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.grid.clips import find_clip_starts
from neurostorm_bids.inputs.columns import read_column
from neurostorm_bids.inputs.events import HAEMODYNAMIC_DELAY_S, read_conditions
from neurostorm_bids.inputs.targets import make_target, read_target
from neurostorm_bids.train.scores import average_rows
from neurostorm_bids.train.splits import gather_people

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.inputs.columns import Column
    from neurostorm_bids.inputs.targets import Target
    from neurostorm_bids.train.finetune_options import FinetuneOptions
    from neurostorm_bids.train.scans import Scan
    from neurostorm_bids.train.splits import People

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Everything that has a target, n examples, and the rows that they come from.

    Attributes
    ----------
    target : of all rows, also of those without a value.
    scans : the runs.
    owners : position in `scans` of each row of the target.
    keys, participants : of each example.
    truth : shape (n,), positions of classes or numbers in the unit.
    runs : a run of each example, whose name says what belongs to it.
    """

    target: Target
    scans: tuple[Scan, ...]
    owners: NDArray[np.int64]
    keys: tuple[str, ...]
    participants: tuple[str, ...]
    truth: Floats
    runs: tuple[BoldRun, ...]

    @classmethod
    def gather(cls, target: Target, scans: Sequence[Scan], owners: NDArray[np.int64]) -> Examples:
        """Gather the rows that have a value by what they share."""
        known = np.flatnonzero(target.is_known)
        first = {target.keys[row]: row for row in reversed(known.tolist())}
        rows = sorted(first.values())
        return cls(
            target=target,
            scans=tuple(scans),
            owners=owners,
            keys=tuple(target.keys[row] for row in rows),
            participants=tuple(target.participants[row] for row in rows),
            truth=target.encode()[rows],
            runs=tuple(scans[owners[row]].run for row in rows),
        )

    @property
    def is_by_clip(self) -> bool:
        """Whether rows are clips, not runs."""
        return self.target.level == "clip"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty for numbers."""
        return self.target.classes

    @property
    def used_scans(self) -> list[int]:
        """Positions of the runs that have any row with a value."""
        return sorted(set(self.owners[self.target.is_known].tolist()))

    def pool(self, rows: Floats) -> Floats:
        """Average the rows (n_rows, ...) of each example: (n, ...)."""
        known = np.flatnonzero(self.target.is_known)
        keys, means = average_rows(rows[known], [self.target.keys[row] for row in known])
        position = {key: at for at, key in enumerate(keys)}
        return means[[position[key] for key in self.keys]]

    def read(self, column: str, roots: Sequence[Path]) -> Column:
        """Read another column, one cell for each example."""
        return read_column(column, [run.entities for run in self.runs], roots=roots)

    def map_participants(self, column: Column) -> dict[str, str | None]:
        """Return the first value of a column that each participant has; None for those without."""
        values: dict[str, str | None] = dict.fromkeys(self.participants)
        for label, cell in zip(self.participants, column.cells, strict=True):
            values[label] = values[label] if cell is None else values[label] or cell
        return values

    def gather_people(self, groups: Mapping[str, str | None] | None) -> People:
        """Return the participants to be split; their own value is spread evenly over folds."""
        own: dict[str, set[float]] = defaultdict(set)
        for label, value in zip(self.participants, self.truth.tolist(), strict=True):
            own[label].add(value)
        values: dict[str, str | float] | None = None
        if all(len(found) == 1 for found in own.values()):
            values = {label: self._name(found.pop()) for label, found in own.items()}
        return gather_people(self.participants, values=values, groups=groups)

    def _name(self, value: float) -> str | float:
        return self.classes[int(value)] if self.classes else value


def find_examples(
    options: FinetuneOptions,
    scans: Sequence[Scan],
    *,
    clip_length: int,
    roots: Sequence[Path],
    excluded: Collection[str] = (),
) -> Examples:
    """Read the target of every run, or of every clip, and gather the examples.

    `excluded` are the participants whom the filters leave without a run. Errors are those of
    `read_target`.
    """
    if not options.is_by_clip:
        entities = [scan.run.entities for scan in scans]
        target = read_target(
            options.target, entities, roots=roots, kind=options.target_kind, excluded=excluded
        )
        return Examples.gather(target, scans, np.arange(len(scans)))
    starts = [find_clip_starts(scan.stored.n_volumes, clip_length) for scan in scans]
    seconds = [scan.stored.spec.repetition_time_s for scan in scans]
    delay = HAEMODYNAMIC_DELAY_S if options.event_delay_s is None else options.event_delay_s
    column = read_conditions(
        [scan.run.entities for scan in scans],
        [
            scan.stored.start_s + np.array(own) * step
            for scan, own, step in zip(scans, starts, seconds, strict=True)
        ],
        [clip_length * step for step in seconds],
        roots=roots,
        delay_s=delay,
    )
    owners = np.repeat(np.arange(len(scans)), [len(own) for own in starts])
    column = _drop_censored(column, scans, starts, clip_length)
    return Examples.gather(make_target(column), scans, owners)


def _drop_censored(
    column: Column, scans: Sequence[Scan], starts: Sequence[Sequence[int]], clip_length: int
) -> Column:
    """Take the value of clips with too many censored volumes away; a cell for each clip."""
    is_used: list[bool] = []
    for scan, own in zip(scans, starts, strict=True):
        stored = scan.stored
        if stored.censoring is None:
            is_used += [True] * len(own)
        else:
            counts = stored.censoring.count(own, clip_length, n_volumes=stored.n_volumes)
            is_used += counts.is_used.tolist()
    kept = list(zip(column.cells, column.reasons, is_used, strict=True))
    return replace(
        column,
        cells=tuple(cell if used else None for cell, _, used in kept),
        reasons=tuple(why if used else "too many censored volumes" for _, why, used in kept),
    )
