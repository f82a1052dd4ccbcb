"""Onto the grid in space, by affines, and onto the model's clock in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Which source volumes make each volume of the model's clock, and in which parts.

    Volume j is ``(1 - weight[j]) * source[before[j]] + weight[j] * source[after[j]]``.
    """

    before: NDArray[np.intp]
    after: NDArray[np.intp]
    weight: NDArray[np.float64]

    @property
    def n_volumes(self) -> int:
        """Volumes on the model's clock."""
        return len(self.weight)


def find_clock(
    n_volumes: int, *, source_repetition_time_s: float, repetition_time_s: float
) -> Clock:
    """Lay the model's clock over a run: linear interpolation, half-sample centres.

    ``round(T * TR / TR_model)`` volumes (half to even) share the run's duration evenly, so the
    step is ``T / T_model`` source volumes and not exactly ``TR_model / TR``, as in training.
    Before the centre of the first source volume and after that of the last, their values hold.

    Parameters
    ----------
    n_volumes : volumes in the source, T.
    """
    n_model = round(n_volumes * source_repetition_time_s / repetition_time_s)
    position = (np.arange(n_model) + 0.5) * (n_volumes / max(n_model, 1)) - 0.5
    position = position.clip(0, n_volumes - 1)
    before = np.floor(position).astype(np.intp)
    return Clock(
        before=before,
        after=np.minimum(before + 1, n_volumes - 1),
        weight=position - before,
    )


def reflect_in_time(volumes: NDArray[np.intp], n_volumes: int) -> NDArray[np.intp]:
    """Fold volume indices at and past the end back into the run, mirrored at its ends.

    Parameters
    ----------
    volumes : indices from 0 up.
    n_volumes : volumes in the run.
    """
    period = max(2 * (n_volumes - 1), 1)
    folded = volumes % period
    return np.minimum(folded, period - folded) if n_volumes > 1 else folded


def interpolate_in_time(
    frames: NDArray[np.float32],
    clock: Clock,
    volumes: NDArray[np.intp],
    *,
    clip_negatives: bool = False,
) -> NDArray[np.float32]:
    """Make some volumes of the model's clock out of source volumes.

    Parameters
    ----------
    frames : shape (T_source, n_brain).
    volumes : which volumes of the model's clock.
    clip_negatives : set negative values to 0.

    Returns
    -------
    float32, shape (len(volumes), n_brain).
    """
    values = np.empty((len(volumes), frames.shape[1]), dtype=np.float32)
    for k, volume in enumerate(volumes):
        before, after = frames[clock.before[volume]], frames[clock.after[volume]]
        np.subtract(after, before, out=values[k])
        values[k] *= np.float32(clock.weight[volume])
        values[k] += before
    if clip_negatives:
        np.maximum(values, 0, out=values)
    return values
