"""Reconstruction error of a masked autoencoder by region of an atlas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.autoencoder import cut_patches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from neurostorm_bids.model.config import Size4

_OUTSIDE = -1
_OUTSIDE_NAME = "outside all regions"

# A variance that is a smaller share of the mean square comes from rounding.
_ROUNDING = 1e-12


class RegionErrors:
    """Reconstruction error by region of an atlas, added up over batches.

    Parameters
    ----------
    token_regions : Tensor of integers, shape (X', Y', Z'): the region of each token, negative where
        there is none.
    names : the name of every region, by its number.
    patch_size : voxels per patch along X, Y, Z, T.

    Raises
    ------
    UsageError
        If a token's region has no name.
    """

    def __init__(self, token_regions: Tensor, names: Mapping[int, str], patch_size: Size4) -> None:
        regions = token_regions.long().cpu().clamp(min=_OUTSIDE)
        self._names = {_OUTSIDE: _OUTSIDE_NAME, **dict(sorted(names.items()))}
        nameless = set(regions.flatten().tolist()) - self._names.keys()
        if nameless:
            raise UsageError(
                f"Expected a name for every region, found none for {sorted(nameless)}. Take "
                "regions and names from the same atlas."
            )
        self._rows = torch.searchsorted(torch.tensor(list(self._names)), regions).unsqueeze(-1)
        self._patch_size = patch_size
        self._sums = torch.zeros(5, len(self._names), dtype=torch.float64)

    def add(self, clips: Tensor, mask: Tensor, patch_error: Tensor) -> None:
        """Add the masked patches of a batch.

        Parameters
        ----------
        clips : Tensor, shape (B, C, X, Y, Z, T)
        mask : Tensor of bool, shape (B, X', Y', Z', T): True for masked tokens.
        patch_error : Tensor, shape (B, X', Y', Z', T), of the `Reconstruction`.
        """
        patches = cut_patches(clips, self._patch_size)
        patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
        variance, mean = torch.var_mean(patches, dim=-1, correction=0)
        values = torch.stack([patch_error.detach(), variance, mean])[:, mask].double().cpu()
        error, variance, mean = values
        rows = self._rows.expand(mask.shape)[mask.cpu()]
        sums = torch.stack([torch.ones_like(error), error, variance, mean, mean.square()])
        self._sums.index_add_(1, rows, sums)

    def tabulate(self) -> pd.DataFrame:
        """Return what was added up so far.

        Returns
        -------
        A row for each region and, if tokens in none were masked, a first one with the index -1:
        ``index``, ``name``, ``n_patches`` (masked ones, over all clips and volumes), ``error``
        (squared error, mean over the voxels of these), ``variance`` (of these voxels about their
        common mean) and ``relative_error``, their ratio: 1 is no better than the region's mean. NaN
        where nothing was masked; the ratio also where all voxels are the same.
        """
        n_patches = self._sums[0]
        error, within, mean, mean_square = self._sums[1:] / n_patches  # no patches: 0 / 0 is NaN
        variance = within + (mean_square - mean.square()).clamp(min=0)
        variance[variance <= _ROUNDING * (within + mean_square)] = 0
        table = pd.DataFrame(
            {
                "index": list(self._names),
                "name": list(self._names.values()),
                "n_patches": n_patches.long().numpy(),
                "error": error.numpy(),
                "variance": variance.numpy(),
                "relative_error": torch.where(variance > 0, error / variance, torch.nan).numpy(),
            }
        )
        is_shown = (table["index"] != _OUTSIDE) | (table["n_patches"] > 0)
        return table[is_shown].reset_index(drop=True)
