"""Lists of labels, wherever a user puts them."""

from __future__ import annotations

import pytest

from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.cli import LEVELS, command

POSITIONALS = ["--", "/data", "/out", "participant"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["/data", "/out", "participant"], POSITIONALS),
        (
            ["/data", "/out", "participant", "--participant-label", "01", "sub-02"],
            ["--participant-label", "01", "--participant-label", "sub-02", *POSITIONALS],
        ),
        (
            ["--participant-label", "01", "02", "/data", "/out", "participant"],
            ["--participant-label", "01", "--participant-label", "02", *POSITIONALS],
        ),
        (
            ["/data", "/out", "--participant_label", "01", "02", "participant"],
            ["--participant-label", "01", "--participant-label", "02", *POSITIONALS],
        ),
        (
            ["/data", "--task-id", "rest", "/out", "participant"],
            ["--task-id", "rest", *POSITIONALS],
        ),
        (
            ["--participant-label=01", "02", "--device", "cpu", "/data", "/out", "participant"],
            [
                "--device",
                "cpu",
                "--participant-label",
                "01",
                "--participant-label",
                "02",
                *POSITIONALS,
            ],
        ),
        (
            ["--model", "a.ckpt", "--participant-label", "01", "/data", "/out", "participant"],
            ["--model", "a.ckpt", "--participant-label", "01", *POSITIONALS],
        ),
        (["--dry-run", "/data", "/out", "participant"], ["--dry-run", *POSITIONALS]),
        (
            ["-d", "fmriprep=/x", "--", "/data", "/out", "participant"],
            ["-d", "fmriprep=/x", *POSITIONALS],
        ),
        (["--participant-label"], ["--participant-label"]),
        (["--help"], ["--help"]),
    ],
)
def test_lists_are_read_wherever_they_stand(typed, read):
    assert spread_lists(typed, command, levels=LEVELS) == read


@pytest.mark.parametrize(
    "typed",
    [
        ["--participant-label", "01", "02", "/data", "/out", "participant", "group"],
        ["/data", "/out", "participant", "group", "--participant-label", "01", "02"],
        ["/data", "/out", "--participant-label", "01", "02", "participant", "group"],
        ["/data", "--participant-label", "01", "02", "/out", "participant", "group"],
        ["--participant-label", "01", "02", "/data", "/out", "--", "participant", "group"],
    ],
)
def test_lists_are_told_from_several_levels(typed):
    labels = ["--participant-label", "01", "--participant-label", "02"]
    assert spread_lists(typed, command, levels=LEVELS) == [*labels, *POSITIONALS, "group"]


def test_a_participant_may_be_called_as_a_level_is():
    typed = ["/data", "/out", "participant", "--participant-label", "01", "group"]
    labels = ["--participant-label", "01", "--participant-label", "group"]
    assert spread_lists(typed, command, levels=LEVELS) == [*labels, *POSITIONALS]
