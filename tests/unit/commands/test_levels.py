"""Several levels in one call, and options that belong to them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neurostorm_bids import cli
from neurostorm_bids.errors import MissingFileError, SelectionError


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Call the command with levels that end as they are told to."""
    ran = []

    def run_as(level, outcome):
        def run(**given):
            ran.append((level, given))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return run

    def call(*words, **outcomes):
        ran.clear()
        levels = {level: run_as(level, outcomes.get(level, 0)) for level in cli.LEVELS}
        monkeypatch.setattr(cli, "_RUN", levels)
        return cli.main([str(tmp_path), str(tmp_path / "out"), *words]), ran

    return call


def test_levels_run_in_the_order_typed_with_their_own_options(call):
    status, ran = call("participant", "group", "--overwrite", "--permutations", "10")
    assert status == 0
    assert [level for level, _ in ran] == ["participant", "group"]
    (_, participant), (_, group) = ran
    assert participant["overwrite"] is True
    assert "overwrite" not in group
    assert group["n_permutations"] == 10
    assert "n_permutations" not in participant
    assert participant["call"].run_uuid != group["call"].run_uuid


@pytest.mark.parametrize(
    ("outcomes", "status", "n_levels"),
    [
        ({}, 0, 2),
        ({"participant": 1}, 1, 2),
        ({"group": 1}, 1, 2),
        ({"participant": 65}, 65, 1),
        ({"participant": MissingFileError("no model")}, 66, 1),
        ({"participant": 1, "group": SelectionError("nothing")}, 18, 2),
    ],
)
def test_a_level_that_failed_altogether_ends_the_call(call, outcomes, status, n_levels):
    found, ran = call("participant", "group", **outcomes)
    assert (found, len(ran)) == (status, n_levels)


def test_a_level_asked_for_twice_runs_once(call):
    assert len(call("group", "group")[1]) == 1


def test_an_option_of_none_of_the_levels_is_refused(call, capsys):
    assert call("participant", "group", "--mask-ratio", "0.5") == (2, [])
    message = capsys.readouterr().err
    assert "--mask-ratio belongs to the level pretrain, not to participant or group" in message


def test_a_dry_run_tells_what_a_later_level_lacks(call, capsys):
    status, _ = call("participant", "group", "--dry-run", group=SelectionError("nothing yet"))
    assert status == 0
    assert capsys.readouterr().out.split("\n")[:3] == ["participant:", "group:", "nothing yet"]


def test_a_misspelt_level_is_understood(call, capsys):
    assert call("participant", "gruop") == (17, [])
    assert "Did you mean group?" in capsys.readouterr().err


def test_a_misspelt_option_is_understood(call, capsys):
    assert call("participant", "--particpant-label", "01") == (2, [])
    assert "--participant-label" in capsys.readouterr().err


def test_a_call_without_arguments_says_how_to_call(capsys):
    assert cli.main([]) == 2
    assert "neurostorm --help" in capsys.readouterr().err


def test_a_call_without_a_level_is_a_matter_of_usage(tmp_path, capsys):
    assert cli.main([str(tmp_path), str(tmp_path)]) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_nothing_is_tracked_with_or_without_the_option(call):
    (_, plain), (_, untracked) = call("group")[1] + call("group", "--notrack")[1]
    assert {**plain, "call": None} == {**untracked, "call": None}


def test_help_in_a_pipe_is_as_wide_as_a_page_and_ends_with_examples():
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "neurostorm_bids", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = done.stdout.rstrip().split("\n")
    assert max(map(len, lines)) <= 100
    assert max(map(len, lines)) > 80
    assert lines[-1].strip().startswith("neurostorm ")
    assert "Options of pretrain and finetune:" in lines
