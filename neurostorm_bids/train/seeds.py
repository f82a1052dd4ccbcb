"""Scores over several seeds: how much they depend on the split and on how a training began."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from neurostorm_bids.train.baselines import MAIN_MEASURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.train.rounds import Round


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One measure over seeds.

    Attributes
    ----------
    name : of the measure.
    values : with each seed, in order; None where the measure is not defined.
    mean, sd : of those that are defined; None without any, and with fewer than two.
    """

    name: str
    values: tuple[float | None, ...]
    mean: float | None
    sd: float | None


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """One method over seeds.

    Attributes
    ----------
    name : of the method.
    main : name of the measure by which methods are compared.
    spreads : of all measures.
    is_beaten : whether the model beats it, with each seed; empty for the model itself.
    """

    name: str
    main: str
    spreads: tuple[Spread, ...]
    is_beaten: tuple[bool, ...] = ()

    def __getitem__(self, name: str) -> Spread:
        """Return the spread of the measure of this name."""
        return next(spread for spread in self.spreads if spread.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON writes them."""
        return asdict(self)

    def describe(self) -> str:
        """Say the main measure, and how often the model beats this method, in a sentence or two."""
        spread, n_seeds = self[self.main], len(self[self.main].values)
        told = f"Over {n_seeds} seeds, {self.main} of {self.name}: {format_spread(spread)}."
        if not self.is_beaten:
            return told
        return f"{told} The model beats it with {sum(self.is_beaten)} of {n_seeds} seeds."


def summarise_seeds(rounds: Sequence[Round]) -> tuple[OverSeeds, ...]:
    """Return mean and deviation over seeds of every method's scores; the model comes first."""
    methods = []
    for position, one in enumerate(rounds[0].compared):
        same = [other.compared[position] for other in rounds]
        verdicts = [other.verdict for other in same if other.verdict is not None]
        methods.append(
            OverSeeds(
                name=one.name,
                main=MAIN_MEASURE[one.scores.kind],
                spreads=tuple(
                    _spread(score.name, [other.scores[score.name].value for other in same])
                    for score in one.scores.scores
                ),
                is_beaten=tuple(verdict.is_beaten for verdict in verdicts),
            )
        )
    return tuple(methods)


def format_spread(spread: Spread) -> str:
    """Return mean and SD for a reader; n/a where there are none."""
    if spread.mean is None:
        return "n/a"
    return f"{spread.mean:.3g}" + ("" if spread.sd is None else f" (SD {spread.sd:.2g})")


def _spread(name: str, values: Sequence[float | None]) -> Spread:
    known = [value for value in values if value is not None]
    return Spread(
        name=name,
        values=tuple(values),
        mean=statistics.fmean(known) if known else None,
        sd=statistics.stdev(known) if len(known) > 1 else None,
    )
