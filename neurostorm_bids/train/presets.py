"""Networks to pretrain, by name: sizes, and the grid that goes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.config import ModelConfig


class Preset(NamedTuple):
    """Sizes of a network, and the grid it reads."""

    config: ModelConfig
    grid: GridSpec


_BASE = ModelConfig.published()
_PRESETS = {
    "tiny": Preset(
        replace(
            _BASE, img_size=(24, 24, 24, 8), patch_size=(3, 3, 3, 1), embed_dim=12, depths=(2,) * 4
        ),
        GridSpec.published(24),
    ),
    "base": Preset(_BASE, GridSpec.published()),
    "large": Preset(replace(_BASE, embed_dim=72), GridSpec.published()),
    "low-res": Preset(replace(_BASE, img_size=(48, 48, 48, 20)), GridSpec.published(48)),
    "long": Preset(replace(_BASE, img_size=(96, 96, 96, 40)), GridSpec.published()),
}
PRESET_NAMES = tuple(_PRESETS)


def find_preset(name: str, *, embed_dim: int | None = None) -> Preset:
    """Return a preset: ``tiny`` for tests, ``base`` as published, ``large``, ``low-res``, ``long``.

    Parameters
    ----------
    name : ``tiny`` 8 mm voxels, 8 volumes; ``base`` 2 mm, 20 volumes, 36 channels; ``large`` the
        same with 72 channels; ``low-res`` 4 mm; ``long`` 40 volumes.
    embed_dim : channels of the first stage, in place of the preset's.

    Raises
    ------
    UsageError
        If there is no such preset.
    """
    if name not in _PRESETS:
        raise UsageError(f"There is no preset {name!r}. Choose one of {', '.join(_PRESETS)}.")
    config, grid = _PRESETS[name]
    return Preset(config if embed_dim is None else replace(config, embed_dim=embed_dim), grid)
