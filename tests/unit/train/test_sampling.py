from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.grid.censoring import Censoring
from neurostorm_bids.train.sampling import (
    Purpose,
    SampleOrder,
    TrainingRun,
    split_participants,
)


def make_run(participant, *, dataset="ds", n_volumes=100):
    return TrainingRun(
        dataset=dataset,
        participant=participant,
        label=f"sub-{participant}",
        path=Path(participant),
        n_volumes=n_volumes,
    )


@pytest.fixture
def runs():
    return [make_run("a", n_volumes=100), make_run("b", n_volumes=60), make_run("c", n_volumes=7)]


def test_a_sample_depends_on_seed_and_position_alone(runs):
    forwards = SampleOrder(runs, clip_length=20, seed=3)
    backwards = SampleOrder(reversed(runs), clip_length=20, seed=3)
    positions = range(50)
    assert [forwards[p] for p in positions] == [backwards[p] for p in reversed(positions)][::-1]
    other = SampleOrder(runs, clip_length=20, seed=4)
    assert [forwards[p] for p in positions] != [other[p] for p in positions]


def test_each_epoch_shows_every_run_as_often_as_it_has_clips_in_another_order(runs):
    order = SampleOrder(runs, clip_length=20)
    assert order.samples_per_epoch == 5 + 3 + 1
    epochs = [
        [order[epoch * 9 + place].run.participant for place in range(9)] for epoch in range(4)
    ]
    assert all(Counter(epoch) == {"a": 5, "b": 3, "c": 1} for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_weights_say_how_often_a_dataset_is_seen():
    runs = [make_run(str(i), dataset="small") for i in range(2)]
    runs += [make_run(str(i), dataset="large") for i in range(20)]
    order = SampleOrder(runs, clip_length=20, weights={"small": 3, "large": 1})
    epoch = [order[position] for position in range(order.samples_per_epoch)]
    seen = Counter(sample.run.dataset for sample in epoch)
    assert seen["small"] / seen["large"] == pytest.approx(3, rel=0.05)
    within_small = Counter(
        sample.run.participant for sample in epoch if sample.run.dataset == "small"
    )
    assert max(within_small.values()) - min(within_small.values()) <= 5


@pytest.mark.parametrize("weights", [{"x": 1}, {"ds": 0}, {"ds": 1, "x": 1}, {"ds": float("inf")}])
def test_weights_that_do_not_fit_the_datasets_are_refused(runs, weights):
    with pytest.raises(UsageError, match="one for each of the datasets ds"):
        SampleOrder(runs, clip_length=20, weights=weights)


@settings(max_examples=50, deadline=None)
@given(
    length=st.integers(1, 30),
    n_clips=st.integers(1, 3),
    spare=st.integers(0, 20),
    position=st.integers(0, 10**9),
)
def test_clips_of_a_sample_lie_in_the_run_and_never_overlap(length, n_clips, spare, position):
    run = make_run("a", n_volumes=length * n_clips + spare)
    order = SampleOrder([run], clip_length=length, clips_per_sample=n_clips)
    starts = sorted(order[position].starts)
    assert len(starts) == n_clips
    assert starts[0] >= 0
    assert starts[-1] + length <= run.n_volumes
    assert all(b - a >= length for a, b in pairwise(starts))


def test_every_place_a_clip_can_stand_is_visited():
    order = SampleOrder([make_run("a", n_volumes=12)], clip_length=10)
    assert {order[position].starts for position in range(60)} == {(0,), (1,), (2,)}


def test_a_pair_of_clips_comes_in_both_orders():
    order = SampleOrder([make_run("a", n_volumes=20)], clip_length=10, clips_per_sample=2)
    assert {order[position].starts for position in range(40)} == {(0, 10), (10, 0)}


def test_runs_too_short_for_two_clips_are_left_out_and_named(runs):
    order = SampleOrder(runs, clip_length=40, clips_per_sample=2)
    assert [run.participant for run in order.runs] == ["a"]
    assert [run.participant for run in order.left_out] == ["b", "c"]
    short = order.left_out[0]
    assert order.tell_lack(short) == f"too short for two clips: {short.n_volumes} of 80 volumes"
    with pytest.raises(DataError, match="at least 200 volumes"):
        SampleOrder(runs, clip_length=100, clips_per_sample=2)


def test_a_run_shorter_than_a_clip_is_read_from_its_first_volume(runs):
    order = SampleOrder([runs[2]], clip_length=20)
    assert order[0].starts == (0,)


def test_random_numbers_differ_by_position_purpose_and_seed(runs):
    orders = [SampleOrder(runs, clip_length=20, seed=seed) for seed in (0, 1)]
    seeds = [
        order[position].draw_seed(purpose)
        for order in orders
        for position in range(20)
        for purpose in Purpose
    ]
    assert len(set(seeds)) == len(seeds)
    draws = [torch.rand(3, generator=orders[0][5].make_generator(Purpose.MASK)) for _ in range(2)]
    assert torch.equal(*draws)


def test_the_fingerprint_tells_other_data_but_not_another_place(runs):
    order = SampleOrder(runs, clip_length=20)
    moved = [replace(run, path=Path("elsewhere") / run.path) for run in reversed(runs)]
    assert SampleOrder(moved, clip_length=20).fingerprint == order.fingerprint
    assert SampleOrder(runs[:2], clip_length=20).fingerprint != order.fingerprint
    assert SampleOrder(runs, clip_length=10).fingerprint != order.fingerprint


@settings(max_examples=50, deadline=None)
@given(
    labels=st.sets(st.text("0123456789ab", min_size=1), min_size=2, max_size=40),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_no_participant_is_on_both_sides_and_none_is_lost(labels, share, seed):
    split = split_participants(labels, share=share, seed=seed)
    assert split.training
    assert split.validation
    assert not split.training & split.validation
    assert split.training | split.validation == labels


def test_the_split_heeds_labels_not_their_order_or_how_often_they_come():
    labels = [str(number) for number in range(20)]
    split = split_participants(labels, share=0.2, seed=0)
    assert split_participants(reversed(labels * 3), share=0.2, seed=0) == split
    assert len(split.validation) == 4
    assert split_participants(labels, share=0.2, seed=1) != split


def test_who_is_set_aside_changes_little_when_participants_are_added():
    labels = [str(number) for number in range(100)]
    before = split_participants(labels, share=0.2, seed=0).validation
    after = split_participants([*labels, "new"], share=0.2, seed=0).validation
    assert len(before ^ after) <= 2


def test_one_participant_cannot_be_split():
    with pytest.raises(DataError, match="at least two participants"):
        split_participants(["01", "01"], share=0.5, seed=0)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        split_participants(["01", "02"], share=1.0, seed=0)


def censor(run, *volumes):
    return replace(
        run, censoring=Censoring(n_source_volumes=run.n_volumes, volumes=volumes, threshold_mm=0.5)
    )


@pytest.mark.parametrize("clips_per_sample", [1, 2])
def test_no_clip_is_drawn_that_holds_too_many_censored_volumes(clips_per_sample):
    run = censor(make_run("a", n_volumes=100), *range(40, 50))
    order = SampleOrder([run], clip_length=20, clips_per_sample=clips_per_sample)
    assert order.samples_per_epoch == 4
    allowed = set(run.find_starts(20).tolist())
    drawn = [order[position].starts for position in range(200)]
    assert {start for starts in drawn for start in starts} <= allowed
    assert len({start for starts in drawn for start in starts}) > 30
    if clips_per_sample == 2:
        assert all(abs(one - other) >= 20 for one, other in drawn)


def test_a_run_without_room_between_censored_volumes_is_left_out():
    whole, half = make_run("a", n_volumes=60), censor(make_run("b", n_volumes=60), *range(20, 60))
    assert SampleOrder([whole, half], clip_length=20, clips_per_sample=2).left_out == (half,)
    assert SampleOrder([whole, half], clip_length=20).left_out == ()
    none = censor(make_run("c", n_volumes=60), *range(0, 60, 2))
    order = SampleOrder([whole, none], clip_length=20)
    assert order.left_out == (none,)
    assert order.tell_lack(none) == "no room for one clip between its 30 censored volumes"


def test_censoring_nothing_changes_no_order(runs):
    censored = [censor(run) for run in runs]
    one, other = (SampleOrder(some, clip_length=20) for some in (runs, censored))
    assert [one[p].starts for p in range(20)] == [other[p].starts for p in range(20)]
    assert one.fingerprint != SampleOrder([censor(runs[0], 1)], clip_length=20).fingerprint
