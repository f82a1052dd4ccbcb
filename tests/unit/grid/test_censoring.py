"""Clips are left out when more than a fifth of the run's volumes in them moved too much."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.censoring import Censoring
from neurostorm_bids.grid.clips import find_clip_starts


def censor(n, *volumes):
    return Censoring(n_source_volumes=n, volumes=volumes, threshold_mm=0.5)


def test_a_fifth_is_allowed_and_more_is_not():
    found = censor(40, 0, 1, 2, 3, 20, 21, 22, 23, 24).count([0, 20], 20, n_volumes=40)
    assert found.n_censored.tolist() == [4, 5]
    assert found.n_volumes.tolist() == [20, 20]
    assert found.is_used.tolist() == [True, False]


def test_volumes_of_a_slow_run_count_once_on_a_fast_clock():
    # 20 volumes of 2 s are 50 of 0.8 s; a clip of 20 holds 8 volumes.
    found = censor(20, 1, 2).count([0, 20, 30], 20, n_volumes=50)
    assert found.n_volumes.tolist() == [8, 8, 8]
    assert found.n_censored.tolist() == [2, 0, 0]
    assert found.is_used.tolist() == [False, True, True]


@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 30), st.sets(st.integers(0, 59)))
def test_clips_side_by_side_hold_every_volume_once(n_source, n_volumes, length, volumes):
    censoring = censor(n_source, *sorted(v for v in volumes if v < n_source))
    starts = list(range(0, n_volumes, length))
    found = censoring.count(starts, length, n_volumes=n_volumes)
    assert found.n_volumes.sum() == n_source
    assert found.n_censored.sum() == len(censoring.volumes)


def test_every_place_that_may_be_drawn_can_be_used():
    censoring = censor(100, *range(30, 40), 77)
    starts = censoring.find_starts(20, n_volumes=100)
    assert censoring.count(starts, 20, n_volumes=100).is_used.all()
    assert set(range(81)) - set(starts.tolist()) == set(range(15, 36))


def test_a_run_without_a_usable_clip_is_refused_with_the_numbers():
    censoring = censor(40, *range(0, 40, 3))
    found = censoring.count(find_clip_starts(40, 20), 20, n_volumes=40)
    with pytest.raises(DataError, match=r"14 of its 40 volumes are censored .*0\.5 mm.* 20%"):
        censoring.check_any(found, name="the run")


def test_it_survives_json():
    censoring = Censoring.from_mask(np.array([False, True, True]), threshold_mm=None)
    assert Censoring.from_dict(json.loads(json.dumps(asdict(censoring)))) == censoring
    assert Censoring.from_dict(None) is None
