"""Labels choose runs; of files that hold the same series one is taken."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import SelectionError
from neurostorm_bids.inputs import Selection, SourceDataset
from neurostorm_bids.inputs.names import parse_name
from neurostorm_bids.inputs.scan import Candidate
from neurostorm_bids.inputs.selection import choose_participants, explain_choice, explain_labels

ENTITIES = {"sub": "01", "ses": "A", "task": "rest", "run": "01", "space": "MNI152NLin6Asym"}
PREFERRED = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")


def candidate(
    grid, *, dataset="fmriprep", series="sub-01_task-rest", desc="preproc", end=".nii.gz"
):
    name = f"{series}_{grid}_desc-{desc}_bold{end}"
    source = SourceDataset(name=dataset, path=Path("/", dataset))
    return Candidate(source.path / name, parse_name(name), source, frozenset())


def choose(candidates, dataset_names=("fmriprep",)):
    reasons = explain_choice(
        candidates, preferred_spaces=PREFERRED, dataset_names=list(dataset_names)
    )
    return [one for one in candidates if one.path not in reasons], reasons


@pytest.mark.parametrize("labels", [("01", "sub-02"), ("sub-01", "02"), ("02", "01", "sub-01")])
def test_participants_are_chosen_with_and_without_prefix(labels):
    selection = Selection(participant_labels=labels)
    assert choose_participants({"10", "02", "01"}, selection) == ["01", "02"]


def test_participants_are_excluded_with_and_without_prefix(caplog):
    selection = Selection(exclude_participant_labels=("sub-9", "10", "absent"))
    assert choose_participants({"10", "9", "11"}, selection) == ["11"]
    assert "absent" in caplog.text


def test_no_choice_is_everyone_in_natural_order():
    assert choose_participants(["10", "9", "B", "A"], Selection()) == ["9", "10", "A", "B"]


def test_an_absent_participant_is_named_beside_those_who_are_there():
    with pytest.raises(SelectionError, match=r"No participant 1, X in .* There are: 01, 02\."):
        choose_participants(["01", "02"], Selection(participant_labels=("X", "sub-1", "02")))


def test_a_long_list_of_participants_is_cut():
    there = [f"{number:03d}" for number in range(100)]
    with pytest.raises(SelectionError, match="019 and 80 more"):
        choose_participants(there, Selection(participant_labels=("X",)))


def test_excluding_everyone_is_an_error():
    with pytest.raises(SelectionError, match="Every participant is excluded"):
        choose_participants(["01"], Selection(exclude_participant_labels=("01",)))


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(session_ids=("A",), task_ids=("rest",), run_ids=("01",)),
        Selection(session_ids=("ses-A", "B"), task_ids=("task-rest",), run_ids=("run-1",)),
        Selection(run_ids=("1",), space="MNI152NLin6Asym"),
        Selection(run_ids=("2", "0001"), space="space-MNI152NLin6Asym"),
    ],
)
def test_labels_agree_with_and_without_prefix_and_runs_by_number(selection):
    assert explain_labels(ENTITIES, selection) is None


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (Selection(session_ids=("a",)), "it has ses-A, and --session-id asks for a"),
        (
            Selection(task_ids=("nback", "task-x")),
            "it has task-rest, and --task-id asks for nback, x",
        ),
        (Selection(run_ids=("10",)), "it has run-01, and --run-id asks for 10"),
        (Selection(space="T1w"), "it has space-MNI152NLin6Asym, and --space asks for T1w"),
    ],
)
def test_a_label_that_does_not_agree_is_the_reason(selection, reason):
    assert explain_labels(ENTITIES, selection) == reason


def test_a_label_that_the_file_lacks_does_not_agree():
    without = {key: value for key, value in ENTITIES.items() if key != "run"}
    reason = explain_labels(without, Selection(run_ids=("1",)))
    assert reason == "it has no run-, and --run-id asks for 1"


def test_the_preferred_space_is_taken_then_the_next_then_any():
    ordered = [candidate(f"space-{space}") for space in (*PREFERRED, "MNI152Lin", "MNI152NLin6Sym")]
    for start in range(len(ordered)):
        for shuffled in itertools.permutations(ordered[start:]):
            chosen, reasons = choose(shuffled)
            assert chosen == [ordered[start]]
            assert all(f"space-{chosen[0].entities['space']} of" in one for one in reasons.values())


def test_in_one_space_no_res_is_taken_then_2_then_the_others():
    ordered = [
        candidate(f"space-MNI152NLin6Asym{res}") for res in ("", "_res-02", "_res-1", "_res-native")
    ]
    for start in range(len(ordered)):
        for shuffled in itertools.permutations(ordered[start:]):
            assert choose(shuffled)[0] == [ordered[start]]
    assert (
        choose(ordered)[1][ordered[2].path] == "the file without res- of the same series is taken"
    )
    assert choose(ordered[1:])[1][ordered[2].path] == "res-02 of the same series is taken"


def test_space_goes_before_res():
    chosen, _ = choose(
        [candidate("space-MNI152NLin2009cAsym"), candidate("space-MNI152NLin6Asym_res-1")]
    )
    assert chosen[0].entities["space"] == "MNI152NLin6Asym"


def test_other_runs_and_other_preprocessing_are_other_series():
    candidates = [
        candidate("space-MNI152NLin6Asym"),
        candidate("space-MNI152NLin6Asym", desc="denoised"),
        candidate("space-MNI152NLin2009cAsym", series="sub-01_task-rest_run-1"),
        candidate("space-MNI152NLin2009cAsym", series="sub-02_task-rest"),
        candidate("space-MNI152NLin2009cAsym", series="sub-01_task-rest_part-mag"),
    ]
    assert choose(candidates) == (candidates, {})


def test_the_first_dataset_that_has_the_series_is_read():
    old = candidate("space-MNI152NLin6Asym", dataset="old")
    new = candidate("space-MNI152NLin2009cAsym", dataset="new")
    chosen, reasons = choose([old, new], dataset_names=("new", "old"))
    assert chosen == [new]
    assert "dataset new has the same series" in reasons[old.path]


def test_of_a_compressed_twin_one_is_taken():
    twins = [candidate("space-MNI152NLin6Asym", end=end) for end in (".nii.gz", ".nii")]
    chosen, reasons = choose(twins)
    assert len(chosen) == 1
    assert "holds the same series" in next(iter(reasons.values()))


@given(
    st.lists(
        st.builds(
            candidate,
            st.sampled_from(
                ["space-MNI152NLin6Asym", "space-MNI152Lin_res-1", "space-MNI152Lin_res-2"]
            ),
            dataset=st.sampled_from(["a", "b"]),
            series=st.sampled_from(["sub-01_task-rest", "sub-01_task-rest_run-1", "sub-02_task-x"]),
            desc=st.sampled_from(["preproc", "denoised"]),
        ),
        unique_by=lambda one: one.path,
    ),
    st.randoms(use_true_random=False),
)
def test_one_file_of_each_series_is_taken_in_whatever_order_they_come(candidates, random):
    chosen, reasons = choose(candidates, dataset_names=("a", "b"))
    series = {(one.path.name.split("_space")[0], one.entities["desc"]) for one in candidates}
    assert len(chosen) == len(series)
    assert len(chosen) + len(reasons) == len(candidates)
    shuffled = random.sample(candidates, len(candidates))
    assert {one.path for one in choose(shuffled, dataset_names=("a", "b"))[0]} == {
        one.path for one in chosen
    }
