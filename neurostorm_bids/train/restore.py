"""Clips that come as the store has them are restored where the network is.

What is sent to a device is a tenth or less of the clip, and reading it takes less work. The steps
are those of `Series.read_clip`, in its order and in float32, so that each number is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from neurostorm_bids.grid.storedclip import StoredClip


def restore_clip(clip: StoredClip, device: torch.device) -> torch.Tensor:
    """Send a clip to a device, and restore it there: float32, shape (X, Y, Z, T)."""
    offset, step, _ = (torch.as_tensor(one) for one in clip.quantisation)
    frames = torch.from_numpy(clip.codes).to(device).float()  # (V, n_brain)
    frames = frames.mul_(step.to(device)).add_(offset.to(device))
    before, after = (
        frames.index_select(0, torch.from_numpy(rows).to(device))
        for rows in (clip.before, clip.after)
    )
    values = after.sub_(before).mul_(torch.from_numpy(clip.weight).to(device)[:, None]).add_(before)
    if clip.clip_negatives:
        values.clamp_(min=0)
    # As tensors: by a number, a GPU would not divide but multiply by its inverse.
    found = clip.statistics
    mean, sd, background = torch.tensor(
        [found.mean, found.sd, found.background], dtype=torch.float32, device=device
    )
    values.sub_(mean).div_(sd)
    outside = background.expand(1, len(values))
    columns = torch.cat([values.t(), outside])  # (n_brain + 1, T)
    return columns.index_select(0, _find_places(clip, device)).view(*clip.shape, -1)


def _find_places(clip: StoredClip, device: torch.device) -> torch.Tensor:
    """Return for each voxel of the grid its place in the brain; outside, the place after the last.

    The grid is filled by looking up, for to write to places takes a GPU long where it must give the
    same numbers each time.
    """
    shift = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    bits = torch.from_numpy(clip.mask_bits).to(device)[:, None] >> shift & 1
    x, y, z = clip.shape
    in_brain = bits.flatten()[: x * y * z]
    places = in_brain.cumsum(0, dtype=torch.int32) - 1
    return places.where(in_brain.bool(), clip.codes.shape[1])
