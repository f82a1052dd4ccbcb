from __future__ import annotations

import pytest

from neurostorm_bids.report.steps import merge_steps, read_step


@pytest.mark.parametrize(
    "sentence",
    [
        "Read 16 volumes of 49 x 58 x 49 voxels, one every 2 s.",
        "One z-score: mean 419.58, SD 217.608; minimum, -1.928.",
        "Trilinear interpolation: 8 x 8 mm in MNI152NLin6Asym, 99.9% in view, 1e-05 s.",
        "No number.",
        "",
    ],
)
def test_a_sentence_alone_is_told_as_it_is(sentence):
    assert read_step(sentence).tell() == sentence


def test_numbers_that_differ_become_ranges():
    lists = [
        [read_step("Read 16 volumes, one every 2 s."), read_step("Kept -3.")],
        [read_step("Read 4 volumes, one every 2 s."), read_step("Kept -10.")],
        [read_step("Read 9 volumes, one every 2 s."), read_step("Censored 2 volumes.")],
    ]
    assert [step.tell() for step in merge_steps(lists)] == [
        "Read 4 to 16 volumes, one every 2 s.",
        "Kept -10 to -3.",
        "Censored 2 volumes.",
    ]


def test_the_order_in_which_lists_are_joined_changes_no_range():
    lists = [[read_step(f"Read {n} volumes.")] for n in (3, 1, 2)]
    assert merge_steps(lists) == merge_steps(lists[::-1])


def test_digits_in_names_are_no_numbers():
    assert read_step("From MNI152NLin6Asym to res-2 by v1.2.3.").low == ()
