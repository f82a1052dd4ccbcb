"""What was shown when: blocks of events.tsv, and the condition that covers most of a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.columns import Column
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.files import list_names
from neurostorm_bids.inputs.names import join_entities, parse_name
from neurostorm_bids.inputs.tsv import MISSING, read_tsv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

TRIAL_TYPE = "trial_type"
"""The name that stands for the conditions of ``events.tsv``."""

HAEMODYNAMIC_DELAY_S = 5.0
"""From an event to the peak of the response to it: about 5 s in the canonical response."""

MIN_SHARE = 0.5
"""Share of a clip that a condition must cover to give the clip its label."""


class Event(NamedTuple):
    """A stretch of time in which one condition held, in seconds from the first volume."""

    onset_s: float
    duration_s: float
    condition: str


class Events(NamedTuple):
    """The events of one run in the order of the table, and what was left out of it."""

    events: list[Event]
    notes: tuple[str, ...]


def find_events(run: Mapping[str, str], *, roots: Sequence[Path]) -> Path | None:
    """Find the events of a run: the table with most of the run's entities and no others.

    Parameters
    ----------
    run : entities of the run, BIDS keys without prefixes.
    roots : datasets to look in, usually the raw one; the first that has a table wins. In each the
        run's own folder is looked into first, then those above, as BIDS lets tables be inherited.
    """
    for root in roots:
        participant = root / f"sub-{run['sub']}"
        session = [participant / f"ses-{run['ses']}"] if "ses" in run else []
        above = [*session, participant, root]
        for folder in [above[0] / "func", *above]:
            found = _find_in(folder, run) if folder.is_dir() else None
            if found is not None:
                return found
    return None


def _find_in(folder: Path, run: Mapping[str, str]) -> Path | None:
    fitting = [
        (len(parts.entities), name)
        for name in list_names(folder)
        if name.endswith("_events.tsv")
        and (parts := parse_name(name)) is not None
        and parts.entities.items() <= run.items()
    ]
    return folder / max(fitting)[1] if fitting else None


def read_events(
    path: Path, *, column: str = TRIAL_TYPE, dataset_root: Path | None = None
) -> Events:
    """Read onset, duration and condition of every event.

    Events without a condition or a duration are left out, and counted in the notes.

    Parameters
    ----------
    path : events.tsv, with columns onset and duration in seconds.
    column : that names the condition.

    Raises
    ------
    DataError
        If a column is absent, or an onset or duration is not a time.
    MissingFileError, ReadError
        If the file is a link that was not fetched, or cannot be read.
    """
    names = ("onset", "duration", column)
    table = read_tsv(path, columns=names, dataset_root=dataset_root)
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise DataError(f"Expected columns {', '.join(names)} in {path}; {absent} are not there.")
    events: list[Event] = []
    n_nameless, n_endless = 0, 0
    for onset, duration, condition, line in zip(
        *(table.columns[name] for name in names), table.lines, strict=True
    ):
        if condition in {MISSING, ""}:
            n_nameless += 1
        elif duration in {MISSING, ""}:
            n_endless += 1
        else:
            events.append(_check_event(onset, duration, condition, where=f"line {line} of {path}"))
    notes = list(table.notes)
    if n_nameless:
        notes.append(f"{path.name}: {n_nameless} event(s) have no {column} and were left out.")
    if n_endless:
        notes.append(f"{path.name}: {n_endless} event(s) have no duration and were left out.")
    return Events(events, tuple(notes))


def _check_event(onset: str, duration: str, condition: str, *, where: str) -> Event:
    onset_s, duration_s = parse_number(onset), parse_number(duration)
    if onset_s is None or duration_s is None or duration_s < 0:
        raise DataError(
            f"Expected onset and duration in seconds, found {onset!r} and {duration!r} in {where}. "
            "Correct the table."
        )
    return Event(onset_s, duration_s, condition)


def label_clips(
    events: Sequence[Event],
    onsets_s: ArrayLike,
    duration_s: ArrayLike,
    *,
    delay_s: float = HAEMODYNAMIC_DELAY_S,
    min_share: float = MIN_SHARE,
) -> list[str | None]:
    """Label each clip with the condition that covers most of it.

    Parameters
    ----------
    events : of the clips' run. Where events of one condition overlap, the time counts once.
    onsets_s : shape (K,), start of each clip in seconds from the first volume.
    duration_s : one number or shape (K,), in seconds.
    delay_s : by how much the response lags behind the events.
    min_share : of the clip that the condition must cover at least.

    Returns
    -------
    K labels; None where no condition covers enough, or two cover the same.
    """
    starts = np.asarray(onsets_s, dtype=np.float64)
    lengths = np.broadcast_to(np.asarray(duration_s, dtype=np.float64), starts.shape)
    conditions = sorted({event.condition for event in events})
    if not conditions:
        return [None] * len(starts)
    covered = np.stack(
        [_measure_cover(_merge(events, name, delay_s), starts, lengths) for name in conditions]
    )  # (n_conditions, K)
    best = covered.argmax(axis=0)
    runner_up = np.sort(covered, axis=0)[-2] if len(conditions) > 1 else np.zeros(len(starts))
    most = covered.max(axis=0)
    # Microseconds do not decide: 0.8 s times 3 is not quite 2.4 s.
    is_clear = (most >= min_share * lengths - 1e-6) & (most > runner_up + 1e-6)
    return [conditions[at] if clear else None for at, clear in zip(best, is_clear, strict=True)]


def _merge(events: Sequence[Event], condition: str, delay_s: float) -> NDArray[np.float64]:
    """Return the stretches of a condition, delayed and without overlaps; shape (n, 2)."""
    stretches: list[list[float]] = []
    own = sorted(event for event in events if event.condition == condition)
    for onset, duration, _ in own:
        start, end = onset + delay_s, onset + duration + delay_s
        if stretches and start <= stretches[-1][1]:
            stretches[-1][1] = max(end, stretches[-1][1])
        else:
            stretches.append([start, end])
    return np.array(stretches)


def _measure_cover(
    stretches: NDArray[np.float64], starts: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how many seconds the stretches (n, 2) cover each of K clips; shape (K,)."""
    ends = np.minimum(stretches[:, 1], (starts + lengths)[:, None])
    begins = np.maximum(stretches[:, 0], starts[:, None])
    covered: NDArray[np.float64] = np.clip(ends - begins, 0, None).sum(axis=1)
    return covered


def read_conditions(
    runs: Sequence[Mapping[str, str]],
    onsets_s: Sequence[ArrayLike],
    duration_s: Sequence[ArrayLike],
    *,
    roots: Sequence[Path],
    column: str = TRIAL_TYPE,
    delay_s: float = HAEMODYNAMIC_DELAY_S,
    min_share: float = MIN_SHARE,
) -> Column:
    """Label the clips of every run by the conditions of its events; one row per clip.

    Parameters
    ----------
    runs : entities of each run, BIDS keys without prefixes.
    onsets_s, duration_s : of the clips of each run; see `label_clips`.
    roots, column, delay_s, min_share : see `find_events`, `read_events` and `label_clips`.

    Returns
    -------
    Column
        Clips of the first run, then of the second, and so on.
    """
    participants: list[str] = []
    keys: list[str] = []
    cells: list[str | None] = []
    reasons: list[str | None] = []
    notes: list[str] = []
    for run, onsets, duration in zip(runs, onsets_s, duration_s, strict=True):
        starts = np.asarray(onsets, dtype=np.float64)
        path = find_events(run, roots=roots)
        events = Events([], ()) if path is None else read_events(path, column=column)
        labels = label_clips(events.events, starts, duration, delay_s=delay_s, min_share=min_share)
        why_not = "no events.tsv" if path is None else f"no {column} covers enough of the clip"
        participants += [run["sub"]] * len(starts)
        keys += [f"{join_entities(run)} at {start:g} s" for start in starts]
        cells += labels
        reasons += [why_not if label is None else None for label in labels]
        notes += events.notes
    return Column(
        name=column,
        source=f"events.tsv, {delay_s:g} s later",
        level="clip",
        participants=tuple(participants),
        keys=tuple(keys),
        cells=tuple(cells),
        reasons=tuple(reasons),
        notes=tuple(dict.fromkeys(notes)),
    )
