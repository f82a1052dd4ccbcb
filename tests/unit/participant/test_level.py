"""What a call leaves behind where there is nothing to compute."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from neurostorm_bids.audit import audit
from neurostorm_bids.errors import DataError, UserError
from neurostorm_bids.participant.level import run_participant_level

from .conftest import STEM


def states(output):
    return {entry.participant: entry.state for entry in audit(output)}


@pytest.mark.parametrize(
    ("bad", "status"), [(("01",), UserError.exit_status), (("01", "02"), DataError.exit_status)]
)
def test_failures_are_written_although_nothing_is_to_be_done(ask, source, bad, status):
    for label in bad:
        source.set_time(label, 2000.0)
    options = ask()
    output = options.output_dir
    assert run_participant_level(options) == status
    table = pd.read_csv(output / "logs" / options.call.run_uuid / "status.tsv", sep="\t")
    expected = {label: "failed" if label in bad else "skipped" for label in ("01", "02")}
    assert dict(zip(table["participant_id"].str[4:], table["state"], strict=True)) == expected
    assert states(output) == {label: "failed" if label in bad else "done" for label in ("01", "02")}
    assert "milliseconds" in (output / "sub-01.html").read_text()
    about = json.loads((output / "dataset_description.json").read_text())
    assert about["GeneratedBy"][0]["Name"] == "neurostorm-bids"
    assert (output / "participants.tsv").read_text().split()[1:] == ["sub-01", "sub-02"]


def test_a_failure_is_over_once_a_call_finds_the_run_finished(ask, source):
    source.set_time("01", 2000.0)
    output = ask().output_dir
    run_participant_level(ask())
    assert states(output)["01"] == "failed"
    source.set_time("01", 2.0)
    assert run_participant_level(ask()) == 0
    assert states(output) == {"01": "done", "02": "done"}
    assert "milliseconds" not in (output / "sub-01.html").read_text()


def test_a_call_that_has_nothing_new_to_tell_writes_nothing(ask):
    output = ask().output_dir
    assert run_participant_level(ask()) == 0  # as after a call that was killed
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert run_participant_level(ask()) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    (told,) = (output / "sub-01" / "log").glob("*/status.json")
    assert [run["Run"] for run in json.loads(told.read_text())["Runs"]] == [STEM.format("01")]
