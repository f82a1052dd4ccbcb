"""Participants in tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.executor.packing import BYTES_PER_TASK, MAX_TASKS, pack_participants

GB = 1_000_000_000


def test_large_participants_get_a_task_each_and_small_ones_share():
    sizes = {"01": 2 * GB, "02": GB // 4, "03": GB // 4, "04": GB // 4, "05": 3 * GB}
    assert pack_participants(sizes) == [("01",), ("02", "03", "04"), ("05",)]


def test_the_number_per_task_can_be_given():
    sizes = dict.fromkeys("abcde", GB)
    packs = pack_participants(sizes, participants_per_task=2)
    assert packs == [("a", "b"), ("c", "d"), ("e",)]


def test_nobody_makes_no_task():
    assert pack_participants({}) == []


@pytest.mark.parametrize("size", [0, BYTES_PER_TASK * 3])
def test_an_array_is_never_larger_than_slurm_allows(size):
    sizes = {str(number): size for number in range(2 * MAX_TASKS + 1)}
    assert len(pack_participants(sizes)) <= MAX_TASKS


@given(st.lists(st.integers(0, 3 * GB), max_size=40), st.none() | st.integers(1, 5))
def test_everybody_is_in_one_task_and_in_order(sizes, participants_per_task):
    people = {str(number): size for number, size in enumerate(sizes)}
    packs = pack_participants(people, participants_per_task=participants_per_task)
    assert [label for pack in packs for label in pack] == list(people)
    assert all(packs)
