from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.clips import ClipReader, find_clip_starts, weigh_clips

LENGTHS = st.integers(1, 60)


@given(n_volumes=st.integers(1, 400), clip_length=LENGTHS)
def test_clips_show_every_volume_and_only_the_last_two_overlap(n_volumes, clip_length) -> None:
    starts = find_clip_starts(n_volumes, clip_length)
    shown = np.zeros(max(n_volumes, clip_length), dtype=int)
    for start in starts:
        shown[start : start + clip_length] += 1
    assert shown.min() == 1
    assert all(step == clip_length for step in np.diff(starts)[:-1])
    assert shown.sum() == len(starts) * clip_length


@given(n_volumes=st.integers(1, 400), clip_length=LENGTHS, seed=st.integers(0, 99))
def test_weighted_mean_over_clips_is_the_mean_over_volumes_where_clips_do_not_overlap(
    n_volumes, clip_length, seed
) -> None:
    n_volumes = max(n_volumes // clip_length, 1) * clip_length
    values = np.random.default_rng(seed).normal(size=n_volumes)
    starts = find_clip_starts(n_volumes, clip_length)
    means = [values[start : start + clip_length].mean() for start in starts]
    weights = weigh_clips(starts, clip_length, n_volumes)
    assert weights @ means == pytest.approx(values.mean(), abs=1e-12)


@given(n_volumes=st.integers(1, 400), clip_length=LENGTHS)
def test_weights_are_positive_and_sum_to_one(n_volumes, clip_length) -> None:
    starts = find_clip_starts(n_volumes, clip_length)
    weights = weigh_clips(starts, clip_length, n_volumes)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() > 0


def test_overlapping_clips_share_the_volumes_they_both_show() -> None:
    weights = weigh_clips([0, 20, 25], 20, 45)
    np.testing.assert_allclose(weights * 45, [20, 5 + 15 / 2, 5 + 15 / 2])


@pytest.mark.parametrize(
    ("n_volumes", "expected"), [(7, [0]), (20, [0]), (21, [0, 1]), (40, [0, 20]), (45, [0, 20, 25])]
)
def test_starts_of_clips_of_twenty(n_volumes, expected) -> None:
    assert find_clip_starts(n_volumes, 20) == expected


@pytest.mark.parametrize(("n_volumes", "clip_length"), [(0, 20), (20, 0), (-1, 5)])
def test_clips_of_nothing_are_refused(n_volumes, clip_length) -> None:
    with pytest.raises(UsageError, match="at least one volume"):
        find_clip_starts(n_volumes, clip_length)


@pytest.mark.parametrize("starts", [[], [-1], [45], [0, 50]])
def test_weights_of_clips_outside_the_run_are_refused(starts) -> None:
    with pytest.raises(UsageError, match="begin inside the run"):
        weigh_clips(starts, 20, 45)


class Film:
    """A series whose clips show their own start; it knows what was begun."""

    def __init__(self):
        self.begun = {start: threading.Event() for start in range(0, 50, 10)}
        self.n_read = 0
        self.damaged = None

    def read_clip(self, start, length):
        self.n_read += 1
        self.begun[start].set()
        if start == self.damaged:
            raise ValueError("damaged")
        return np.full((2, 2, 2, length), start, dtype=np.float32)


@pytest.mark.parametrize("n_threads", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_clips_are_the_same_however_they_are_read(n_threads, size) -> None:
    starts, film = list(range(0, 50, 10)), Film()
    with ClipReader(film, starts, length=4, n_threads=n_threads) as reader:
        for at in range(0, 5, size):
            batch = reader.read(starts[at : at + size])
            assert batch.shape == (len(starts[at : at + size]), 2, 2, 2, 4)
            assert batch[:, 0, 0, 0, 0].tolist() == starts[at : at + size]
    assert film.n_read == 5


def test_the_next_clips_are_read_while_some_are_used() -> None:
    film, before = Film(), set(threading.enumerate())
    with ClipReader(film, [0, 10, 20, 30, 40], length=4, n_threads=1) as reader:
        reader.read([0, 10])
        assert all(film.begun[start].wait(60) for start in (20, 30))
        assert not film.begun[40].is_set()
    assert set(threading.enumerate()) <= before


def test_clips_that_did_not_fit_at_once_are_read_again() -> None:
    """As where a device ran out of memory."""
    with ClipReader(Film(), [0, 10, 20, 30], length=4, n_threads=1) as reader:
        seen = [reader.read(batch)[:, 0, 0, 0, 0].tolist() for batch in ([0, 10], [0], [10], [20])]
    assert seen == [[0, 10], [0], [10], [20]]


def test_a_clip_that_cannot_be_read_ahead_fails_in_its_turn() -> None:
    film = Film()
    film.damaged = 10
    with ClipReader(film, [0, 10, 20], length=4, n_threads=1) as reader:
        reader.read([0])
        with pytest.raises(ValueError, match="damaged"):
            reader.read([10])
