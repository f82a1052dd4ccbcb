from __future__ import annotations

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.masking import MaskScheme, draw_mask, index_in_window, number_units
from neurostorm_bids.model.windows import partition_windows

SCHEMES = [
    f"{space}/{time}" for space in ("random", "window", "atlas") for time in ("random", "tube")
]
GRIDS = {
    "windows fit": ((4, 4, 8, 8), (2, 4, 4, 4)),
    "windows are cut": ((5, 3, 4, 7), (2, 2, 4, 3)),
    "windows are larger": ((6, 3, 2, 5), (4, 4, 4, 8)),
}


def make_regions(grid):
    """Four regions of different sizes with the numbers of a real atlas, and background."""
    regions = torch.full(grid[:3], -1)
    regions[0], regions[1, 0], regions[1, 1], regions[1, 2, :1] = 2001, 9170, 0, 7
    return regions


def make_units(name, grid, window):
    scheme = MaskScheme.parse(name)
    regions = make_regions(grid) if scheme.space == "atlas" else None
    return number_units(scheme, grid, window=window, regions=regions)


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=GRIDS, ids=lambda name: name.replace(" ", "-"))
def sizes(request):
    return GRIDS[request.param]


@pytest.fixture(params=SCHEMES)
def scheme(request):
    return request.param


def test_units_are_numbered_without_gaps(scheme, sizes):
    units = make_units(scheme, *sizes)
    assert units.shape == sizes[0]
    assert units.dtype == torch.int64
    present = units.unique()
    expected = torch.arange(units.max() + 1)
    torch.testing.assert_close(present[present >= 0], expected)


def test_only_the_background_has_no_unit(scheme, sizes):
    grid, _ = sizes
    is_background = torch.zeros(grid, dtype=torch.bool)
    if scheme.startswith("atlas"):
        is_background |= (make_regions(grid) < 0).unsqueeze(-1)
    torch.testing.assert_close(make_units(scheme, *sizes) < 0, is_background)


def test_tubes_are_constant_in_time(sizes):
    for scheme in ("random/tube", "window/tube", "atlas/tube"):
        units = make_units(scheme, *sizes)
        assert (units == units[..., :1]).all()


def test_random_units_are_single_tokens_and_single_positions():
    grid = (3, 2, 4, 5)
    assert make_units("random/random", grid, (2, 2, 2, 2)).unique().numel() == 3 * 2 * 4 * 5
    assert make_units("random/tube", grid, (2, 2, 2, 2)).unique().numel() == 3 * 2 * 4


def test_window_units_are_the_windows_that_the_encoder_cuts():
    grid, window = (4, 6, 4, 8), (2, 3, 4, 4)
    units = make_units("window/random", grid, window)
    windows = partition_windows(units[None, ..., None], window).squeeze(-1)
    torch.testing.assert_close(windows, torch.arange(len(windows)).unsqueeze(1).expand_as(windows))


def test_window_tubes_are_windows_in_space(sizes):
    (x, y, z, t), (wx, wy, wz, _) = sizes
    whole = make_units("window/random", (x, y, z, t), (wx, wy, wz, t))
    torch.testing.assert_close(make_units("window/tube", *sizes), whole)


def test_a_region_is_masked_as_a_whole_or_for_a_window_of_time():
    grid, window = (5, 3, 4, 7), (2, 2, 4, 3)
    regions = make_regions(grid)
    tube = make_units("atlas/tube", grid, window)
    part = make_units("atlas/random", grid, window)
    for label in (0, 7, 2001, 9170):
        assert tube[regions == label].unique().numel() == 1
        first, second, third = part[regions == label].split([3, 3, 1], dim=-1)
        blocks = [block.unique() for block in (first, second, third)]
        assert all(block.numel() == 1 for block in blocks)
        assert torch.cat(blocks).unique().numel() == 3
    assert tube.max() == 4 - 1
    assert part.max() == 4 * 3 - 1


def test_whole_units_are_masked(scheme, sizes):
    units = make_units(scheme, *sizes)
    for mask in draw_mask(units, ratio=0.5, n_clips=3, generator=make_generator()):
        for unit in units.unique():
            assert mask[units == unit].unique().numel() == 1


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.8])
def test_the_ratio_is_met_within_one_unit_and_never_all_or_none(scheme, sizes, ratio):
    units = make_units(scheme, *sizes)
    n_units = int(units.max()) + 1
    for mask in draw_mask(units, ratio=ratio, n_clips=3, generator=make_generator()):
        n_masked = units[mask].unique().numel()
        assert 1 <= n_masked < n_units
        assert abs(n_masked - ratio * n_units) < 1


def test_units_of_one_size_give_the_ratio_of_tokens():
    for scheme in ("random/random", "random/tube", "window/random", "window/tube"):
        units = make_units(scheme, (4, 4, 8, 8), (2, 4, 4, 4))
        mask = draw_mask(units, ratio=0.75, n_clips=2, generator=make_generator())
        assert (mask.flatten(1).float().mean(1) == 0.75).all()


def test_the_background_is_never_masked(sizes):
    grid, _ = sizes
    for scheme in ("atlas/random", "atlas/tube"):
        mask = draw_mask(
            make_units(scheme, *sizes), ratio=0.9, n_clips=8, generator=make_generator()
        )
        assert not mask[:, make_regions(grid) < 0].any()
        assert mask.flatten(1).any(1).all()


def test_each_clip_draws_for_itself():
    units = make_units("window/random", (8, 8, 8, 8), (2, 2, 2, 2))
    masks = draw_mask(units, ratio=0.5, n_clips=4, generator=make_generator())
    for other in range(1, 4):
        shared = (masks[0] & masks[other]).float().mean() / 0.5
        assert 0.3 < shared < 0.7


def test_the_generator_decides(scheme, sizes):
    units = make_units(scheme, *sizes)
    first, again, other = (
        draw_mask(units, ratio=0.5, n_clips=16, generator=make_generator(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_unit_is_drawn_as_often():
    units = make_units("atlas/tube", (5, 3, 4, 7), (2, 2, 2, 2))
    masks = draw_mask(units, ratio=0.5, n_clips=4000, generator=make_generator())
    shares = torch.stack([masks[:, units == unit][:, 0].float().mean() for unit in range(4)])
    torch.testing.assert_close(shares, torch.full((4,), 0.5), atol=0.03, rtol=0)


def test_places_in_a_window_are_those_that_the_encoder_sees():
    grid, window = (4, 6, 4, 8), (2, 3, 4, 4)
    places = partition_windows(index_in_window(grid, window)[None, ..., None], window).squeeze(-1)
    torch.testing.assert_close(places, torch.arange(96).expand_as(places))


def test_published_masks_are_unions_of_our_units(golden):
    numbers = np.load(golden / "mae.npz")
    grid, window = (8, 8, 8, 8), (4, 4, 4, 4)
    regions = torch.from_numpy(numbers["atlas_random.atlas_map"]).long() - 1  # 0 is background
    # Published region masks span the clip, whatever their scheme; published tubes one window of it.
    cases = {
        "window_random": ("window/random", window, None),
        "window_tube_B2": ("window/tube", window, None),
        "atlas_random": ("atlas/tube", window, regions),
        "atlas_tube": ("atlas/tube", window, regions),
    }
    for case, (name, sides, atlas) in cases.items():
        units = number_units(MaskScheme.parse(name), grid, window=sides, regions=atlas)
        bits = np.unpackbits(numbers[f"{case}.token_masked"])
        for mask in torch.from_numpy(bits).bool().view(-1, *grid):
            assert torch.equal(torch.isin(units, units[mask].unique()), mask), case


def test_a_scheme_reads_what_it_writes(scheme):
    assert str(MaskScheme.parse(scheme)) == scheme


def test_an_unknown_scheme_is_named():
    with pytest.raises(UsageError, match=r"window/random.*found 'tube/window'"):
        MaskScheme.parse("tube/window")
    with pytest.raises(DataError, match="as space, found 'cube'"):
        MaskScheme(space="cube", time="tube")


def test_regions_and_schemes_must_fit():
    grid, window = (4, 4, 4, 4), (2, 2, 2, 2)
    with pytest.raises(UsageError, match="atlas/tube needs regions"):
        number_units(MaskScheme.parse("atlas/tube"), grid, window=window)
    with pytest.raises(UsageError, match="window/tube takes no regions"):
        number_units(
            MaskScheme.parse("window/tube"), grid, window=window, regions=make_regions(grid)
        )
    with pytest.raises(UsageError, match=r"token grid \(4, 4, 4\), found \(5, 3, 4\)"):
        number_units(
            MaskScheme.parse("atlas/tube"), grid, window=window, regions=torch.zeros(5, 3, 4)
        )
    nothing = torch.full((4, 4, 4), -1)
    with pytest.raises(UsageError, match="No token belongs to a region"):
        number_units(MaskScheme.parse("atlas/tube"), grid, window=window, regions=nothing)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 75.0])
def test_a_ratio_outside_0_and_1_is_refused(ratio):
    units = torch.arange(16).view(2, 2, 2, 2)
    with pytest.raises(UsageError, match="mask ratio between 0 and 1"):
        draw_mask(units, ratio=ratio, n_clips=1, generator=make_generator())


def test_one_unit_alone_is_refused():
    units = torch.zeros(2, 2, 2, 2, dtype=torch.int64)
    with pytest.raises(UsageError, match=r"two or more units, found 0\.5 of 1"):
        draw_mask(units, ratio=0.5, n_clips=1, generator=make_generator())
