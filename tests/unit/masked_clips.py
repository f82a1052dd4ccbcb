"""Three small clips with masks, and the sizes of a network that reads them."""

from __future__ import annotations

import torch

from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.masking import MaskScheme, draw_mask, number_units

CONFIG = ModelConfig(
    img_size=(8, 4, 12, 5),
    in_chans=2,
    embed_dim=4,
    depths=(1, 1),
    window_size=(2, 2, 2, 2),
    first_window_size=(2, 2, 2, 2),
    patch_size=(2, 1, 3, 1),
    last_layer_full_msa=False,
    d_state=2,
)
PATCH = CONFIG.patch_size
TOKENS = (4, 4, 4, 5)
N_CLIPS = 3


def make_clips():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(N_CLIPS, 2, 8, 4, 12, 5, generator=generator)
    return values * torch.rand(N_CLIPS, 2, 8, 4, 12, 1, generator=generator) + 0.5


def make_mask(scheme="random/random", *, n_clips=N_CLIPS, seed=0):
    units = number_units(MaskScheme.parse(scheme), TOKENS, window=(2, 2, 2, 2))
    generator = torch.Generator().manual_seed(seed)
    return draw_mask(units, ratio=0.5, n_clips=n_clips, generator=generator)
