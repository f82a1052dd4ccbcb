from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.events import (
    Event,
    find_events,
    label_clips,
    read_conditions,
    read_events,
)
from neurostorm_bids.inputs.targets import make_target

BLOCKS = [Event(0, 20, "face"), Event(20, 20, "house"), Event(60, 20, "face")]


def write_events(path, *rows, header="onset\tduration\ttrial_type"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_clip_gets_the_condition_that_covers_most_of_it():
    assert label_clips(BLOCKS, [0, 10, 20, 40, 65], 10, delay_s=0) == [
        "face",
        "face",
        "house",
        None,
        "face",
    ]


def test_the_delay_moves_the_labels_later():
    assert label_clips(BLOCKS, [0, 20], 10, delay_s=0) == ["face", "house"]
    assert label_clips(BLOCKS, [0, 20], 10, delay_s=6) == [None, "face"]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 30), st.sampled_from("abc")), max_size=8),
    st.integers(0, 20),
)
def test_delaying_is_the_same_as_looking_earlier(blocks, delay):
    events = [Event(*block) for block in blocks]
    onsets = np.arange(0, 120, 7)
    assert label_clips(events, onsets, 9, delay_s=delay) == label_clips(
        events, onsets - delay, 9, delay_s=0
    )


@given(st.permutations(BLOCKS))
def test_the_order_of_events_does_not_matter(events):
    onsets = np.arange(0, 90, 5)
    assert label_clips(events, onsets, 8) == label_clips(BLOCKS, onsets, 8)


def test_overlapping_events_of_one_condition_count_once():
    events = [Event(0, 3, "a"), Event(1, 2, "a"), Event(0, 3, "a"), Event(4, 5, "b")]
    assert label_clips(events, [0], 10, delay_s=0) == ["b"]


def test_two_conditions_that_cover_the_same_give_no_label():
    events = [Event(0, 5, "a"), Event(5, 5, "b")]
    assert label_clips(events, [0], 10, delay_s=0) == [None]


def test_events_without_duration_label_no_clip():
    assert label_clips([Event(0, 0, "a"), Event(2, 0, "a")], [0], 4, delay_s=0) == [None]
    assert label_clips([], [0, 4], 4) == [None, None]


def test_rounding_of_times_does_not_decide():
    assert label_clips([Event(0, 0.8 * 3, "a")], [0], 4.8, delay_s=0) == ["a"]


def test_events_are_read_and_what_is_left_out_is_counted(tmp_path):
    path = write_events(
        tmp_path / "sub-01_task-x_events.tsv", "-2.5\t4\ta", "3\tn/a\tb", "9\t1\tn/a", "12\t0\tc"
    )
    events = read_events(path)
    assert events.events == [Event(-2.5, 4, "a"), Event(12, 0, "c")]
    assert "1 event(s) have no trial_type" in events.notes[0]
    assert "1 event(s) have no duration" in events.notes[1]


@pytest.mark.parametrize(
    ("row", "header", "words"),
    [
        ("1\t-1\ta", "onset\tduration\ttrial_type", "found '1' and '-1' in line 2"),
        ("x\t1\ta", "onset\tduration\ttrial_type", "found 'x' and '1'"),
        ("1\t1", "onset\tduration", r"\['trial_type'\] are not there"),
    ],
)
def test_broken_events_are_refused(tmp_path, row, header, words):
    path = write_events(tmp_path / "sub-01_task-x_events.tsv", row, header=header)
    with pytest.raises(DataError, match=words):
        read_events(path)


def test_the_events_of_a_run_are_found_by_its_entities(tmp_path):
    run = {"sub": "01", "ses": "2", "task": "x", "run": "1", "space": "MNI152NLin6Asym"}
    func = tmp_path / "sub-01" / "ses-2" / "func"
    assert find_events(run, roots=[tmp_path]) is None
    inherited = write_events(tmp_path / "task-x_events.tsv")
    assert find_events(run, roots=[tmp_path]) == inherited
    write_events(func / "sub-01_ses-2_task-y_events.tsv")
    write_events(func / "sub-01_ses-2_task-x_run-2_events.tsv")
    assert find_events(run, roots=[tmp_path]) == inherited
    own = write_events(func / "sub-01_ses-2_task-x_run-1_events.tsv")
    write_events(func / "sub-01_ses-2_task-x_events.tsv")
    assert find_events(run, roots=[tmp_path / "elsewhere", tmp_path]) == own


def test_clips_of_several_runs_become_one_target(tmp_path):
    for label in ("01", "02"):
        func = tmp_path / f"sub-{label}" / "func"
        write_events(func / f"sub-{label}_task-x_events.tsv", "0\t10\ta", "10\t10\tb")
    runs = [{"sub": label, "task": "x"} for label in ("02", "01", "03")]
    column = read_conditions(
        runs, [[0, 10, 20], [10], [0]], [10, 10, 10], roots=[tmp_path], delay_s=0
    )
    assert column.cells == ("a", "b", None, "b", None)
    assert column.participants == ("02", "02", "02", "01", "03")
    assert column.reasons[2] == "no trial_type covers enough of the clip"
    assert column.reasons[4] == "no events.tsv"
    assert len(set(column.keys)) == 5
    assert make_target(column).classes == ("a", "b")
