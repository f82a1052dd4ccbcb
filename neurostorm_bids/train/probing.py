"""Linear probing: ridge or logistic regression on embeddings of a backbone that stays as it is.

It learns from one pooled embedding for each example. It is tested as a model folder is used: clip
by clip, the outputs averaged over the clips of a run and then over the runs of an example.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.adapt import make_linear_head
from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.evaluate import FoldOutputs, fit_fold, gather_folds
from neurostorm_bids.train.scores import average_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.model.heads import LinearHead
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.features import RunFeatures
    from neurostorm_bids.train.predictor import FitOptions, Predictor
    from neurostorm_bids.train.splits import Fold, Splits

    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)


class _Clips(NamedTuple):
    """All clips of examples, and where they belong.

    Attributes
    ----------
    cases : a row for each clip.
    rows : (n_clips,), row of the target that each clip belongs to.
    weights : (n_clips,), share of each clip in that row.
    """

    cases: Cases
    rows: NDArray[np.int64]
    weights: Floats


def pool_features(examples: Examples, found: Sequence[RunFeatures]) -> Floats:
    """Pool the embeddings of the used runs: of a run over its clips, of an example over its runs.

    Returns
    -------
    float64, shape (n, D)
    """
    rows = np.full((len(examples.target.keys), found[0].clips.shape[1]), np.nan)
    for position, features in zip(examples.used_scans, found, strict=True):
        rows[examples.owners == position] = (
            features.clips if examples.is_by_clip else features.whole
        )
    return examples.pool(rows)


def evaluate_probe(
    examples: Examples,
    cases: Cases,
    found: Sequence[RunFeatures],
    splits: Splits,
    *,
    groups: Mapping[str, str | None] | None,
    options: FitOptions,
) -> OutOfFold:
    """Fit a linear model in every fold, and predict the examples of the participants it tests.

    Participants set aside for validation train too: a linear model stops by itself.

    Parameters
    ----------
    cases : a row for each example, with its pooled embedding as features.
    found : embeddings of the clips of the used runs.
    groups : of participants, which stay on one side of the inner folds as well.

    Raises
    ------
    DataError
        If the training participants of a fold have one class only.
    """
    clips = _list_clips(examples, cases, found)

    def predict(number: int, fold: Fold) -> FoldOutputs:
        predictor = fit_fold(cases, number, fold, groups=groups, options=options)
        rows = _predict(predictor, clips, examples)
        return FoldOutputs(examples.pool(rows), predictor.notes, predictor.penalty, rows)

    return gather_folds(
        splits,
        examples.participants,
        predict,
        n_outputs=max(1, len(cases.classes)),
        row_participants=examples.target.participants,
    )


def make_head(predictor: Predictor, target: TargetSpec) -> LinearHead:
    """Return the head that does what a linear model does, z-scores for numbers.

    Confounds and sites that the model knows are left out: it takes everybody to have the training
    mean of the confounds, and embeddings as they are.

    Raises
    ------
    DataError
        If training examples lack a class.
    """
    if len(predictor.seen) < len(predictor.classes):
        absent = [name for at, name in enumerate(predictor.classes) if at not in predictor.seen]
        raise DataError(
            f"No training participant is {', '.join(absent)}, so nothing was learnt of it. Choose "
            "other splits, or leave that class out."
        )
    shift, scale = (target.mean or 0.0, target.sd or 1.0) if target.kind == "regression" else (0, 1)
    return make_linear_head(
        predictor.fit.weights.T / scale,
        (predictor.fit.bias - shift) / scale,
        feature_means=predictor.mean,
        feature_sds=predictor.sd,
    )


def _list_clips(examples: Examples, cases: Cases, found: Sequence[RunFeatures]) -> _Clips:
    """Give every clip with a target the confounds and the site of its example."""
    target = examples.target
    position_of = {key: at for at, key in enumerate(examples.keys)}
    features, rows, weights = [], [], []
    for position, run in zip(examples.used_scans, found, strict=True):
        own = np.flatnonzero(examples.owners == position)
        if examples.is_by_clip:
            is_known = target.is_known[own]
            features.append(run.clips[is_known])
            rows.append(own[is_known])
            weights.append(np.ones(int(is_known.sum())))
        else:
            is_used = run.weights > 0
            features.append(run.clips[is_used])
            rows.append(np.repeat(own, int(is_used.sum())))
            weights.append(run.weights[is_used])
    all_rows = np.concatenate(rows)
    at = np.array([position_of[target.keys[row]] for row in all_rows], dtype=np.int64)
    return _Clips(
        cases=Cases(
            target=cases.target[at],
            participants=[cases.participants[one] for one in at],
            classes=cases.classes,
            features=np.concatenate(features).astype(np.float64),
            confounds=None if cases.confounds is None else cases.confounds.iloc[at],
            sites=None if cases.sites is None else [cases.sites[one] for one in at],
        ),
        rows=all_rows,
        weights=np.concatenate(weights),
    )


def _predict(predictor: Predictor, clips: _Clips, examples: Examples) -> Floats:
    """Return outputs (n_rows, M) for all rows of the target; NaN for those without a value."""
    by_clip = predictor.predict(clips.cases).outputs
    keys, means = average_rows(by_clip, [str(row) for row in clips.rows], weights=clips.weights)
    rows = np.full((len(examples.target.keys), by_clip.shape[1]), np.nan)
    rows[[int(key) for key in keys]] = means
    return rows
