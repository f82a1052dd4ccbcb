"""Runs that lie far from the others in what is known of their quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neurostorm_bids.derivatives.tables import Column

    Floats = NDArray[np.float64]

THRESHOLD = 3.5
"""Of the robust z-score (Iglewicz & Hoaglin 1993)."""

MIN_RUNS = 5
_TO_SD_OF_MAD = 1.4826
_TO_SD_OF_MEAN = 1.2533
"""What turns median and mean absolute deviations of normal values into standard deviations."""

_BAD_SIGNS = {"mean_fd": 1, "brain_coverage": -1, "median_tsnr": -1, "novelty": 1}


class Measured(NamedTuple):
    """How far each run lies from the others of its model, in one measure.

    Attributes
    ----------
    name : of the column.
    values, scores, medians : shape (n_rows,); scores are robust z, NaN where there is none.
    is_far : shape (n_rows,): on the bad side, beyond the threshold.
    """

    name: str
    values: Floats
    scores: Floats
    medians: Floats
    is_far: NDArray[np.bool_]


def find_outliers(quality: Sequence[Column]) -> list[Measured]:
    """Compare each row of the table of runs with the others of the same model.

    Returns
    -------
    One for each measure that the table has, and that differs between runs.
    """
    cells = {column.name: column.cells for column in quality}
    models = np.array(
        ["\n".join(pair) for pair in zip(cells["model"], cells["model_sha256"], strict=True)]
    )
    found = []
    for name, sign in _BAD_SIGNS.items():
        if name not in cells:
            continue
        values = np.array(cells[name], dtype=np.float64)
        scores, medians = np.full(len(values), np.nan), np.full(len(values), np.nan)
        for model in np.unique(models):
            own = (models == model) & np.isfinite(values)
            if own.sum() >= MIN_RUNS:
                scores[own] = score_robustly(values[own])
                medians[own] = np.median(values[own])
        if np.isfinite(scores).any():
            is_far = np.nan_to_num(scores) * sign > THRESHOLD
            found.append(Measured(name, values, scores, medians, is_far))
    return found


def score_robustly(values: Floats) -> Floats:
    """Return distances from the median in robust standard deviations; NaN if all are equal.

    Where more than half of the values are equal, the mean absolute deviation stands in for the
    median one (Iglewicz & Hoaglin 1993).
    """
    distances = values - np.median(values)
    scale = _TO_SD_OF_MAD * np.median(np.abs(distances))
    if scale == 0:
        scale = _TO_SD_OF_MEAN * np.abs(distances).mean()
    return distances / scale if scale > 0 else np.full(len(values), np.nan)
