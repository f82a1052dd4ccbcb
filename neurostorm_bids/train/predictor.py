"""A linear model with all that stands before it, fitted on some rows and applied to any.

Every step that learns anything (encoding, harmonising, regressing confounds out, standardising,
the penalty, the weights) learns from the rows it is fitted on, and from no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import softmax

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.train.confounders import ConfoundRegression, TableEncoder
from neurostorm_bids.train.harmonise import Combat, fit_combat
from neurostorm_bids.train.linear import (
    MAX_ITERATIONS,
    LinearFit,
    expand_logits,
    find_scale,
    fit_classes,
    fit_numbers,
    measure_loss,
    rotate,
)
from neurostorm_bids.train.splits import gather_people, split_k_fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.train.cases import Cases

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How linear models are fitted.

    Attributes
    ----------
    penalties : strengths of the L2 penalty to choose from, as multiples of the number of features,
        strongest first. One alone is taken without choosing.
    n_inner_folds : by which the penalty is chosen, by participant, within the training rows.
    balances_classes : whether every class has the same weight, however rare.
    seed : of the inner folds.
    """

    penalties: tuple[float, ...] = tuple(10.0 ** np.arange(4, -4.5, -0.5))
    n_inner_folds: int = 5
    balances_classes: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        falls = list(self.penalties) == sorted(set(self.penalties), reverse=True)
        if not self.penalties or not falls or min(self.penalties) <= 0:
            raise UsageError(f"Expected penalties above 0, strongest first: {self.penalties}.")


DEFAULT_FIT = FitOptions()


class Predictions(NamedTuple):
    """What a model says of rows.

    Attributes
    ----------
    outputs : probabilities (n, C), or numbers (n, 1).
    notes : what was filled in, in sentences.
    """

    outputs: Floats
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """What happens to features before they are standardised; None where nothing does."""

    encoder: TableEncoder | None
    combat: Combat | None
    regression: ConfoundRegression | None

    @classmethod
    def fit(cls, cases: Cases) -> _Steps:
        encoder = None if cases.table is None else TableEncoder.fit(cases.table)
        steps = cls(encoder=encoder, combat=None, regression=None)
        if cases.sites is not None:
            features = steps.apply(cases).outputs
            combat = fit_combat(features, cases.sites)
            steps = cls(encoder=encoder, combat=combat, regression=None)
        if cases.confounds is not None:
            regression = ConfoundRegression.fit(steps.apply(cases).outputs, cases.confounds)
            steps = cls(encoder=encoder, combat=steps.combat, regression=regression)
        return steps

    def apply(self, cases: Cases) -> Predictions:
        """Return features (n, D), and notes."""
        notes: tuple[str, ...] = ()
        features = np.zeros((len(cases), 0)) if cases.features is None else cases.features
        if self.encoder is not None and cases.table is not None:
            features, notes = self.encoder.encode(cases.table)
        if self.combat is not None:
            sites = cases.sites or [None] * len(cases)
            features, more = self.combat.remove(features, sites)
            notes += more
        if self.regression is not None:
            if cases.confounds is None:
                raise UsageError("These predictions need the confounds that were regressed out.")
            features, more = self.regression.remove(features, cases.confounds)
            notes += more
        return Predictions(features, notes)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A fitted model.

    Attributes
    ----------
    classes : names; empty for numbers.
    seen : positions of the classes that training rows have; empty for numbers.
    steps : before features are standardised.
    mean, sd : shape (D,), that standardise.
    fit : the linear map from standardised features.
    penalty : that was chosen, as a multiple of D.
    notes : what was found in fitting, in sentences.
    """

    classes: tuple[str, ...]
    seen: tuple[int, ...]
    steps: _Steps
    mean: Floats
    sd: Floats
    fit: LinearFit
    penalty: float
    notes: tuple[str, ...] = ()

    def predict(self, cases: Cases) -> Predictions:
        """Return probabilities (n, C) or numbers (n, 1) for rows with the same features."""
        features, notes = self.steps.apply(cases)
        outputs = (features - self.mean) / self.sd @ self.fit.weights + self.fit.bias
        if not self.classes:
            return Predictions(outputs, notes)
        probabilities = np.zeros((len(cases), len(self.classes)))
        probabilities[:, self.seen] = softmax(expand_logits(outputs), axis=1)
        return Predictions(probabilities, notes)


def fit_predictor(
    cases: Cases,
    *,
    groups: Mapping[str, str | None] | None = None,
    options: FitOptions = DEFAULT_FIT,
) -> Predictor:
    """Fit ridge regression, or logistic regression for classes, on all rows with a target.

    Every participant has the same weight, however many rows. The penalty with the smallest squared
    error, or log loss, over inner folds of participants is taken; of equal ones the strongest.

    Parameters
    ----------
    cases : training rows only.
    groups : of participants, which stay on one side of the inner folds.

    Raises
    ------
    DataError
        If no row has a target, or all have the same class.
    """
    cases = cases.select(cases.is_known)
    seen = np.unique(cases.target).astype(np.int64) if cases.classes else None
    if not len(cases) or (seen is not None and len(seen) < 2):  # noqa: PLR2004
        found = "none" if seen is None or not len(seen) else f"only {cases.classes[seen[0]]!r}"
        raise DataError(f"Expected training rows of different targets, found {found}.")
    steps = _Steps.fit(cases)
    features = steps.apply(cases).outputs
    weights = cases.weigh(balances_classes=options.balances_classes)
    mean, sd = find_scale(features, weights)
    coordinates, basis = rotate((features - mean) / sd)
    problem = _Problem(coordinates, cases.target, weights, seen is not None)
    scale = max(1, features.shape[1])
    penalty = _choose_penalty(problem, cases, groups, options, scale=scale)
    (fit,) = problem.fit(np.ones(len(cases), dtype=bool), [penalty * scale])
    notes = [] if steps.combat is None else list(steps.combat.notes)
    if not fit.has_converged:
        notes.append(f"The fit had not converged after {MAX_ITERATIONS} iterations.")
    return Predictor(
        classes=cases.classes,
        seen=() if seen is None else tuple(seen.tolist()),
        steps=steps,
        mean=mean,
        sd=sd,
        fit=fit._replace(weights=basis @ fit.weights),
        penalty=penalty,
        notes=tuple(notes),
    )


class _Problem(NamedTuple):
    """Standardised features (n, R), target and weights (n,)."""

    features: Floats
    target: Floats
    weights: Floats
    has_classes: bool

    def fit(self, which: NDArray[np.bool_], penalties: Sequence[float]) -> list[LinearFit]:
        features, target, weights = self.features[which], self.target[which], self.weights[which]
        if self.has_classes:
            return fit_classes(features, target.astype(np.int64), weights, penalties)
        return fit_numbers(features, target, weights, penalties)

    def measure(
        self, which: NDArray[np.bool_], fits: Sequence[LinearFit], seen: NDArray[np.int64]
    ) -> Floats:
        """Return the loss of each fit on the rows chosen."""
        rows = self.features[which], self.target[which], self.weights[which]
        classes = seen if self.has_classes else None
        return np.array([measure_loss(fit, *rows, seen=classes) for fit in fits])


def _choose_penalty(
    problem: _Problem,
    cases: Cases,
    groups: Mapping[str, str | None] | None,
    options: FitOptions,
    *,
    scale: int,
) -> float:
    """Return the penalty whose fits predict the inner folds best."""
    if len(options.penalties) == 1 or problem.features.shape[1] == 0:
        return options.penalties[0]
    names = cases.classes
    values = {
        label: names[int(value)] if names else float(value)
        for label, value in zip(cases.participants, cases.target, strict=True)
    }
    people = gather_people(cases.participants, values=values, groups=groups)
    n_folds = min(options.n_inner_folds, len(set(people.groups.tolist())))
    if n_folds < 2:  # noqa: PLR2004
        return options.penalties[0]
    losses = np.zeros(len(options.penalties))
    penalties = [penalty * scale for penalty in options.penalties]
    for fold in split_k_fold(people, n_folds=n_folds, seed=options.seed).folds:
        is_test = np.isin(np.asarray(cases.participants, dtype=str), fold.test)
        seen = np.unique(problem.target[~is_test]).astype(np.int64)
        if problem.has_classes and len(seen) < 2:  # noqa: PLR2004
            continue
        losses += problem.measure(is_test, problem.fit(~is_test, penalties), seen)
    return options.penalties[int(losses.argmin())]
