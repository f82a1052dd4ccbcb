"""The command line: what BIDS users type, exit statuses, and what is imported."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from neurostorm_bids.cli import command, main


def test_an_unknown_level_ends_with_status_17(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out"), "partcipant"]) == 17
    assert "participant, group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "none"], "expected auto or a whole number"),
        (["--target-scale", "age"], "NAME=MEAN,SD"),
        (["--target-scale", "age=3,0"], "above zero"),
        (["--nprocs", "0"], "0 is not in the range"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_wrong_option_ends_with_status_2_and_says_why(arguments, message, tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out"), "participant", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there_ends_with_status_16(tmp_path, capsys):
    call = [str(tmp_path / "absent"), str(tmp_path / "out"), "participant", "--dry-run"]
    assert main(call) == 16
    assert "absent" in capsys.readouterr().err


def test_help_comes_without_importing_torch_or_pybids():
    program = (
        "import sys; from neurostorm_bids.cli import main; status = main(['--help']); "
        "heavy = {'torch', 'bids', 'nilearn', 'pandas', 'nibabel'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "BIDS_DIR" in done.stdout


def test_every_option_is_explained():
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert len(options) > 15
    assert not [option.name for option in options if not option.help]


def test_a_path_that_the_system_refuses_ends_with_status_74(tmp_path, capsys):
    call = [str(tmp_path), str(tmp_path / "out"), "participant", "--model", "a" * 5000]
    assert main(call) == 74
    assert "operating system refused" in capsys.readouterr().err
