"""What survives the rounding to 8 and 16 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.quantise import (
    MAX_STEP_IN_SD,
    MIN_CORRELATION,
    count_coarse_voxels,
    make_quantisation,
)

FLOAT32 = np.finfo(np.float32)


def read_back(frames, n_bits=8):
    quantisation = make_quantisation(frames, n_bits)
    return quantisation.decode(np.stack(list(quantisation.encode(frames))))


def correlate(x, y):
    x, y = (a - a.mean(axis=0, dtype=np.float64) for a in (x, y))
    return (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))


@pytest.fixture
def fluctuation():
    """Return a base of 1000 with a slow wave of 0.5 % and noise of 0.5 %; shape (300, 400)."""
    rng = np.random.default_rng(1)
    wave = np.sin(0.1 * np.arange(300))[:, None]
    noise = rng.standard_normal((300, 400))
    return (1000 + 5 * wave + 5 * noise).astype(np.float32)


@given(
    frames=arrays(
        np.float32, (7, 5), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
    ),
    n_bits=st.sampled_from([8, 16]),
)
def test_the_error_is_at_most_half_a_step(frames, n_bits):
    step = make_quantisation(frames, n_bits).step
    # A range whose steps would be subnormal counts as constant.
    constant = 2**n_bits * FLOAT32.tiny
    rounding = 4 * FLOAT32.eps * np.abs(frames).max(axis=0) + constant
    assert np.all(np.abs(read_back(frames, n_bits) - frames) <= 0.5 * step + rounding)


def test_half_a_percent_of_fluctuation_survives(fluctuation):
    assert correlate(read_back(fluctuation), fluctuation).min() >= 0.999


def test_more_bits_keep_more(fluctuation):
    errors = [np.abs(read_back(fluctuation, n_bits) - fluctuation).max() for n_bits in (8, 16)]
    assert errors[1] < errors[0] / 100


def test_a_constant_voxel_is_exact():
    frames = np.tile(np.float32([0, 0.1, -1e-30, 3e38]), (5, 1))
    np.testing.assert_array_equal(read_back(frames), frames)


def test_two_neighbouring_floats_stay_apart():
    frames = np.float32([[1000], [np.nextafter(np.float32(1000), np.float32(2000))]])
    np.testing.assert_array_equal(read_back(frames), frames)


def test_what_was_read_back_once_stays_as_it_is(fluctuation):
    once = read_back(fluctuation)
    np.testing.assert_allclose(read_back(once), once, rtol=1e-6)


def test_nothing_is_clipped(fluctuation):
    fluctuation[17, 3], fluctuation[40, 3] = 9e5, -9e5
    kept = read_back(fluctuation)
    assert kept[17, 3] == pytest.approx(9e5)
    assert kept[40, 3] == pytest.approx(-9e5)


def test_the_bound_on_steps_is_where_the_correlation_falls_below_its_limit():
    frames = np.random.default_rng(2).standard_normal((200_000, 1))
    rounded = np.rint(frames / MAX_STEP_IN_SD) * MAX_STEP_IN_SD
    assert correlate(rounded, frames)[0] == pytest.approx(MIN_CORRELATION, abs=2e-5)


def test_spikes_that_drown_the_fluctuation_are_counted(fluctuation):
    clean = fluctuation.copy()
    fluctuation[100, :6] += 2000  # 280 SD
    quantisation = make_quantisation(fluctuation, 8)
    assert count_coarse_voxels(fluctuation, quantisation) == 6

    without_spike = np.delete(np.arange(300), 100)
    kept = correlate(read_back(fluctuation)[without_spike], clean[without_spike])
    np.testing.assert_array_equal(kept < MIN_CORRELATION, np.arange(400) < 6)


def test_16_bits_keep_the_fluctuation_under_spikes(fluctuation):
    fluctuation[100] += 2000
    quantisation = make_quantisation(fluctuation, 16)
    assert count_coarse_voxels(fluctuation, quantisation) == 0
    without_spike = np.delete(np.arange(300), 100)
    kept = correlate(read_back(fluctuation, 16)[without_spike], fluctuation[without_spike])
    assert kept.min() >= MIN_CORRELATION


@pytest.mark.parametrize("n_volumes", [1, 2, 3, 63, 64, 65])
def test_constant_voxels_are_not_coarse_in_runs_of_any_length(n_volumes):
    frames = np.ones((n_volumes, 4), dtype=np.float32)
    assert count_coarse_voxels(frames, make_quantisation(frames, 8)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    frames = np.ones((3, 4), dtype=np.float32)
    frames[1, 2] = value
    with pytest.raises(DataError, match="found 1 of 4 voxels with NaN"):
        make_quantisation(frames, 8)
