"""How far a model's outputs can be trusted: kept with the model, applied to what it says.

What is fitted comes from `train.uncertainty`; here it is applied, and brought to and from what a
model folder holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.fields import check_int, check_real, from_dict, to_dict

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MAX_PARTICIPANTS = 10_000_000
MAX_FEATURES = 4096
MAX_REFERENCE = 10_000

_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A divisor of the logits that makes probabilities as sure as they are right.

    Guo et al., "On calibration of modern neural networks", ICML 2017. The order of the classes
    stays.

    Attributes
    ----------
    value : above 1 where the model was too sure.
    n_participants : that it was fitted on.
    """

    value: float
    n_participants: int

    def __post_init__(self) -> None:
        check_real(self, "value", low=MIN_TEMPERATURE, high=MAX_TEMPERATURE)
        check_int(self, "n_participants", low=1, high=MAX_PARTICIPANTS)

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Return probabilities (n, C) with the temperature taken out."""
        given = np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST_PROBABILITY)
        logits = np.log(given) / self.value
        powers: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
        calibrated: Floats = powers / powers.sum(axis=-1, keepdims=True)
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        return from_dict(cls, values)


@dataclass(frozen=True, kw_only=True)
class ConformalSets:
    """Sets of classes that hold the true one as often as was asked for.

    Split-conformal prediction with the score 1 - probability (Sadinle, Lei & Wasserman, JASA 2019).
    It holds for participants drawn as those it was calibrated on; averaged over them, not for each
    class or site.

    Attributes
    ----------
    coverage : asked for, between 0 and 1.
    threshold : classes at least as probable as 1 - threshold are in the set.
    n_participants : that it was calibrated on.
    """

    coverage: float
    threshold: float
    n_participants: int

    def __post_init__(self) -> None:
        _check_coverage(self)
        check_real(self, "threshold", low=0.0, high=1.0)

    def find_sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Tell which classes are in the set of each row, (n, C); the most probable always is."""
        given = np.asarray(probabilities, dtype=np.float64)
        is_largest = given == given.max(axis=-1, keepdims=True)
        is_in: NDArray[np.bool_] = (1 - given <= self.threshold) | is_largest
        return is_in

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        return from_dict(cls, values)


@dataclass(frozen=True, kw_only=True)
class ConformalIntervals:
    """Intervals that hold the true number as often as was asked for.

    Split-conformal prediction with the absolute error (Lei et al., JASA 2018): as wide for all.
    It holds for participants drawn as those it was calibrated on.

    Attributes
    ----------
    coverage : asked for, between 0 and 1.
    half_width : in the target's unit.
    n_participants : that it was calibrated on.
    """

    coverage: float
    half_width: float
    n_participants: int

    def __post_init__(self) -> None:
        _check_coverage(self)
        check_real(self, "half_width", low=0.0, high=math.inf)

    def find_intervals(self, predictions: ArrayLike) -> Floats:
        """Return low and high ends for predictions (n,); shape (n, 2)."""
        centres = np.asarray(predictions, dtype=np.float64)
        return np.stack([centres - self.half_width, centres + self.half_width], axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise `DataError` for anything else."""
        return from_dict(cls, values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Novelty:
    """How far an embedding lies from those that a model was trained on.

    The distance is that of Mahalanobis, with a shrunk covariance, divided by the square root of D:
    about 1 for what is like the training data.

    Attributes
    ----------
    mean : shape (D,), of the training embeddings.
    whitening : shape (D, D); embeddings minus mean, times it, have the unit matrix as covariance.
    reference : shape (Q,), rising: evenly spaced quantiles, from 0 to 1, of the distances of
        training participants from all the others.
    """

    mean: Floats
    whitening: Floats
    reference: Floats

    def __post_init__(self) -> None:
        n_features = self.mean.shape[0] if self.mean.ndim == 1 else 0
        shapes = (self.mean.shape, self.whitening.shape, self.reference.shape)
        fits = (
            1 <= n_features <= MAX_FEATURES
            and self.whitening.shape == (n_features, n_features)
            and self.reference.ndim == 1
            and 2 <= len(self.reference) <= MAX_REFERENCE  # noqa: PLR2004
        )
        if not fits:
            raise DataError(
                "Expected a mean (D,), a whitening (D, D) and a rising reference (Q,) of training "
                f"embeddings, with D up to {MAX_FEATURES} and Q up to {MAX_REFERENCE}; found the "
                f"shapes {shapes}."
            )
        values = (self.mean, self.whitening, self.reference)
        if not all(np.isfinite(value).all() for value in values):
            raise DataError("The statistics of training embeddings are not finite.")
        if (np.diff(self.reference) < 0).any() or self.reference[0] < 0:
            raise DataError("The reference distances of training embeddings do not rise from 0.")

    def measure(self, embeddings: ArrayLike) -> Floats:
        """Return the distance of embeddings (n, D) from the training embeddings; shape (n,)."""
        rows = np.asarray(embeddings, dtype=np.float64)
        if rows.shape[-1] != len(self.mean):
            raise DataError(
                f"Expected embeddings of {len(self.mean)} features, found {rows.shape[-1]}: they "
                "are of another model."
            )
        distances: Floats = np.linalg.norm((rows - self.mean) @ self.whitening, axis=-1)
        return distances / math.sqrt(len(self.mean))

    def rank(self, distances: ArrayLike) -> Floats:
        """Return the share of the training distances that are smaller, 0 to 1."""
        shares = np.linspace(0, 1, len(self.reference))
        ranks: Floats = np.interp(np.asarray(distances, np.float64), self.reference, shares)
        return ranks

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the arrays by name, as safetensors writes them."""
        arrays = {"mean": self.mean, "whitening": self.whitening, "reference": self.reference}
        return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_arrays` gave; raise `DataError` for anything else."""
        names = {"mean", "whitening", "reference"}
        is_named = isinstance(arrays, Mapping) and set(arrays) == names
        if not is_named or any(array.dtype.kind != "f" for array in arrays.values()):
            found = sorted(map(str, arrays)) if isinstance(arrays, Mapping) else type(arrays)
            raise DataError(f"Expected the arrays {sorted(names)} of real numbers, found {found}.")
        return cls(**{name: np.asarray(arrays[name], np.float64) for name in sorted(names)})


def _check_coverage(config: ConformalSets | ConformalIntervals) -> None:
    check_real(config, "coverage", low=0.0, high=1.0)
    if config.coverage in {0, 1}:
        raise DataError(f"Expected a coverage between 0 and 1, found {config.coverage}.")
    check_int(config, "n_participants", low=1, high=MAX_PARTICIPANTS)
