from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.clips import find_clip_starts, weigh_clips

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
