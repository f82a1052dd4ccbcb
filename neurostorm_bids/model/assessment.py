"""All that is known of how far a model's outputs can be trusted, and what it says of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.calibration import (
    MAX_REFERENCE,
    ConformalIntervals,
    ConformalSets,
    Novelty,
    Temperature,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What a calibration says of one run.

    Attributes
    ----------
    interval : low and high end, in the target's unit.
    is_in_set : for each class, whether it is in the prediction set.
    coverage, n_participants : asked for of interval or set, and who it was calibrated on.
    temperature : that was taken out of the run's probabilities.
    novelty, novelty_rank : distance from the training embeddings, and the share of theirs that is
        smaller.
    """

    interval: tuple[float, float] | None = None
    is_in_set: tuple[bool, ...] | None = None
    coverage: float | None = None
    n_participants: int | None = None
    temperature: float | None = None
    novelty: float | None = None
    novelty_rank: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What is kept with a model of how far its outputs can be trusted, for whole runs.

    Attributes
    ----------
    temperature : of the probabilities of classes. It is not taken out before sets are made: it was
        fitted on the participants whom the sets were calibrated on, and sets that follow it would
        not be sure to hold the truth as often as was asked for.
    conformal : sets for classes, intervals for numbers.
    novelty : of embeddings.
    """

    temperature: Temperature | None = None
    conformal: ConformalSets | ConformalIntervals | None = None
    novelty: Novelty | None = None

    def check(self, *, kind: str | None, n_features: int) -> None:
        """Raise `DataError` unless it fits a target of this kind (None: none) and a backbone."""
        is_misplaced = (
            (self.temperature is not None and kind != "classification")
            or (isinstance(self.conformal, ConformalSets) and kind != "classification")
            or (isinstance(self.conformal, ConformalIntervals) and kind != "regression")
        )
        if is_misplaced:
            raise DataError(f"The calibration is not one of a target of the kind {kind}.")
        if self.novelty is not None and len(self.novelty.mean) != n_features:
            raise DataError(
                f"Expected statistics of {n_features} features of training embeddings, found "
                f"{len(self.novelty.mean)}."
            )

    def keep_novelty(self) -> Calibration | None:
        """Return what still holds when outputs stand for another target; None if nothing does."""
        return None if self.novelty is None else Calibration(novelty=self.novelty)

    def sharpen(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a run's probabilities (C,) with the temperature, if there is one, taken out."""
        if self.temperature is None:
            return probabilities
        return self.temperature.apply(probabilities).astype(np.float32)

    def assess(self, output: ArrayLike | None, embedding: ArrayLike) -> Assessment:
        """Assess a run by its output (M,), not yet sharpened, and its embedding (D,)."""
        found: dict[str, Any] = {}
        conformal = self.conformal
        if output is not None and conformal is not None:
            found = {"coverage": conformal.coverage, "n_participants": conformal.n_participants}
            if isinstance(conformal, ConformalSets):
                found["is_in_set"] = tuple(conformal.find_sets(output).tolist())
            else:
                found["interval"] = tuple(conformal.find_intervals(output)[0].tolist())
        if output is not None and self.temperature is not None:
            found["temperature"] = self.temperature.value
        if self.novelty is not None:
            distance = float(self.novelty.measure(np.asarray(embedding)[None])[0])
            found |= {"novelty": distance, "novelty_rank": float(self.novelty.rank(distance))}
        return Assessment(**found)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds: all but the arrays of the novelty, and how many quantiles."""
        return {
            "temperature": None if self.temperature is None else self.temperature.to_dict(),
            "sets": self.conformal.to_dict() if isinstance(self.conformal, ConformalSets) else None,
            "intervals": (
                self.conformal.to_dict() if isinstance(self.conformal, ConformalIntervals) else None
            ),
            "novelty": None if self.novelty is None else len(self.novelty.reference),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, novelty: Novelty | None) -> Self:
        """Read what `to_dict` wrote, beside the novelty; raise `DataError` for anything else."""
        n_reference = count_reference(values)
        if n_reference != (0 if novelty is None else len(novelty.reference)):
            raise DataError("The statistics of training embeddings are not those that are named.")
        sets, intervals, temperature = (
            values[name] for name in ("sets", "intervals", "temperature")
        )
        if sets is not None and intervals is not None:
            raise DataError("Expected prediction sets or intervals, found both.")
        conformal: ConformalSets | ConformalIntervals | None = None
        if sets is not None:
            conformal = ConformalSets.from_dict(sets)
        elif intervals is not None:
            conformal = ConformalIntervals.from_dict(intervals)
        return cls(
            temperature=None if temperature is None else Temperature.from_dict(temperature),
            conformal=conformal,
            novelty=novelty,
        )


def count_reference(values: object) -> int:
    """Return how many reference quantiles the novelty of a `Calibration.to_dict` has; 0 without.

    Raises
    ------
    DataError
        If these are not the keys of a calibration, or the number is beyond its bounds.
    """
    if not isinstance(values, Mapping) or set(values) != {
        "temperature",
        "sets",
        "intervals",
        "novelty",
    }:
        raise DataError(
            "Expected temperature, sets, intervals and novelty as calibration, found "
            f"{values!r:.80}."
        )
    size = values["novelty"]
    if size is None:
        return 0
    if not isinstance(size, int) or isinstance(size, bool) or not 2 <= size <= MAX_REFERENCE:  # noqa: PLR2004
        raise DataError(f"Expected 2 to {MAX_REFERENCE} quantiles of novelty, found {size!r:.80}.")
    return size
