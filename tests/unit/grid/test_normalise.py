from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.normalise import (
    Statistics,
    count_constant,
    drop_non_finite,
    find_statistics,
)
from neurostorm_bids.grid.resample import Clock, Frames, find_clock, interpolate_in_time
from neurostorm_bids.grid.spikes import doubt_spikes


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(8).normal(9000, 30, size=(12, 400)).astype(np.float32)


@pytest.fixture
def clock() -> Clock:
    return find_clock(12, source_repetition_time_s=2.0, repetition_time_s=0.8)


@pytest.mark.parametrize("clip_negatives", [True, False])
@pytest.mark.parametrize("shift", [0, -9000, -1e4])
def test_statistics_are_those_of_all_values_on_the_models_clock(
    frames, clock, shift, clip_negatives
) -> None:
    frames += np.float32(shift)
    frames[:, :200] += 2000
    values = interpolate_in_time(frames, clock, range(clock.n_volumes)).astype(np.float64)
    values = values.clip(0) if clip_negatives else values
    found = find_statistics(frames, clock, clip_negatives=clip_negatives, name="run")
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.sd == pytest.approx(values.std(ddof=1), rel=1e-9)
    assert found.minimum == values.min()
    assert found.n_values == values.size
    assert found.background == pytest.approx((values.min() - values.mean()) / values.std(ddof=1))


def test_statistics_do_not_depend_on_how_many_threads_blas_has(clock) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (12, 200_003)).astype(np.float32)
    found = []
    for n_threads in (1, 2, 3):
        with threadpool_limits(n_threads, user_api="blas"):
            found.append(find_statistics(frames, clock, clip_negatives=False, name="run"))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("value", [0, 3, -1e5])
def test_statistics_of_a_constant_are_refused(frames, clock, value) -> None:
    frames[:] = value
    with pytest.raises(DataError, match="The brain of run holds no signal"):
        find_statistics(frames, clock, clip_negatives=False, name="run")


def test_statistics_of_what_clipping_leaves_nothing_of_are_refused(frames, clock) -> None:
    with pytest.raises(DataError, match="holds no signal"):
        find_statistics(-frames, clock, clip_negatives=True, name="run")


@given(seed=st.integers(0, 999), n_bad=st.integers(0, 4))
def test_dropping_voxels_keeps_the_others_as_they_are(seed, n_bad) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(7, 40)).astype(np.float32)
    finite = np.ones(40, dtype=bool)
    finite[random.choice(40, n_bad, replace=False)] = False
    expected = values[:, finite]
    np.testing.assert_array_equal(drop_non_finite(Frames(values, finite), name="run"), expected)


def test_voxels_are_dropped_without_a_second_copy_of_the_run(frames) -> None:
    finite = np.arange(400) % 20 > 0
    assert np.shares_memory(drop_non_finite(Frames(frames, finite), name="run"), frames)


@pytest.mark.parametrize(("n_bad", "is_refused"), [(40, False), (41, True), (400, True)])
def test_a_tenth_of_the_brain_may_be_missing_and_no_more(frames, n_bad, is_refused) -> None:
    finite = np.arange(400) >= n_bad
    if not is_refused:
        assert drop_non_finite(Frames(frames, finite), name="run").shape == (12, 400 - n_bad)
        return
    with pytest.raises(DataError, match=f"{n_bad} of 400 brain voxels of run are NaN"):
        drop_non_finite(Frames(frames, finite), name="run")


def test_a_run_that_is_constant_in_time_holds_no_signal():
    frames = np.tile(np.arange(50, dtype=np.float32), (6, 1))
    with pytest.raises(DataError, match="no signal"):
        count_constant(frames, name="a test")


def test_spikes_are_told_and_noise_is_not():
    frames = np.random.default_rng(0).normal(1000, 10, size=(40, 500)).astype(np.float32)
    sound = Statistics(mean=1000.0, sd=10.0, minimum=900.0, n_values=frames.size)
    assert doubt_spikes(frames, sound) == []
    frames[7] += 200
    frames[3, 5] = 5000
    told = " ".join(doubt_spikes(frames, sound))
    assert "volumes are spikes" in told
    assert "3, 7." in told
    assert "the z-score rests on them" in told
