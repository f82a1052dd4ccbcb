"""Volumes and values that stand out so far that the z-score of a run rests on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neurostorm_bids.grid.normalise import Statistics

MAX_DEVIATION = 5.0
"""Of a volume from the mean over time, in units of the median volume's."""

MAX_Z = 50.0
"""Of a value, in units of the run's own deviation, with values far out already in it."""

_SHOWN = 10


def doubt_spikes(frames: NDArray[np.float32], statistics: Statistics) -> list[str]:
    """Tell of volumes and of single values that no brain makes.

    A volume's deviation is its root mean square difference from the mean over time. Motion comes to
    two or three times the median volume's; a spike of the scanner, or a volume before the steady
    state, to more.

    Parameters
    ----------
    frames : shape (T_source, n_brain).
    statistics : of the run's z-score.
    """
    mean = frames.mean(axis=0, dtype=np.float64).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        # Not by `np.linalg.norm`: see `find_statistics`.
        deviations = np.sqrt([np.square(frame - mean).sum(dtype=np.float64) for frame in frames])
        highest = max(float(np.abs(frame - statistics.mean).max()) for frame in frames)
    doubts = []
    (odd,) = np.nonzero(deviations > MAX_DEVIATION * np.median(deviations))
    if len(odd):
        shown = ", ".join(str(volume) for volume in odd[:_SHOWN])
        doubts.append(
            f"{len(odd)} of {len(frames)} volumes are spikes, or not in steady state: they differ "
            f"from the run's mean more than {MAX_DEVIATION:g} times as much as the median volume "
            f"does. They are, counted from 0: {shown}{', ...' if len(odd) > _SHOWN else ''}."
        )
    if highest > MAX_Z * statistics.sd:
        doubts.append(
            f"Single values lie {highest / statistics.sd:.0f} standard deviations from the run's "
            "mean: the z-score rests on them, and all else is flat."
        )
    return doubts
