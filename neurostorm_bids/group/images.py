"""Image retrieval from the clips' embeddings that are there, and embeddings of the images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from neurostorm_bids.errors import DataError, UserError
from neurostorm_bids.inputs.events import find_events, label_clips, read_events
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.inputs.names import natural_key
from neurostorm_bids.inputs.tsv import read_tsv
from neurostorm_bids.retrieval.images import retrieve_images
from neurostorm_bids.retrieval.stimuli import STIM_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.derivatives.results import ModelKey, Result
    from neurostorm_bids.group.collect import Embeddings
    from neurostorm_bids.retrieval.images import ImageRetrieval

    Floats = NDArray[np.float64]

Design = Literal["within", "across"]
Training = Literal["all", "unseen"]

DESIGNS: tuple[Design, ...] = ("within", "across")
TRAININGS: tuple[Training, ...] = ("all", "unseen")
MAX_FOLDS = 5

_PEOPLE = {"within": "fitted on other runs of the same person", "across": "fitted on other people"}
_TRIALS = {"all": "", "unseen": ", without the images that are looked for"}


class Variant(NamedTuple):
    """One way of fitting the map from embeddings to images, and what came of it.

    Attributes
    ----------
    design : on other runs (or sessions) of the same person, or on those of other people.
    training : on all of their trials, or without those of the images that are looked for.
    outcome : scores.
    """

    design: Design
    training: Training
    outcome: ImageRetrieval

    def describe(self) -> str:
        """Say what the map was fitted on."""
        return _PEOPLE[self.design] + _TRIALS[self.training]


@dataclass(frozen=True, kw_only=True)
class ImagesFound:
    """How well a model's embeddings of clips tell which image was seen.

    Attributes
    ----------
    model : what made the embeddings.
    n_runs, n_clips : that show an image.
    variants : ways of fitting the map; empty where there is no outcome.
    notes : what is to be known, and why there is no outcome where there is none.
    """

    model: ModelKey
    n_runs: int
    n_clips: int
    variants: tuple[Variant, ...]
    notes: tuple[str, ...]


class _Clips(NamedTuple):
    """Clips of a run in which one image was shown: features (n, D), images, what else is known."""

    owner: Result
    vectors: Floats
    images: list[str]


class _NoClipsError(DataError):
    """A run that shows no image, with the reason."""


def find_images(
    embeddings: Embeddings,
    images: pd.DataFrame,
    *,
    roots: Sequence[Path],
    delay_s: float,
    seed: int,
) -> ImagesFound:
    """Look for the image that was seen among all images of a person's test runs.

    A clip belongs to the image whose event covers most of it, `delay_s` later. Of every run the
    mean over its clips is taken out. Sessions, or the runs of a person with one session, are
    divided into folds; see `divide_runs` and `retrieve_images`.

    Parameters
    ----------
    images : indexed by stim_file, one embedding each.
    roots : datasets in which events.tsv are looked for.
    """
    parts: list[_Clips] = []
    reasons: Counter[str] = Counter()
    strangers: set[str] = set()
    for result in embeddings.results:
        try:
            clips = _read_clips(result, roots=roots, delay_s=delay_s)
            strangers |= set(clips.images) - set(images.index)
            parts.append(_keep_known(clips, images.index))
        except _NoClipsError as err:
            reasons[str(err)] += 1
        except UserError as err:
            reasons[f"{result.run}: {err}"] += 1
    notes = [f"{number} run(s) left out: {reason}." for reason, number in reasons.items()]
    if strangers:
        notes.append(
            f"{len(strangers)} image(s), such as {min(strangers)}, have no embedding: clips in "
            "which they were shown were left out."
        )
    variants, told = _retrieve(parts, images, seed=seed) if parts else ([], [])
    return ImagesFound(
        model=embeddings.model,
        n_runs=len(parts),
        n_clips=sum(len(part.images) for part in parts),
        variants=tuple(variants),
        notes=(*notes, *told),
    )


def divide_runs(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Divide every person's sessions into folds; the runs of who has one session.

    People with one run are divided themselves, so that others can be tested with their runs.

    Parameters
    ----------
    trials : n_trials rows with participant_id, session and run.

    Returns
    -------
    Which trials are for training, by fold; shape (n_folds, n_trials).
    """
    has_sessions = trials.groupby("participant_id")["session"].transform("nunique") > 1
    unit = trials["session"].where(has_sessions, trials["run"])
    units = {
        label: sorted(set(own), key=natural_key)
        for label, own in unit.groupby(trials["participant_id"])
    }
    n_folds = max(2, min(MAX_FOLDS, max(map(len, units.values()))))
    fold_of = {
        (label, name): (at if len(names) > 1 else place) % n_folds
        for place, (label, names) in enumerate(units.items())
        for at, name in enumerate(names)
    }
    fold = np.array([fold_of[key] for key in zip(trials["participant_id"], unit, strict=True)])
    training: NDArray[np.bool_] = fold[None] != np.arange(n_folds)[:, None]
    return training


def _retrieve(
    parts: Sequence[_Clips], images: pd.DataFrame, *, seed: int
) -> tuple[list[Variant], list[str]]:
    """Retrieve in all ways there are; and say which cannot be gone."""
    rows = [
        (part.owner.participant, part.owner.entities.get("ses", ""), part.owner.run, name)
        for part in parts
        for name in part.images
    ]
    trials = pd.DataFrame(rows, columns=["participant_id", "session", "run", STIM_FILE])
    folds = divide_runs(trials)
    responses = np.concatenate([part.vectors for part in parts])
    variants: list[Variant] = []
    notes: list[str] = []
    for design in DESIGNS:
        for training in TRAININGS:
            try:
                outcome = retrieve_images(
                    responses,
                    trials,
                    images,
                    is_training=folds,
                    generator=np.random.default_rng(seed),
                    across=design == "across",
                    unseen_only=training == "unseen",
                )
            except DataError as err:
                notes.append(f"Not to be had, {_PEOPLE[design]}{_TRIALS[training]}: {err}")
                break
            variants.append(Variant(design, training, outcome))
            if outcome.n_seen == 0:
                break  # nothing that was seen is left to be left out
    return variants, notes


def _read_clips(result: Result, *, roots: Sequence[Path], delay_s: float) -> _Clips:
    """Read the clips of a run in which an image was shown, without the mean of all clips.

    Raises
    ------
    _NoClipsError
        If the run shows no image.
    MissingFileError, ReadError, DataError
        If a table cannot be used.
    """
    path = find_events(result.entities, roots=roots)
    if path is None:
        raise _NoClipsError("no events.tsv")
    if STIM_FILE not in read_tsv(path, columns=(STIM_FILE,)).columns:
        raise _NoClipsError(f"no column {STIM_FILE} in events.tsv")
    events = read_events(path, column=STIM_FILE).events
    if not events:
        raise _NoClipsError(f"no event with a duration and a {STIM_FILE}")
    onsets_s, durations_s, vectors = _read_table(result)
    labels = label_clips(events, onsets_s, durations_s, delay_s=delay_s)
    shown = [place for place, label in enumerate(labels) if label is not None]
    if not shown:
        longest = max(event.duration_s for event in events)
        raise _NoClipsError(
            f"no image covers half of a clip (images are shown for {longest:g} s at most, clips "
            f"last {durations_s.max():g} s: such a design needs a model with shorter clips)"
        )
    centred = vectors - vectors.mean(axis=0)
    return _Clips(result, centred[shown], [label for label in labels if label is not None])


def _keep_known(clips: _Clips, known: pd.Index[str]) -> _Clips:
    """Keep the clips whose image has an embedding."""
    is_known = np.isin(clips.images, known)
    if not is_known.any():
        raise _NoClipsError("none of the images has an embedding")
    names = [name for name, keep in zip(clips.images, is_known, strict=True) if keep]
    return _Clips(clips.owner, clips.vectors[is_known], names)


def _read_table(result: Result) -> tuple[Floats, Floats, Floats]:
    """Read onsets, durations and features (K, D) of a run's clips, of those that were read.

    Raises
    ------
    MissingFileError, ReadError, DataError
        If the table is not of the same call as the run's embedding, or holds no numbers.
    """
    stem, desc = result.table.name.rsplit("_desc-", 1)
    named = f"clip{desc[4:]}" if desc.startswith("scan") else desc.replace("Scan", "Clip", 1)
    table = result.table.with_name(f"{stem}_desc-{named}")
    sidecar = read_json_object(table.with_suffix(".json"))
    if sidecar.get("ConfigurationHash") != result.sidecar.get("ConfigurationHash"):
        raise DataError(
            f"{table.name} was not made by the call that made the embedding of the run. Run the "
            "participant level again with --overwrite."
        )
    columns = dict(read_tsv(table).columns)
    try:
        times = [np.array(columns.pop(name), dtype=np.float64) for name in ("onset", "duration")]
        # Clips with too many censored volumes were not read: their rows hold no numbers.
        is_used = np.array(columns.pop("used", ["yes"] * len(times[0]))) == "yes"
        columns.pop("censored_volumes", None)
        kept = [np.array(cells)[is_used] for cells in columns.values()]
        times = [values[is_used] for values in times]
        vectors = np.array(kept, dtype=np.float64).T
    except (KeyError, ValueError) as err:
        raise DataError(f"{table.name} is no table of embeddings of clips: {err}.") from err
    if not (vectors.size and all(np.isfinite(values).all() for values in (*times, vectors))):
        raise DataError(f"{table.name} holds something else than finite numbers.")
    return times[0], times[1], vectors
