"""Occlusion: how the output changes when a region is taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from neurostorm_bids.model.batching import work_in_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neurostorm_bids.attribute.quantity import Quantity
    from neurostorm_bids.attribute.regions import SeenRegions
    from neurostorm_bids.pretrained import Model

_NOTHING = -2  # the row of no voxel: the clip as it is


class Occlusion(NamedTuple):
    """What occlusion finds of one clip.

    Attributes
    ----------
    drops : float64, shape (R + 1,); output of the clip minus its output without the region, NaN
        for regions without a voxel.
    output : of the clip as it is.
    """

    drops: NDArray[np.float64]
    output: float


def occlude_regions(
    model: Model,
    clip: Tensor,
    baseline: Tensor,
    *,
    regions: SeenRegions,
    quantity: Quantity,
    batch_size: int | None = None,
) -> Occlusion:
    """Replace one region after the other by the baseline, in all volumes of a clip.

    One forward per region with a voxel in the brain, and one for the clip as it is.

    Parameters
    ----------
    clip, baseline : Tensor, shape (1, C, X, Y, Z, T), on the model's device.
    """
    rows = torch.from_numpy(regions.rows).to(clip.device)

    def measure(batch: Sequence[int]) -> Tensor:
        chosen = torch.tensor(batch, device=clip.device).view(-1, 1, 1, 1)
        hidden = (rows == chosen)[:, None, ..., None]  # (B, 1, X, Y, Z, 1)
        with torch.inference_mode():
            occluded = torch.where(hidden, baseline, clip)
            return quantity.measure(model, occluded).double().cpu()

    todo = [_NOTHING, *regions.seen_rows]
    outputs = torch.cat(
        work_in_batches(measure, todo, device=clip.device, batch_size=batch_size)
    ).numpy()
    drops = np.full(len(regions.indices), np.nan)
    drops[todo[1:]] = outputs[0] - outputs[1:]
    return Occlusion(drops=drops, output=float(outputs[0]))
