"""Volumes that moved too much, and the clips that hold too many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurostorm_bids.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_CENSORED_SHARE = 0.2
"""Share of a clip's volumes that may be censored. Runs with more than this above the threshold of
displacement are left out by the stringent criteria of Parkes et al. (2018, NeuroImage 171:415)."""


class ClipCensoring(NamedTuple):
    """How much of each of K clips is censored.

    Attributes
    ----------
    n_censored : (K,), volumes of the run in the clip that are censored.
    n_volumes : (K,), volumes of the run in the clip.
    is_used : (K,), whether the clip may be read.
    """

    n_censored: NDArray[np.intp]
    n_volumes: NDArray[np.intp]
    is_used: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Censoring:
    """Which volumes of a run are censored, counted from the first one that was kept.

    Attributes
    ----------
    n_source_volumes : of the run, those dropped at the beginning not among them.
    volumes : positions of the censored ones, ascending.
    threshold_mm : framewise displacement above which a volume is censored; None where that was the
        denoising's choice alone.
    """

    n_source_volumes: int
    volumes: tuple[int, ...]
    threshold_mm: float | None = None

    @classmethod
    def from_mask(cls, is_censored: NDArray[np.bool_], *, threshold_mm: float | None) -> Censoring:
        """Make it from one truth value for each volume."""
        return cls(
            n_source_volumes=len(is_censored),
            volumes=tuple(np.flatnonzero(is_censored).tolist()),
            threshold_mm=threshold_mm,
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any] | None) -> Censoring | None:
        """Read what `dataclasses.asdict` gave, for instance out of JSON."""
        if fields is None:
            return None
        return cls(**{**fields, "volumes": tuple(fields["volumes"])})

    def count(
        self, starts: Sequence[int] | NDArray[np.intp], length: int, *, n_volumes: int
    ) -> ClipCensoring:
        """Count the run's volumes in clips of the model's clock; a volume lies where its centre is.

        Parameters
        ----------
        starts : first volume of each clip on the model's clock.
        length : of a clip.
        n_volumes : of the whole run on the model's clock. A clip may reach beyond, where padded.
        """
        centres = (np.arange(self.n_source_volumes) + 0.5) * (n_volumes / self.n_source_volumes)
        is_censored = np.zeros(self.n_source_volumes, dtype=np.intp)
        is_censored[list(self.volumes)] = 1
        up_to = np.concatenate([[0], np.cumsum(is_censored)])
        first = np.searchsorted(centres, np.asarray(starts, dtype=np.float64))
        last = np.searchsorted(centres, np.asarray(starts, dtype=np.float64) + length)
        n_censored, n_inside = up_to[last] - up_to[first], last - first
        # Of a slow run, a clip may hold no volume's centre at all: nothing says it is bad.
        is_used = n_censored <= MAX_CENSORED_SHARE * n_inside
        return ClipCensoring(n_censored, n_inside, is_used)

    def find_starts(self, length: int, *, n_volumes: int) -> NDArray[np.intp]:
        """Find every place at which a clip may begin, on the model's clock."""
        starts = np.arange(max(1, n_volumes - length + 1))
        return starts[self.count(starts, length, n_volumes=n_volumes).is_used]

    def check_any(self, found: ClipCensoring, *, name: str) -> None:
        """Check that a clip is left.

        Raises
        ------
        DataError
            If none is.
        """
        if not found.is_used.any():
            above = (
                "" if self.threshold_mm is None else f" (displacement > {self.threshold_mm:g} mm)"
            )
            raise DataError(
                f"No clip of {name} can be used: {len(self.volumes)} of its "
                f"{self.n_source_volumes} volumes are censored{above}, more than "
                f"{MAX_CENSORED_SHARE:.0%} in each of its {len(found.is_used)} clip(s). Leave the "
                "run out, or choose a higher --fd-threshold."
            )
