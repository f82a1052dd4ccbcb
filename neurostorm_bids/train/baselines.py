"""What a model must beat, in the same folds: connectivity, confounds alone, and a guess."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.comparison import compare_predictions
from neurostorm_bids.train.evaluate import OutOfFold, evaluate_features
from neurostorm_bids.train.predictor import DEFAULT_FIT, FitOptions
from neurostorm_bids.train.resampling import EXCHANGED, Resampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from neurostorm_bids.train.comparison import Difference
    from neurostorm_bids.train.splits import Splits

    Floats = NDArray[np.float64]

CONNECTIVITY = "functional connectivity"
ACTIVITY = "mean signals of regions"
CONFOUNDS = "confounds only"
GUESS = "guess"

MAIN_MEASURE = {"classification": "auroc", "regression": "mae"}
"""By which models are compared. The area is that within folds, where a guess has 0.5: over pooled
rows a guess is worse than that, and whatever is noise would beat it."""

SIGNIFICANCE = 0.05


def evaluate_baselines(
    cases: Cases,
    splits: Splits,
    *,
    connectivity: ArrayLike | None,
    nuisance: pd.DataFrame | None,
    activity: ArrayLike | None = None,
    groups: Mapping[str, str | None] | None = None,
    options: FitOptions = DEFAULT_FIT,
) -> dict[str, OutOfFold]:
    """Predict the same rows in the same folds from other features.

    Parameters
    ----------
    cases : as the model gets them, confounds and sites included; its features are not looked at.
    splits : of the participants.
    connectivity : shape (n, P), from `connectivity.measure_connectivity`; freed of the same
        confounds, and harmonised alike.
    activity : shape (n, R), mean signals of regions, for clips; treated as connectivity is.
    nuisance : n rows, from `nuisance.tabulate_nuisance`; nothing is removed from it.
    groups, options : see `evaluate.evaluate_features`.

    Returns
    -------
    By name: functional connectivity, mean signals of regions, confounds only, and guess (the mean,
    or the share of each class, of the training participants); those that were given.
    """
    plain = Cases(target=cases.target, participants=cases.participants, classes=cases.classes)
    described = {GUESS: plain}
    if nuisance is not None:
        described[CONFOUNDS] = replace(plain, table=nuisance)
    for name, given in ((CONNECTIVITY, connectivity), (ACTIVITY, activity)):
        if given is not None:
            values = np.asarray(given, dtype=np.float64)
            described[name] = replace(cases, features=values, table=None)
    return {
        name: evaluate_features(described[name], splits, groups=groups, options=options)
        for name in (CONNECTIVITY, ACTIVITY, CONFOUNDS, GUESS)
        if name in described
    }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a model beats a baseline.

    Attributes
    ----------
    baseline : its name.
    difference : of the main measure, model minus baseline.
    differences : of all measures.
    is_beaten : the model is better, and by more than chance (p < 0.05).
    """

    baseline: str
    difference: Difference
    differences: tuple[Difference, ...]
    is_beaten: bool

    def describe(self) -> str:
        """Say it in a sentence."""
        difference = self.difference
        verb = "beats" if self.is_beaten else "does not beat"
        if difference.value is None:
            why = (
                ", for no fold tests two classes"
                if difference.name == MAIN_MEASURE["classification"]
                else ""
            )
            return f"The model {verb} {self.baseline}: {difference.name} is not defined{why}."
        interval = (
            ""
            if difference.low is None or difference.high is None
            else f", 95 % interval {difference.low:+.3g} to {difference.high:+.3g}"
        )
        p_value = "" if difference.p_value is None else f", p = {difference.p_value:.2g}"
        return (
            f"The model {verb} {self.baseline}: difference in {difference.name} "
            f"{difference.value:+.3g}{interval}{p_value}."
        )


def judge_model(
    truth: ArrayLike,
    model: ArrayLike,
    baselines: Mapping[str, ArrayLike],
    participants: Sequence[str],
    *,
    folds: Sequence[str] | None,
    resampling: Resampling = EXCHANGED,
) -> list[Verdict]:
    """Compare a model with each baseline by the area under the ROC curve, or the absolute error.

    Parameters
    ----------
    truth : shape (n,), one row for each participant, session or run; NaN where it is not known.
    model, baselines : probabilities (n, C), or numbers (n,) or (n, 1), of the same rows.
    participants, folds, resampling : see `comparison.compare_predictions`.
    """
    predicted = _as_predictions(model)
    name = MAIN_MEASURE["classification" if predicted.ndim > 1 else "regression"]
    verdicts = []
    for baseline, values in baselines.items():
        differences = compare_predictions(
            truth,
            predicted,
            _as_predictions(values),
            participants,
            folds=folds,
            resampling=resampling,
        )
        main = next(difference for difference in differences if difference.name == name)
        is_clear = main.p_value is not None and main.p_value < SIGNIFICANCE
        verdicts.append(
            Verdict(
                baseline=baseline,
                difference=main,
                differences=differences,
                is_beaten=bool(main.is_better) and is_clear,
            )
        )
    return verdicts


def _as_predictions(values: ArrayLike) -> Floats:
    predictions = np.asarray(values, dtype=np.float64)
    return predictions[:, 0] if predictions.ndim > 1 and predictions.shape[1] == 1 else predictions
