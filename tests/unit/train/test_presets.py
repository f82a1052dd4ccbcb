"""The presets are networks that can be made, each on a grid of its own shape."""

from __future__ import annotations

import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.train.presets import PRESET_NAMES, find_preset


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_the_grid_of_a_preset_has_the_shape_of_its_clips(name):
    config, grid = find_preset(name)
    assert grid.shape == config.img_size[:3]


def test_base_is_the_published_network():
    assert find_preset("base") == (ModelConfig.published(), GridSpec.published())


@pytest.mark.parametrize("embed_dim", [24, 48, 96])
def test_the_width_can_be_chosen(embed_dim):
    assert find_preset("base", embed_dim=embed_dim).config.embed_dim == embed_dim


def test_low_resolution_sees_the_same_field_of_view():
    low, base = find_preset("low-res").grid, find_preset("base").grid
    assert low.voxel_size_mm == (4, 4, 4)
    for size, voxel in ((low.shape, low.voxel_size_mm), (base.shape, base.voxel_size_mm)):
        assert [n * side for n, side in zip(size, voxel, strict=True)] == [192, 192, 192]


def test_an_unknown_preset_is_refused_with_the_names_there_are():
    with pytest.raises(UsageError, match="tiny, base, large, low-res, long"):
        find_preset("huge")
