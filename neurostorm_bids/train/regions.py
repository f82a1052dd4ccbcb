"""Regions of an atlas on the tokens of a network, to be masked and reported on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.atlas import (
    describe_survivors,
    find_atlas,
    place_on_grid,
    place_on_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from torch import Tensor

    from neurostorm_bids.train.presets import Preset


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """An atlas on the tokens of a network.

    Attributes
    ----------
    atlas : its name.
    tokens : int64, shape (X', Y', Z'); negative where there is no region.
    names : the name of every region, by its number.
    survivors : a row per region; see `describe_survivors`.
    warnings : what a reader of the results should know.
    """

    atlas: str
    tokens: Tensor
    names: Mapping[int, str]
    survivors: pd.DataFrame
    warnings: tuple[str, ...]


def place_regions(name_or_path: str, preset: Preset) -> Regions:
    """Find an atlas and put it on the tokens of a preset's network.

    Raises
    ------
    UsageError
        If fewer than two regions are left at the resolution of patches; and as `find_atlas`.
    """
    atlas = find_atlas(name_or_path, preset.grid.space)
    on_grid = place_on_grid(atlas, preset.grid)
    on_tokens = place_on_tokens(on_grid, preset.config.patch_size)
    survivors = describe_survivors(atlas, on_grid, on_tokens)
    n_left = int((survivors["n_patches"] > 0).sum())
    if n_left < 2:  # noqa: PLR2004
        raise UsageError(
            f"Of the {len(survivors)} regions of {atlas.name}, {n_left} are left in patches of "
            f"{preset.config.patch_size[:3]} voxels. Choose an atlas with larger regions, or one "
            "that covers the model's field of view."
        )
    lost = [*survivors.loc[survivors["n_patches"] == 0, "name"]]
    warnings = list(atlas.warnings)
    if lost:
        warnings.append(
            f"{len(lost)} of {len(survivors)} regions of {atlas.name} are too small for patches "
            f"and are not masked by themselves: {', '.join(lost[:5])}"
            f"{', ...' if len(lost) > 5 else ''}."  # noqa: PLR2004
        )
    return Regions(
        atlas=atlas.name,
        tokens=torch.from_numpy(on_tokens),
        names=atlas.names,
        survivors=survivors,
        warnings=tuple(warnings),
    )
