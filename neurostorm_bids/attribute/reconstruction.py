"""How well a masked autoencoder makes up each region from all the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.atlas import place_on_tokens
from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.batching import work_in_batches
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.model.region_errors import RegionErrors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from torch import Tensor

    from neurostorm_bids.attribute.regions import SeenRegions
    from neurostorm_bids.pretrained import Model

PUBLISHED_MASK = "window/random"
"""How the published models were pretrained; taken where a file does not say."""


def build_autoencoder(model: Model) -> MaskedAutoencoder:
    """Put decoder and backbone together again, where the backbone lies.

    Raises
    ------
    DataError
        If the decoder does not fit the backbone.
    """
    scheme = MaskScheme.parse(model.mask_scheme or PUBLISHED_MASK)
    autoencoder = MaskedAutoencoder(model.config, scheme=scheme)
    autoencoder.load_published_state({**model.backbone.state_dict(), **model.decoder_weights})
    weight = next(model.backbone.parameters())
    return autoencoder.to(weight.device, weight.dtype).eval()


def reconstruct_regions(
    model: Model,
    clips: Iterable[Tensor],
    *,
    regions: SeenRegions,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Hide one region after the other in all volumes of each clip, and measure what comes back.

    One forward per region and clip. A region's tokens are those in which most labelled voxels are
    the region's; a region too small for any is left out.

    Parameters
    ----------
    clips : each of shape (1, C, X, Y, Z, T), on the model's device.

    Returns
    -------
    As `RegionErrors.tabulate`, a row for each region, its index that of the row in `regions`.
    """
    patch_size = model.config.patch_size
    on_grid = regions.on_grid.astype(np.int32)
    on_tokens = torch.from_numpy(place_on_tokens(on_grid, patch_size))
    names = dict(enumerate(regions.names[1:], start=1))
    todo = sorted(set(on_tokens[on_tokens >= 0].tolist()))
    if not todo:
        raise DataError(
            f"No region of {regions.atlas} is left in patches of {patch_size[:3]} voxels. Choose "
            "an atlas with larger regions: --atlas."
        )
    errors = RegionErrors(on_tokens, names, patch_size)
    autoencoder = build_autoencoder(model)
    for clip in clips:

        def hide(batch: Sequence[int], clip: Tensor = clip) -> None:
            chosen = torch.tensor(batch).view(-1, 1, 1, 1)
            mask = (on_tokens == chosen)[..., None].expand(-1, -1, -1, -1, clip.shape[-1])
            copies = clip.expand(len(batch), *clip.shape[1:])
            mask = mask.to(clip.device)
            with torch.inference_mode():
                errors.add(copies, mask, autoencoder(copies, mask).patch_error)

        work_in_batches(hide, todo, device=clip.device, batch_size=batch_size)
    return errors.tabulate()
