"""Lists of labels, wherever a user puts them."""

from __future__ import annotations

import pytest

from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.cli import command

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
    assert spread_lists(typed, command) == read
