"""What baselines read of the same examples: connectivity of their runs, and what is no brain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from neurostorm_bids import __version__
from neurostorm_bids.connectivity import (
    find_parcellation,
    measure_clips,
    read_signals,
    spare_bad_confounds,
)
from neurostorm_bids.derivatives import hash_configuration
from neurostorm_bids.grid.clips import find_clip_starts
from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.inputs.fingerprint import fingerprint_file
from neurostorm_bids.train.arrays import read_arrays, write_arrays
from neurostorm_bids.train.nuisance import tabulate_nuisance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from neurostorm_bids.connectivity import Parcellation
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.scans import Scan

    Floats = NDArray[np.float64]

MIN_VOLUMES = 4
"""Of a clip, for correlations within it."""


class Connected(NamedTuple):
    """What baselines read of the regions of the same runs.

    Attributes
    ----------
    connectivity : (n, P) of each example, over its runs, or of each clip by itself; None where
        clips hold too few volumes for correlations.
    activity : (n, R) mean signal of each region in each clip; None where examples are no clips.
    notes : in sentences; why something is absent, too.
    """

    connectivity: Floats | None
    activity: Floats | None
    notes: tuple[str, ...]


def connect_examples(
    examples: Examples, folder: Path, *, clip_length: int, atlas: str | None = None
) -> Connected:
    """Return functional connectivity of each example, and the regions' activity of each clip.

    What is in the folder is not computed again. `clip_length` is in volumes on the model's clock;
    `atlas` is a name or path, None for that of `find_parcellation`.
    """
    spaces = {examples.scans[position].run.space for position in examples.used_scans}
    parcellation = find_parcellation(min(spaces), atlas)
    notes = [f"Functional connectivity of {parcellation.name}.", *parcellation.notes]
    connectivity = np.full((len(examples.target.keys), parcellation.n_pairs), np.nan)
    activity = np.full((len(examples.target.keys), len(parcellation.names)), np.nan)
    counts: list[int] = []
    for position in tqdm(
        examples.used_scans, desc="Functional connectivity", unit="run", disable=None
    ):
        scan, is_own = examples.scans[position], examples.owners == position
        clips = _list_clips(scan, clip_length) if examples.is_by_clip else None
        found, note = _connect(scan, parcellation, folder, clips=clips)
        connectivity[is_own] = found["values"]
        if clips is not None:
            activity[is_own] = found["means"]
            counts += found["n_volumes"][examples.target.is_known[is_own]].tolist()
        notes += [note] if note else []
    stored = [examples.scans[position].stored for position in examples.used_scans]
    if any(one.start_s or one.censoring for one in stored):
        notes.append("As of the model, dropped and censored volumes are kept from it.")
    if not examples.is_by_clip:
        return Connected(examples.pool(connectivity), None, tuple(notes))
    fewest = min(counts)
    if fewest < MIN_VOLUMES:
        notes.append(
            f"Functional connectivity is no baseline here: a clip shows as few as {fewest} "
            f"volume(s) of the source, and correlations need {MIN_VOLUMES} or more. The mean "
            "signals of the same regions in each clip are."
        )
        return Connected(None, examples.pool(activity), tuple(notes))
    notes.append(
        f"Functional connectivity and mean signals of regions are of each clip by itself, "
        f"{fewest} to {max(counts)} volumes of the source."
    )
    return Connected(examples.pool(connectivity), examples.pool(activity), tuple(notes))


def describe_nuisance(
    examples: Examples, *, sites: Mapping[str, str | None] | None
) -> pd.DataFrame:
    """Return mean displacement, volumes, repetition time and site of each example; n rows."""
    used = examples.used_scans
    table = tabulate_nuisance([examples.scans[position].run for position in used])
    rows = np.full((len(examples.target.keys), table.shape[1]), np.nan)
    for position, values in zip(used, table.to_numpy(dtype=np.float64), strict=True):
        rows[examples.owners == position] = values
    pooled = type(table)(examples.pool(rows), columns=table.columns)
    if sites is None:
        return pooled
    return pooled.assign(
        site=np.array([sites[label] for label in examples.participants], dtype=object)
    )


class _Clips(NamedTuple):
    """Clips of a run, in seconds from the first volume of its file."""

    onsets_s: list[float]
    duration_s: float


def _list_clips(scan: Scan, clip_length: int) -> _Clips:
    """Return the clips of a run, in the order of its rows."""
    step_s = scan.stored.spec.repetition_time_s
    starts = find_clip_starts(scan.stored.n_volumes, clip_length)
    return _Clips([scan.stored.start_s + start * step_s for start in starts], clip_length * step_s)


def _find_kept(scan: Scan, n_volumes: int) -> NDArray[np.intp]:
    """Return which volumes of a run's file are neither dropped at the beginning nor censored."""
    n_dropped = round(scan.stored.start_s / scan.run.repetition_time_s)
    is_kept = np.arange(n_volumes) >= n_dropped
    if scan.stored.censoring is not None:
        is_kept[n_dropped + np.array(scan.stored.censoring.volumes, dtype=np.intp)] = False
    return np.flatnonzero(is_kept)


def _connect(
    scan: Scan, parcellation: Parcellation, folder: Path, *, clips: _Clips | None
) -> tuple[dict[str, NDArray[Any]], str]:
    """Return arrays of a run or of its clips, and a note if its confounds could not be used."""
    run, censoring = scan.run, scan.stored.censoring
    facts: dict[str, Any] = {
        "version": __version__,
        "parcellation": parcellation.fingerprint,
        "confounds": run.confounds and fingerprint_file(run.confounds),
        "start_s": scan.stored.start_s,
        "censored": [] if censoring is None else censoring.volumes,
    }
    names = ["values", "note"]
    if clips is not None:
        facts["clip_s"] = clips.duration_s
        names += ["means", "n_volumes"]
    key = hash_configuration(facts)
    path = folder / key[:16] / run.dataset.name / f"{scan.stored.path.stem}.npz"
    kept = read_arrays(path, tuple(names))
    if kept is not None:
        return kept, str(kept["note"])
    arrays, note = spare_bad_confounds(
        run, lambda confounds: _measure(scan, parcellation, clips, confounds=confounds)
    )
    arrays["note"] = np.array(note)
    write_arrays(path, arrays)
    return arrays, note


def _measure(
    scan: Scan, parcellation: Parcellation, clips: _Clips | None, *, confounds: Path | None
) -> dict[str, NDArray[Any]]:
    """Measure what the model sees of a run: without what was dropped or censored."""
    run = scan.run
    signals = read_signals(
        run.path,
        parcellation,
        space=run.space,
        repetition_time_s=run.repetition_time_s,
        brain_mask=run.brain_mask,
        confounds=confounds,
        kept=_find_kept(scan, open_volumes(run.path).n_volumes),
    )
    if clips is None:
        return {"values": signals.relate()}
    return measure_clips(signals, *clips, repetition_time_s=run.repetition_time_s)._asdict()
