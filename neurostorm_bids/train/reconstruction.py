"""How well a masked autoencoder reconstructs clips that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.autoencoder import cut_patches, join_patches

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from neurostorm_bids.model.autoencoder import Reconstruction
    from neurostorm_bids.model.config import Size4


class Baselines(NamedTuple):
    """Losses of predictors that know nothing but the visible tokens of the same clip.

    Attributes
    ----------
    patch_mean : each voxel of a patch is predicted by its mean over all visible tokens.
    voxel_mean : each voxel is predicted by its own mean over the volumes in which it is visible,
        and where it is visible in none as by `patch_mean`.
    """

    patch_mean: float
    voxel_mean: float


def measure_baselines(clips: Tensor, mask: Tensor, patch_size: Size4) -> Baselines:
    """Measure the losses that a masked autoencoder has to come below, on the same clips and masks.

    The loss is that of `MaskedReconstruction`: squared error, mean over the voxels of a patch, over
    a clip's masked patches, over clips. Memory is needed for about three copies of one clip.

    Parameters
    ----------
    clips : Tensor, shape (B, C, X, Y, Z, T)
    mask : Tensor of bool, shape (B, X', Y', Z', T): True for masked tokens, in each clip at least
        one. Where none is visible, all of the clip is predicted to be 0.
    patch_size : voxels per patch along X, Y, Z, T.

    Raises
    ------
    UsageError
        If nothing is masked in a clip.
    """
    unmasked = (~mask.flatten(1).any(dim=1)).nonzero().flatten().tolist()
    if unmasked:
        raise UsageError(
            f"Expected a mask that hides tokens of every clip, found none hidden of clips "
            f"{unmasked}. Draw another mask."
        )
    losses = []
    for clip, hidden in zip(clips, mask, strict=True):
        patches = cut_patches(clip.unsqueeze(0), patch_size)[0]
        patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
        mean_patch, own_mean = _average_visible(patches, hidden)
        targets = patches[hidden]  # (masked tokens of the clip, values)
        own = own_mean.unsqueeze(3).expand_as(patches)[hidden]
        losses.append([(targets - mean).square().mean().item() for mean in (mean_patch, own)])
    patch_mean, voxel_mean = torch.tensor(losses, dtype=torch.float64).mean(dim=0).tolist()
    return Baselines(patch_mean, voxel_mean)


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One volume of one clip, and what the autoencoder made of it.

    Attributes
    ----------
    label : which clip.
    volume, n_volumes : which volume of the clip, from 0, and how many it has.
    original : float32, shape (X, Y, Z).
    masked : bool, shape (X, Y, Z): voxels of masked patches.
    reconstructed : float32, shape (X, Y, Z): the original with its masked patches replaced.
    error : float32, shape (X, Y, Z): reconstructed minus original, 0 where nothing was masked.
    """

    label: str
    volume: int
    n_volumes: int
    original: NDArray[np.float32]
    masked: NDArray[np.bool_]
    reconstructed: NDArray[np.float32]
    error: NDArray[np.float32]


def pick_example(
    clips: Tensor,
    mask: Tensor,
    reconstruction: Reconstruction,
    *,
    patch_size: Size4,
    labels: Sequence[str],
) -> Example:
    """Pick an example that is neither better nor worse than others.

    It is the clip with the median loss of the batch (the lower of two), and the first of its
    volumes in which the share of masked patches is closest to the clip's.

    Parameters
    ----------
    clips : Tensor, shape (B, C, X, Y, Z, T); the first channel is shown.
    mask : Tensor of bool, shape (B, X', Y', Z', T): True for masked tokens.
    reconstruction : what the autoencoder returned for them.
    patch_size : voxels per patch along X, Y, Z, T.
    labels : what the clips are called.
    """
    patch_error = reconstruction.patch_error.detach()
    losses = (patch_error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    clip = int(losses.median(dim=0).indices)
    shares = mask[clip].double().mean(dim=(0, 1, 2)).cpu().numpy()
    volume = int(abs(shares - shares.mean()).round(6).argmin())

    patches = reconstruction.patches.detach()[clip, ..., volume, :]
    is_masked = mask[clip, ..., volume].unsqueeze(-1).expand_as(patches)
    original = clips[clip, 0, ..., volume].float()
    masked = _join_volume(is_masked, patch_size)
    reconstructed = torch.where(masked, _join_volume(patches, patch_size).float(), original)
    return Example(
        label=labels[clip],
        volume=volume,
        n_volumes=len(shares),
        original=original.cpu().numpy(),
        masked=masked.cpu().numpy(),
        reconstructed=reconstructed.cpu().numpy(),
        error=(reconstructed - original).cpu().numpy(),
    )


def _average_visible(patches: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Average the visible tokens of a clip.

    Parameters
    ----------
    patches : Tensor, shape (X', Y', Z', T, values)
    hidden : Tensor of bool, shape (X', Y', Z', T)

    Returns
    -------
    Tensor, shape (values,) : over all of them.
    Tensor, shape (X', Y', Z', values) : over the volumes; the same as the first where none is seen.
    """
    seen = (~hidden).to(patches.dtype)
    sums = torch.einsum("xyztv,xyzt->xyzv", patches, seen)
    counts = seen.sum(dim=-1, keepdim=True)  # (X', Y', Z', 1)
    mean_patch = sums.sum(dim=(0, 1, 2)) / counts.sum().clamp(min=1)
    return mean_patch, torch.where(counts > 0, sums / counts.clamp(min=1), mean_patch)


def _join_volume(patches: Tensor, patch_size: Size4) -> Tensor:
    """Make the first channel of a volume (X, Y, Z) of patches (X', Y', Z', values)."""
    return join_patches(patches[None, ..., None, :], patch_size)[0, 0, ..., 0]
