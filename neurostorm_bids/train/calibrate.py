"""Fitting what a fine-tuned model's folder says of how far its outputs can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.assessment import Calibration
from neurostorm_bids.train.uncertainty import (
    fit_conformal_intervals,
    fit_conformal_sets,
    fit_novelty,
    fit_temperature,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.inputs.targets import Target
    from neurostorm_bids.model.calibration import ConformalIntervals, ConformalSets, Temperature

    Floats = NDArray[np.float64]


class Embedded(NamedTuple):
    """What the model that is kept makes of the runs it learnt from.

    Attributes
    ----------
    embeddings : shape (n, D).
    participants : label of each run.
    """

    embeddings: Floats
    participants: tuple[str, ...]


class RunOutputs(NamedTuple):
    """What models that had not seen the participant said of single runs.

    Attributes
    ----------
    outputs : probabilities (n, C) or numbers (n, 1); NaN for runs that were not tested.
    truth : shape (n,), positions of the classes or numbers; NaN where it is not known.
    participants : label of each run.
    """

    outputs: Floats
    truth: Floats
    participants: tuple[str, ...]


def calibrate(
    target: Target,
    run_outputs: Floats,
    embedded: Embedded,
    *,
    coverage: float,
    seed: int,
    differs_from_folder: bool,
) -> tuple[Calibration | None, tuple[str, ...]]:
    """Fit what can be fitted, and tell what was and what could not be.

    The unit is the run, for that is what the model folder is applied to. One tested run of each
    participant is drawn, since runs of one participant are not independent.

    Parameters
    ----------
    target : of all rows.
    run_outputs : shape (n_rows, C) or (n_rows, 1), out of fold; NaN where not tested.
    embedded : of the runs the model that is kept learnt from.
    coverage : asked for of intervals or sets, between 0 and 1.
    seed : for drawing runs.
    differs_from_folder : whether the models that were tested took out confounds or sites, which
        the model folder cannot: their outputs do not tell of the folder's then.
    """
    notes: list[str] = []
    temperature: Temperature | None = None
    conformal: ConformalSets | ConformalIntervals | None = None
    novelty = None
    if target.level == "clip":
        notes.append("Outputs are not calibrated: the target is one of clips, not of whole runs.")
    elif differs_from_folder:
        notes.append(
            "Outputs are not calibrated: confounds or sites were taken out of those that were "
            "tested, and the model folder cannot do so."
        )
    else:
        runs = draw_runs(RunOutputs(run_outputs, target.encode(), target.participants), seed=seed)
        try:
            temperature, conformal = calibrate_outputs(runs, target.kind, coverage=coverage)
        except DataError as err:
            notes.append(f"Outputs are not calibrated. {err}")
    try:
        novelty = fit_novelty(*embedded)
    except DataError as err:
        notes.append(f"What is unlike the training data is not told. {err}")
    calibration = Calibration(temperature=temperature, conformal=conformal, novelty=novelty)
    notes = [*describe(calibration), *notes]
    is_empty = temperature is None and conformal is None and novelty is None
    return None if is_empty else calibration, tuple(notes)


def draw_runs(runs: RunOutputs, *, seed: int) -> RunOutputs:
    """Draw one run of each participant, of those that have a truth and an output."""
    is_known = np.isfinite(runs.truth) & np.isfinite(runs.outputs).all(axis=1)
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(is_known))
    first = {runs.participants[row]: row for row in reversed(rows.tolist())}
    drawn = sorted(first.values())
    return RunOutputs(
        runs.outputs[drawn], runs.truth[drawn], tuple(runs.participants[row] for row in drawn)
    )


def calibrate_outputs(
    runs: RunOutputs, kind: str, *, coverage: float
) -> tuple[Temperature | None, ConformalSets | ConformalIntervals]:
    """Fit temperature and sets for classes, intervals for numbers; a row for each participant.

    Sets are made of the probabilities as the model gives them, and not with the temperature taken
    out, which is fitted on the same participants. So all of them count for both, and nothing that
    looked at a participant decides that participant's score: for a model that was held out from
    them, the coverage is that of split-conformal prediction without any approximation.

    Raises
    ------
    DataError
        If there are too few participants for the coverage.
    """
    if kind == "regression":
        return None, fit_conformal_intervals(runs.outputs[:, 0], runs.truth, coverage=coverage)
    temperature = fit_temperature(runs.outputs, runs.truth)
    return temperature, fit_conformal_sets(runs.outputs, runs.truth, coverage=coverage)


def describe(calibration: Calibration) -> Sequence[str]:
    """Say what a calibration holds, in sentences."""
    notes = []
    if (temperature := calibration.temperature) is not None:
        notes.append(
            f"Probabilities of runs are calibrated with the temperature {temperature.value:.4g}, "
            f"fitted on {temperature.n_participants} participants out of fold."
        )
    if (conformal := calibration.conformal) is not None:
        notes.append(
            f"Runs get {'intervals' if calibration.temperature is None else 'sets of classes'} "
            f"made to hold the truth of {100 * conformal.coverage:g} % of persons like the "
            f"{conformal.n_participants} they were calibrated on, one run of each, out of fold. "
            "After several folds this holds nearly, for the model that is kept learnt from more "
            "participants than those that were tested."
        )
    if calibration.novelty is not None:
        notes.append(
            "How far a run's embedding lies from those of the training participants is told as "
            "novelty."
        )
    return notes
