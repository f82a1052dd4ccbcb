"""BIDS file names are read strictly and written back unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.inputs.names import (
    drop_prefix,
    is_same_index,
    join_entities,
    natural_key,
    parse_name,
)

LABELS = st.text("0123456789abcXYZ+", min_size=1, max_size=8)
KEYS = st.text("abcdefghij", min_size=1, max_size=6)


@given(st.dictionaries(KEYS, LABELS, min_size=1, max_size=6), st.sampled_from(["bold", "T1w"]))
def test_a_parsed_name_is_written_back_unchanged(entities, suffix):
    name = f"{join_entities(entities)}_{suffix}.nii.gz"
    parts = parse_name(name)
    assert list(parts.entities.items()) == list(entities.items())
    assert (parts.suffix, parts.extension) == (suffix, ".nii.gz")


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_without_an_exception(text):
    parts = parse_name(text)
    if parts is not None:
        joined = "".join(f"{key}-{value}_" for key, value in parts.entities.items())
        assert joined + parts.suffix + parts.extension == text


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_task-rest_bold.nii.gz\n",
        "sub-01_task-re st_bold.nii.gz",
        "sub-01_task-rêst_bold.nii.gz",
        "sub-01_task-a_task-b_bold.nii.gz",
        "sub-01_task-_bold.nii.gz",
        "sub-01_task_bold.nii.gz",
        "sub-٣_bold.nii.gz",
        "../sub-01_bold.nii.gz",
        "sub-01_bold",
        ".json",
        "",
    ],
)
def test_a_name_that_bids_does_not_allow_is_refused(name):
    assert parse_name(name) is None


def test_a_name_without_entities_has_a_suffix_and_an_extension():
    assert parse_name("bold.json") == ({}, "bold", ".json")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("1", "01", True), ("10", "1", False), ("00", "0", True), ("A", "a", False), ("A", "A", True)],
)
def test_labels_that_are_numbers_are_compared_as_numbers(one, other, same):
    assert is_same_index(one, other) is same


def test_a_prefix_is_dropped_once_and_only_at_the_start():
    assert drop_prefix("sub-01", "sub") == "01"
    assert drop_prefix("01", "sub") == "01"
    assert drop_prefix("sub-sub-01", "sub") == "sub-01"


def test_numbers_inside_names_sort_by_value_and_ties_by_text():
    names = ["run-10", "run-2", "run-02", "run-1", "a"]
    assert sorted(names, key=natural_key) == ["a", "run-1", "run-02", "run-2", "run-10"]
