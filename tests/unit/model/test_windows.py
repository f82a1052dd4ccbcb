from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.model import windows
from neurostorm_bids.model.windows import (
    cut_windows,
    fit_window,
    index_windows,
    join_windows,
    merge_windows,
    pad_to_windows,
    partition_windows,
    shift,
)

sides = st.tuples(*[st.integers(1, 3)] * 4)
grids = st.tuples(*[st.integers(1, 5)] * 4)


def number_tokens(*grid):
    """A feature map (1, X, Y, Z, T, 1) that numbers its tokens, T fastest, from 1."""
    return torch.arange(1, math.prod(grid) + 1).view(1, *grid, 1)


@settings(max_examples=25, deadline=None)
@given(window=sides, counts=sides)
def test_merge_undoes_partition(window, counts):
    grid = [side * count for side, count in zip(window, counts, strict=True)]
    x = torch.randn(2, *grid, 3)
    windows = partition_windows(x, window)
    assert windows.shape == (2 * math.prod(counts), math.prod(window), 3)
    assert torch.equal(merge_windows(windows, window, grid=grid), x)


@settings(max_examples=50, deadline=None)
@given(grid=grids, window=sides, shifted=st.booleans())
def test_join_undoes_cut_on_any_grid(grid, window, shifted):
    x = torch.randn(2, *grid, 3)
    window, steps = fit_window(grid, window, shifted=shifted)
    assert torch.equal(join_windows(cut_windows(x, window, steps), window, steps, grid=grid), x)


@settings(max_examples=50, deadline=None)
@given(grid=grids, window=sides, shifted=st.booleans())
def test_the_index_says_where_each_token_went(grid, window, shifted):
    x = torch.randn(2, *grid, 3)
    window, steps = fit_window(grid, window, shifted=shifted)
    index = index_windows((2, *grid), window, steps, device=x.device)
    padded = torch.cat([x.reshape(-1, 3), torch.zeros(1, 3)])  # -1 reads the zeros
    assert torch.equal(padded[index], cut_windows(x, window, steps))
    tokens = index[index >= 0]
    assert torch.equal(tokens.sort().values, torch.arange(2 * math.prod(grid)))


def test_within_a_window_x_runs_slowest_and_t_fastest():
    windows = partition_windows(number_tokens(2, 2, 2, 4), (2, 2, 2, 2))
    first = [1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22, 25, 26, 29, 30]
    assert windows[0, :, 0].tolist() == first
    assert windows[1, :, 0].tolist() == [token + 2 for token in first]


def test_zeros_are_padded_at_the_far_end():
    padded = pad_to_windows(number_tokens(1, 1, 3, 3), (1, 1, 2, 4))
    assert padded.shape == (1, 1, 1, 4, 4, 1)
    assert torch.equal(padded[:, :, :, :3, :3], number_tokens(1, 1, 3, 3))
    assert padded[:, :, :, 3:].count_nonzero() == 0
    assert padded[..., 3:, :].count_nonzero() == 0


def test_what_a_shift_pushes_out_comes_in_at_the_end():
    moved = shift(number_tokens(1, 1, 1, 5), (0, 0, 0, 2))
    assert moved.flatten().tolist() == [3, 4, 5, 1, 2]


@pytest.mark.parametrize(
    ("grid", "window", "expected"),
    [
        ((8, 8, 8, 20), (4, 4, 4, 4), ((4, 4, 4, 4), (2, 2, 2, 2))),
        ((4, 2, 8, 5), (4, 4, 5, 4), ((4, 2, 5, 4), (0, 0, 2, 2))),
        ((1, 1, 1, 3), (4, 4, 4, 4), ((1, 1, 1, 3), (0, 0, 0, 0))),
    ],
)
def test_an_axis_no_longer_than_the_window_shrinks_it_and_is_not_shifted(grid, window, expected):
    assert fit_window(grid, window, shifted=True) == expected
    assert fit_window(grid, window, shifted=False) == (expected[0], (0, 0, 0, 0))


def test_an_index_that_is_kept_is_the_same_and_may_be_used_with_gradients():
    arguments = ((2, 3, 2, 2, 5), (2, 2, 2, 2), (1, 1, 0, 1))
    expected = index_windows(*arguments, device=torch.device("cpu"))
    windows._keep_index.cache_clear()
    with torch.inference_mode():
        kept = windows._keep_index(*arguments, torch.device("cpu"))
    assert torch.equal(kept, expected)
    assert not kept.is_inference()
    assert windows._keep_index(*arguments, torch.device("cpu")) is kept


@settings(max_examples=25, deadline=None)
@given(window=sides, grid=grids, n_clips=st.integers(1, 3), shifted=st.booleans())
def test_an_index_of_several_clips_is_the_same_whoever_made_it(window, grid, n_clips, shifted):
    window, steps = fit_window(grid, window, shifted=shifted)
    arguments = ((n_clips, *grid), window, steps, torch.device("cpu"))
    expected = windows._make_index(*arguments)
    for _ in range(2):
        assert torch.equal(index_windows(*arguments[:3], device=arguments[3]), expected)
