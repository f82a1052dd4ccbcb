"""The model's predictions beside those of baselines: the same participants, the same splits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurostorm_bids.train.baselines import evaluate_baselines, judge_model
from neurostorm_bids.train.predictor import FitOptions
from neurostorm_bids.train.resampling import EXCHANGED, Resampling
from neurostorm_bids.train.scores import score_classification, score_regression

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from neurostorm_bids.train.baselines import Verdict
    from neurostorm_bids.train.cases import Cases
    from neurostorm_bids.train.comparison import Difference
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.finetune_options import FinetuneOptions
    from neurostorm_bids.train.scores import Scores
    from neurostorm_bids.train.splits import Splits

logger = logging.getLogger(__name__)

MODEL = "the model"


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Predictions of one method, their scores, and how the model differs from it.

    Attributes
    ----------
    name : of the method.
    predictions : out of fold.
    scores : of them.
    differences : the model's scores minus these; empty for the model itself.
    verdict : whether the model beats it; None for the model itself.
    """

    name: str
    predictions: OutOfFold
    scores: Scores
    differences: tuple[Difference, ...] = ()
    verdict: Verdict | None = None


def compare_with_baselines(
    options: FinetuneOptions,
    examples: Examples,
    cases: Cases,
    splits: Splits,
    evaluation: OutOfFold,
    *,
    connectivity: NDArray[np.float64] | None,
    activity: NDArray[np.float64] | None,
    nuisance: pd.DataFrame | None,
    groups: Mapping[str, str | None] | None,
) -> tuple[Compared, ...]:
    """Score the model, then every baseline in the same splits; the model comes first.

    Parameters
    ----------
    cases : as the model got them, with confounds and sites.
    evaluation : the model's predictions.
    connectivity, activity, nuisance : features of baselines, see `evaluate_baselines`.
    groups : of participants.
    """
    baselines = evaluate_baselines(
        cases,
        splits,
        connectivity=connectivity,
        activity=activity,
        nuisance=nuisance,
        groups=groups,
        options=FitOptions(balances_classes=options.balance_classes, seed=options.train.seed),
    )
    seed = options.train.seed
    resampling = Resampling(n_permutations=options.n_permutations, seed=seed)
    exchanged = Resampling(n_permutations=EXCHANGED.n_permutations, seed=seed)
    own = _get_outputs(examples, evaluation)
    compared = [
        Compared(
            name=MODEL,
            predictions=evaluation,
            scores=_score(examples, evaluation, resampling),
        )
    ]
    for name, predictions in baselines.items():
        values = _get_outputs(examples, predictions)
        (verdict,) = judge_model(
            examples.truth,
            own,
            {name: values},
            examples.participants,
            folds=evaluation.folds,
            resampling=exchanged,
        )
        compared.append(
            Compared(
                name=name,
                predictions=predictions,
                scores=_score(examples, predictions, resampling),
                differences=verdict.differences,
                verdict=verdict,
            )
        )
    for one in compared:
        told = (f"{s.name} {s.value:.3g}" for s in one.scores.scores if s.value is not None)
        logger.info("%s: %s", one.name[0].upper() + one.name[1:], ", ".join(told))
    return tuple(compared)


def _score(examples: Examples, predictions: OutOfFold, resampling: Resampling) -> Scores:
    values = _get_outputs(examples, predictions)
    if examples.classes:
        return score_classification(
            examples.truth,
            values,
            examples.participants,
            classes=examples.classes,
            folds=predictions.folds,
            resampling=resampling,
        )
    return score_regression(
        examples.truth,
        values,
        examples.participants,
        unit=examples.target.unit,
        folds=predictions.folds,
        resampling=resampling,
    )


def _get_outputs(examples: Examples, predictions: OutOfFold) -> NDArray[np.float64]:
    """Return probabilities (n, C) or numbers (n,)."""
    return predictions.outputs if examples.classes else predictions.outputs[:, 0]
