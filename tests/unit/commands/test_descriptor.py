"""The description for Boutiques says what the parser knows, and is valid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from neurostorm_bids.cli import LEVELS, command, main
from neurostorm_bids.commands.descriptor import describe

FILE = Path(__file__).parents[3] / "boutiques.json"


@pytest.fixture(scope="module")
def descriptor():
    return describe(command, LEVELS)


def test_the_file_says_what_the_parser_says(descriptor):
    assert json.loads(FILE.read_text()) == descriptor, "make boutiques brings the file up to date"


def test_the_command_prints_it(capsys, descriptor):
    assert main(["--bids-exec-spec"]) == 0
    assert json.loads(capsys.readouterr().out) == descriptor


def test_every_option_has_an_input_with_its_flag_and_what_it_does(descriptor):
    flags = {one.get("command-line-flag"): one for one in descriptor["inputs"]}
    for option in command.params:
        if isinstance(option, click.Option) and option.expose_value:
            found = [
                flags[name] for name in (*option.opts, *option.secondary_opts) if name in flags
            ]
            assert len(found) == 1, option.opts
            assert found[0]["description"]


def test_choices_limits_and_lists_are_kept(descriptor):
    inputs = {one["id"]: one for one in descriptor["inputs"]}
    assert inputs["adapt"]["value-choices"] == ["linear", "prompt", "lora", "full"]
    assert inputs["nprocs"]["minimum"] == 1
    assert inputs["nprocs"]["integer"] is True
    assert inputs["participant_label"]["list"] is True
    assert inputs["dry_run"]["type"] == "Flag"
    assert inputs["bids_filter_file"]["type"] == "File"
    assert inputs["work_dir"]["type"] == "String"


def test_keys_are_distinct_but_for_the_output_folder(descriptor):
    keys = [one["value-key"] for one in descriptor["inputs"]]
    assert {key for key in keys if keys.count(key) > 1} == {"[OUTPUT_DIR]"}


def run_bosh(*arguments: str) -> subprocess.CompletedProcess[str]:
    bosh = Path(sys.executable).parent / "bosh"
    if not bosh.exists():
        pytest.skip("bosh is not installed")
    return subprocess.run(
        [str(bosh), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("form", [(), ("--bids",)])
def test_boutiques_finds_it_valid(form):
    result = run_bosh("validate", *form, str(FILE))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "OK" in result.stdout


def test_boutiques_composes_the_call_from_values(tmp_path):
    invocation = tmp_path / "invocation.json"
    values = {
        "bids_dir": str(tmp_path),
        "output_dir_name": "out folder",
        "analysis_level": "participant",
        "participant_label": ["01", "02"],
        "nprocs": 2,
        "dry_run": True,
    }
    invocation.write_text(json.dumps(values))
    result = run_bosh("exec", "simulate", str(FILE), "-i", str(invocation))
    assert result.stdout.splitlines()[-1] == (
        f"mkdir -p 'out folder'; neurostorm {tmp_path} 'out folder' participant "
        "--participant-label 01 02 --nprocs 2 --dry-run"
    )
