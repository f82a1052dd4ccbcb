"""Who is done, failed or missing, also from status files of strangers."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from neurostorm_bids.audit import audit, choose_entries
from neurostorm_bids.audit_cli import main
from neurostorm_bids.errors import DatasetError, SelectionError

EARLY, LATE = "20250101-000000_a", "20250102-000000_b"


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def tell(output):
    """Write a status file: runs by name, done unless a message is given."""

    def tell(participant, call, **runs):
        told = [
            {"Run": name, "State": "failed" if message else "done", "Message": message}
            for name, message in runs.items()
        ]
        write(participant, call, json.dumps({"Runs": told}))

    def write(participant, call, text):
        path = output / f"sub-{participant}" / "log" / call / "status.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)

    tell.text = write
    return tell


def test_the_latest_call_counts_run_by_run(output, tell):
    tell("01", EARLY, a="bad", b=None)
    tell("01", LATE, a=None)
    tell("02", EARLY, a=None)
    tell("02", LATE, a="worse")
    first, second = audit(output)
    assert first == ("01", "done", 2, 0, LATE, None)
    assert second == ("02", "failed", 0, 1, LATE, "worse")


def test_that_a_folder_could_not_be_searched_holds_until_a_call_tells_of_its_runs(output, tell):
    tell("01", EARLY, **{"sub-01": "not fetched"})
    tell("02", EARLY, **{"sub-02": "not fetched"})
    assert [entry.state for entry in audit(output)] == ["failed", "failed"]
    tell("01", LATE, a=None)
    tell("02", LATE, **{"sub-02": "still not", "a": None})
    first, second = audit(output)
    assert first == ("01", "done", 1, 0, LATE, None)
    assert second == ("02", "failed", 1, 1, LATE, "still not")


def test_whoever_was_to_be_read_and_left_no_trace_is_missing(output, tell, tmp_path):
    tell("01", EARLY, a=None)
    (output / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    for label in ("01", "03", "10"):
        (tmp_path / "bids" / f"sub-{label}").mkdir(parents=True)
    assert [entry.participant for entry in audit(output)] == ["01", "02"]
    entries = audit(output, bids_dir=tmp_path / "bids")
    assert [(entry.participant, entry.state) for entry in entries] == [
        ("01", "done"),
        ("02", "missing"),
        ("03", "missing"),
        ("10", "missing"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"Runs": 3}',
        '{"Runs": [1, null, {"State": 5}, {"State": ["done"]}, {}]}',
        '{"Runs": ' + "[" * 100_000,
        "x" * 10_000_001,
    ],
    ids=["empty", "list", "cut", "number", "kinds", "deep", "long"],
)
def test_a_status_file_that_is_none_makes_nobody_done(output, tell, text):
    tell.text("01", EARLY, text)
    (entry,) = audit(output)
    assert entry.state == "missing"
    tell("01", LATE, a=None)
    assert audit(output)[0].state == "done"


def test_odd_names_and_messages_neither_steer_the_terminal_nor_break_the_table(
    output, tell, capsys
):
    tell("01", EARLY, **{"a\x1b[2J": "red \x1b[31m\nline\ttab" + "x" * 100_000})
    tell.text("02", EARLY, '{"Runs": [{"State": "failed", "Run": {}, "Message": 7}]}')
    assert main([str(output)]) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert max(map(len, printed.split("\n"))) < 1000
    table = pd.read_csv(output / "logs" / "audit.tsv", sep="\t")
    assert table["state"].tolist() == ["failed", "failed"]


def test_the_command_prints_a_table_writes_it_and_tells_by_its_status(output, tell, capsys):
    tell("01", EARLY, a=None)
    assert main([str(output)]) == 0
    assert "sub-01          done" in capsys.readouterr().out
    tell("02", EARLY, a="No mask.")
    assert main([str(output), "--tsv", str(output / "mine.tsv")]) == 1
    assert "1 done, 1 failed, 0 missing" in capsys.readouterr().out
    table = pd.read_csv(output / "mine.tsv", sep="\t", keep_default_na=False)
    assert table["message"].tolist() == ["n/a", "No mask."]
    assert main(["--participant_label", "01", str(output)]) == 0
    assert main([str(output), "--participant-label", "sub-01", "09"]) == 1


def test_labels_choose(output, tell):
    tell("01", EARLY, a=None)
    assert [e.state for e in choose_entries(audit(output), ["sub-01", "07"])] == ["done", "missing"]


def test_folders_that_are_none_are_named(output, tmp_path, capsys):
    with pytest.raises(DatasetError, match="absent"):
        audit(tmp_path / "absent")
    with pytest.raises(SelectionError, match="no participants"):
        audit(output)
    assert main([str(tmp_path / "absent")]) == 16
    assert "absent" in capsys.readouterr().err
