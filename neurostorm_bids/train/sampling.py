"""Which clips are seen in which order: a function of the seed and of the position in the order.

Nothing here has a state that a training could lose. The sample at a position is the same whichever
process asks for it, and however often the training was interrupted before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from neurostorm_bids.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.grid.censoring import Censoring


class Purpose(IntEnum):
    """What random numbers are for: each purpose has a stream of its own."""

    ORDER = 0
    CLIPS = 1
    MASK = 2
    AUGMENTATION = 3
    MODEL = 4


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One stored run that clips are taken from.

    Attributes
    ----------
    dataset, participant, label : names; together they tell a run from all others.
    path : where it is stored.
    n_volumes : on the model's clock.
    censoring : volumes that moved too much; None where nobody asked.
    fingerprint : of the BOLD file that it was made from; None where that is not known.
    """

    dataset: str
    participant: str
    label: str
    path: Path
    n_volumes: int
    censoring: Censoring | None = None
    fingerprint: str | None = None

    def find_starts(self, clip_length: int) -> NDArray[np.intp] | None:
        """Find where clips may begin that hold few censored volumes; None for anywhere."""
        if self.censoring is None or not self.censoring.volumes:
            return None
        return self.censoring.find_starts(clip_length, n_volumes=self.n_volumes)

    def count_clips(self, clip_length: int) -> int:
        """Count the clips that the run has room for, side by side; a short run is padded to one."""
        starts = self.find_starts(clip_length)
        if starts is None:
            return max(1, self.n_volumes // clip_length)
        n_clips, end = 0, 0
        for start in starts.tolist():
            if start >= end:
                n_clips, end = n_clips + 1, start + clip_length
        return n_clips


class Sample(NamedTuple):
    """One place in the order: which clips to read, and from where to draw what is random in it.

    Attributes
    ----------
    position : from 0.
    run : that the clips are taken from.
    starts : first volume of each clip.
    seed : of the training.
    """

    position: int
    run: TrainingRun
    starts: tuple[int, ...]
    seed: int

    def draw_seed(self, purpose: Purpose) -> int:
        """Return a number that depends on the training's seed, the position and the purpose."""
        words = np.random.SeedSequence([self.seed, purpose, self.position]).generate_state(2)
        return int(words[0]) << 31 | int(words[1]) >> 1

    def make_generator(
        self, purpose: Purpose, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """Return a source of the random numbers that belong to this sample."""
        return torch.Generator(device).manual_seed(self.draw_seed(purpose))

    def describe(self) -> dict[str, Any]:
        """Return what identifies the sample, ready for JSON."""
        return {
            "position": self.position,
            "dataset": self.run.dataset,
            "participant": self.run.participant,
            "run": self.run.label,
            "starts": list(self.starts),
        }


class SampleOrder:
    """An endless order of samples.

    An epoch shows each run as often as it has clips, at random places; with `weights`, each dataset
    in proportion to its weight, its runs in turn. Within an epoch the order is random.

    Parameters
    ----------
    runs : in any order.
    clip_length : volumes of a clip.
    clips_per_sample : clips of one run that a sample shows, one or two; they never overlap. Runs
        that are too short for them are left out, or too much of which is censored. A run shorter
        than one clip is padded when it is read.
    weights : share of the samples that each dataset gives, in any unit; None: as it has clips.
    seed : of the order.

    Attributes
    ----------
    runs : those that are used.
    left_out : those that are too short, or too much of which is censored.
    clips_per_sample : as given.
    samples_per_epoch : after so many samples the next epoch begins.
    """

    def __init__(
        self,
        runs: Iterable[TrainingRun],
        *,
        clip_length: int,
        clips_per_sample: int = 1,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        needed = clip_length * clips_per_sample if clips_per_sample > 1 else 1
        self._needed = needed
        ordered = sorted(runs, key=lambda run: (run.dataset, run.participant, run.label))
        has_room = [
            run.n_volumes >= needed and run.count_clips(clip_length) >= clips_per_sample
            for run in ordered
        ]
        self.runs = tuple(compress(ordered, has_room))
        self.left_out = tuple(compress(ordered, (not has for has in has_room)))
        if not self.runs:
            raise DataError(
                f"Expected runs of at least {needed} volumes to take clips from, found none among "
                f"{len(ordered)} runs. Take shorter clips, or other data."
            )
        self._clip_length, self.clips_per_sample = clip_length, clips_per_sample
        self._seed, self._weights = seed, dict(weights or {})
        self._turns = self._list_turns()
        self._quotas = _share_out(self._turns, weights)
        self.samples_per_epoch = sum(self._quotas.values())
        self._epoch = -1
        self._epoch_runs: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def tell_lack(self, run: TrainingRun) -> str:
        """Say why a run is left out."""
        clips = "one clip" if self.clips_per_sample == 1 else "two clips"
        if run.n_volumes < self._needed:
            return f"too short for {clips}: {run.n_volumes} of {self._needed} volumes"
        n_censored = 0 if run.censoring is None else len(run.censoring.volumes)
        return f"no room for {clips} between its {n_censored} censored volumes"

    def __getitem__(self, position: int) -> Sample:
        """Return the sample at a position, from 0."""
        epoch, place = divmod(position, self.samples_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._epoch_runs = epoch, self._order_epoch(epoch)
        run = self.runs[self._epoch_runs[place]]
        return Sample(position, run, self._draw_starts(run, position), self._seed)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the order, but for the seed."""
        runs = [(run.dataset, run.participant, run.label, run.n_volumes) for run in self.runs]
        weights = sorted(self._weights.items())
        facts: list[Any] = [runs, weights, self._clip_length, self.clips_per_sample]
        if any(run.censoring is not None for run in self.runs):
            facts.append([run.censoring and run.censoring.volumes for run in self.runs])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _list_turns(self) -> dict[str, NDArray[np.int64]]:
        """List, by dataset, the index of each run as often as the run has clips."""
        turns: dict[str, list[int]] = {}
        for index, run in enumerate(self.runs):
            n_clips = run.count_clips(self._clip_length)
            turns.setdefault(run.dataset, []).extend([index] * n_clips)
        return {name: np.array(indices) for name, indices in turns.items()}

    def _order_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return the index of the run at each place of an epoch."""
        parts = []
        for number, (name, turns) in enumerate(self._turns.items()):
            quota = self._quotas[name]
            rounds, places = np.divmod(np.arange(epoch * quota, (epoch + 1) * quota), len(turns))
            for r in np.unique(rounds):
                shuffled = self._rng(0, number, int(r)).permutation(turns)
                parts.append(shuffled[places[rounds == r]])
        return self._rng(1, epoch).permutation(np.concatenate(parts))

    def _draw_starts(self, run: TrainingRun, position: int) -> tuple[int, ...]:
        """Draw where clips begin so that none overlap, each way to lay them equally likely."""
        length, n_clips = self._clip_length, self.clips_per_sample
        rng = np.random.default_rng([self._seed, Purpose.CLIPS, position])
        allowed = run.find_starts(length)
        if allowed is not None:
            return _draw_allowed(allowed, length, n_clips, rng)
        n_free = max(0, run.n_volumes - n_clips * length)
        # Clips shrunk to points: n_clips different places among n_free + n_clips, then in any order
        points = np.sort(rng.choice(n_free + n_clips, size=n_clips, replace=False))
        starts = points + np.arange(n_clips) * (length - 1)
        return tuple(rng.permutation(starts).tolist())

    def _rng(self, *words: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, Purpose.ORDER, *words])


def _draw_allowed(
    allowed: NDArray[np.intp], length: int, n_clips: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """Draw one start, or two that are a clip apart, each way equally likely."""
    if n_clips == 1:
        return (int(rng.choice(allowed)),)
    n_partners = np.array([(np.abs(allowed - start) >= length).sum() for start in allowed])
    first = int(rng.choice(allowed, p=n_partners / n_partners.sum()))
    return first, int(rng.choice(allowed[np.abs(allowed - first) >= length]))


class Split(NamedTuple):
    """Labels of participants to train on, and of those to evaluate on; no label is in both."""

    training: frozenset[str]
    validation: frozenset[str]


def split_participants(participants: Iterable[str], *, share: float, seed: int) -> Split:
    """Set participants aside for evaluation.

    A label stands for one person in whatever session and dataset it occurs, so that a person whose
    data were preprocessed twice is on one side. Who is set aside depends on the labels and the
    seed alone, and changes little when participants are added.

    Parameters
    ----------
    participants : labels; repeated ones count once.
    share : of the participants to set aside, between 0 and 1; at least one is, and one is not.
    seed : of the choice.
    """
    labels = set(participants)
    if not 0 < share < 1:
        raise UsageError(f"The share of participants to set aside is above 0 and below 1: {share}.")
    if len(labels) < 2:  # noqa: PLR2004
        raise DataError(
            f"Expected at least two participants, one to train on and one to evaluate on; found "
            f"{len(labels)}: {', '.join(sorted(labels)) or 'none'}. Give more data."
        )
    ranked = sorted(labels, key=lambda label: hashlib.sha256(f"{seed}:{label}".encode()).digest())
    n_validation = min(max(1, round(share * len(labels))), len(labels) - 1)
    return Split(frozenset(ranked[n_validation:]), frozenset(ranked[:n_validation]))


def _share_out(
    turns: Mapping[str, Sequence[int] | NDArray[np.int64]], weights: Mapping[str, float] | None
) -> dict[str, int]:
    """Return the samples that each dataset gives to an epoch."""
    sizes = {name: len(indices) for name, indices in turns.items()}
    if not weights:
        return sizes
    usable = all(weight > 0 and np.isfinite(weight) for weight in weights.values())
    if not usable or weights.keys() != sizes.keys():
        raise UsageError(
            f"Sampling weights are numbers above 0, one for each of the datasets "
            f"{', '.join(sorted(sizes))}; found {dict(weights)}."
        )
    total = sum(sizes.values()) / sum(weights.values())
    return {name: max(1, round(weights[name] * total)) for name in sizes}
