"""What stands in place of a voxel that is taken away from a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from neurostorm_bids.grid.series import Series

Baseline = Literal["background", "mean"]

DESCRIPTIONS: dict[Baseline, str] = {
    "background": "The value that fills the grid outside the brain: the minimum of the run.",
    "mean": "The mean over time of each voxel in the clip: only fluctuations are taken away.",
}


def make_baseline(kind: Baseline, clip: Tensor, series: Series) -> Tensor:
    """Return what replaces a clip's values, shape (1, C, X, Y, Z, T), as the clip's.

    Parameters
    ----------
    kind : background, or the mean over time.
    clip : shape (1, C, X, Y, Z, T), z-scored as the model reads it.
    series : where the clip comes from.
    """
    if kind == "mean":
        return clip.mean(dim=-1, keepdim=True).expand_as(clip)
    return torch.full_like(clip, series.statistics.background)
