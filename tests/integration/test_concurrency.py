"""Many processes that write into one output folder at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder

CROWD = Path(__file__).with_name("crowd.py")
VALIDATE = "from bids_validator_deno import cli; cli()"
LABELS = [f"{number:02d}" for number in range(1, 17)]
TWICE = "07"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Sixteen people with one short run each, and a tiny model."""
    folder = tmp_path_factory.mktemp("crowd")
    write_cohort(folder / "fmriprep", n_people=len(LABELS), n_volumes=8)
    write_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def crowded(source):
    """The folder that seventeen calls wrote to at once, two of them the same participant."""
    output = source / "out"
    arguments = [source / "fmriprep", output, source / "demo-encoder", *LABELS, TWICE]
    done = subprocess.run(
        [sys.executable, CROWD, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return output


def test_no_participant_is_lost_and_none_is_listed_twice(crowded):
    table = pd.read_csv(crowded / "participants.tsv", sep="\t", dtype=str)
    assert sorted(table["participant_id"]) == [f"sub-{label}" for label in LABELS]


def test_every_participant_has_a_report_results_and_a_status(crowded):
    for label in LABELS:
        assert (crowded / f"sub-{label}.html").read_text().rstrip().endswith("</html>")
        func = crowded / f"sub-{label}" / "func"
        assert len(list(func.glob("*_embedding.tsv"))) == len(list(func.glob("*.json"))) == 2
        logs = sorted((crowded / f"sub-{label}" / "log").glob("*/status.json"))
        states = [json.loads(path.read_text())["Runs"][0]["State"] for path in logs]
        assert set(states) <= {"done", "skipped"}
        assert "done" in states


def test_every_call_has_a_log_of_its_own(crowded):
    tables = [pd.read_csv(path, sep="\t") for path in crowded.glob("logs/*/status.tsv")]
    done = pd.concat(tables)
    assert set(done["participant_id"]) == {f"sub-{label}" for label in LABELS}
    assert done["exit_status"].eq(0).all()


def test_the_files_of_the_dataset_are_written_once(crowded):
    description = json.loads((crowded / "dataset_description.json").read_text())
    made_by = [one["Name"] for one in description["GeneratedBy"]]
    assert made_by == ["neurostorm-bids", "fMRIPrep"]
    assert len(description["SourceDatasets"]) == 1
    for name in (".bidsignore", "CHANGES"):
        lines = [line for line in (crowded / name).read_text().splitlines() if line]
        assert lines
        assert len(lines) == len(set(lines)), name
    assert (crowded / "README.md").read_text().count("SHA-256 `") == 1


def test_nothing_half_written_stays(crowded):
    assert list(crowded.rglob("*.tmp")) == []


def test_a_later_call_finds_all_of_it_finished(source, crowded, capsys):
    arguments = [str(source / "fmriprep"), str(crowded), "participant", "--device", "cpu"]
    assert main([*arguments, "--model", str(source / "demo-encoder")]) == 0
    assert "Nothing to do: all 16 run(s)" in capsys.readouterr().err


def test_the_validator_finds_no_error(crowded):
    pytest.importorskip("bids_validator_deno", reason="bids-validator-deno is not installed")
    report = subprocess.run(
        [sys.executable, "-c", VALIDATE, "--format", "json", crowded],
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    assert json.loads(report)["issues"]["issues"] == []
