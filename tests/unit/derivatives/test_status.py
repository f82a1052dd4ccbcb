"""What became of each run, for a person, a program and a bug report."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pandas as pd
import pytest

from neurostorm_bids import __version__
from neurostorm_bids.call import Call, make_run_uuid
from neurostorm_bids.derivatives import RunStatus, write_status
from neurostorm_bids.errors import DataError

CALL = "20250101-000000_0c970070-7984-4260-b527-e484380e8f41"


def fail(error: Exception) -> Exception:
    """Return the error as it is caught, with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.fixture
def statuses(source):
    path = source / "sub-02" / "func" / "a_bold.nii.gz"
    return [
        RunStatus(
            run="sub-01_task-rest", participant="01", state="done", seconds=1.23, warnings=("w",)
        ),
        RunStatus(run="sub-01_task-nback", participant="01", state="skipped"),
        RunStatus.of_failure(
            fail(DataError(f"{path} holds\nno volume.")), run="sub-02_task-rest", participant="02"
        ),
        RunStatus.of_failure(
            fail(RuntimeError(f"defect in {path}")), run="sub-02_task x/y", participant="02"
        ),
    ]


@pytest.fixture
def write(output, source, make_dataset, statuses):
    def write(*, options=None, **changes):
        options = options or {
            "derivatives": [f"x={source / 'more'}"],
            "model": ["a.ckpt"],
            "nprocs": 2,
        }
        keywords = {
            "call": Call(run_uuid=CALL, configuration=options, levels=("participant",)),
            "bids_dir": source,
            "datasets": [make_dataset(source)],
        }
        return write_status(output, statuses, **{**keywords, **changes})

    return write


def read_all(output) -> dict[str, str]:
    return {
        path.relative_to(output).as_posix(): path.read_text()
        for path in output.rglob("*")
        if path.is_file()
    }


def test_what_killed_calls_left_half_written_goes(output, write):
    left = [output / place / ".neurostorm-0.tmp" for place in ("logs", "sub-01/log")]
    for path in left:
        path.parent.mkdir(parents=True)
        path.touch()
    write()
    assert not any(path.exists() for path in left)


def test_the_files_lie_where_the_output_tree_has_them(output, write):
    write()
    assert set(read_all(output)) == {
        f"logs/{CALL}/config.toml",
        f"logs/{CALL}/status.tsv",
        f"sub-01/log/{CALL}/status.json",
        f"sub-02/log/{CALL}/status.json",
        f"sub-02/log/{CALL}/crash-sub-02_task_x_y.txt",
    }


def test_the_options_are_read_back_from_the_configuration(output, write):
    write()
    text = (output / "logs" / CALL / "config.toml").read_text()
    assert tomllib.loads(text) == {
        "derivatives": ["x=<bids>/more"],
        "model": ["a.ckpt"],
        "nprocs": 2,
    }
    assert __version__ in text.splitlines()[0]
    assert "participant --config-file" in text


def test_the_table_has_a_row_per_run(output, write):
    write()
    table = pd.read_csv(output / "logs" / CALL / "status.tsv", sep="\t", keep_default_na=False)
    assert table["participant_id"].tolist() == ["sub-01", "sub-01", "sub-02", "sub-02"]
    assert table["state"].tolist() == ["done", "skipped", "failed", "failed"]
    assert table["seconds"].tolist() == [1.2, 0.0, 0.0, 0.0]
    assert table["n_warnings"].tolist() == [1, 0, 0, 0]
    assert table["error"].tolist() == ["n/a", "n/a", "DataError", "RuntimeError"]
    assert table["exit_status"].tolist() == [0, 0, 65, 1]
    assert table["message"][2] == "<fmriprep>/sub-02/func/a_bold.nii.gz holds no volume."


def test_each_participant_has_its_own_runs_and_the_options(output, write):
    write()
    status = json.loads((output / "sub-02" / "log" / CALL / "status.json").read_text())
    assert (status["Software"], status["Version"]) == ("neurostorm-bids", __version__)
    assert status["Participant"] == "02"
    assert status["Options"]["model"] == ["a.ckpt"]
    expected, unexpected = status["Runs"]
    assert (expected["State"], expected["Error"], expected["ExitStatus"]) == (
        "failed",
        "DataError",
        65,
    )
    assert "CrashFile" not in expected
    assert unexpected["CrashFile"] == "crash-sub-02_task_x_y.txt"
    done = json.loads((output / "sub-01" / "log" / CALL / "status.json").read_text())["Runs"][0]
    assert done == {
        "Run": "sub-01_task-rest",
        "State": "done",
        "Seconds": 1.2,
        "Warnings": ["w"],
        "ExitStatus": 0,
    }


def test_a_crash_file_holds_the_traceback(output, write):
    write()
    text = (output / "sub-02" / "log" / CALL / "crash-sub-02_task_x_y.txt").read_text()
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError: defect in <fmriprep>/sub-02/func/a_bold.nii.gz" in text
    assert __version__ in text


def test_no_file_holds_a_path_of_the_machine_unless_debugging(output, source, write):
    write()
    assert not any(str(source.parent) in text for text in read_all(output).values())
    write(debug=True)
    texts = read_all(output)
    for name in ("config.toml", "status.tsv"):
        assert str(source) in texts[f"logs/{CALL}/{name}"]
    assert str(source) in texts[f"sub-02/log/{CALL}/crash-sub-02_task_x_y.txt"]


def test_a_status_is_written_anew_as_more_runs_end(output, source, make_dataset, statuses):
    for n_runs in (1, 2):
        write_status(
            output,
            statuses[:n_runs],
            call=Call(run_uuid=CALL),
            bids_dir=source,
            datasets=[make_dataset(source)],
        )
        status = json.loads((output / "sub-01" / "log" / CALL / "status.json").read_text())
        assert len(status["Runs"]) == n_runs


def test_options_that_json_does_not_know_are_written_as_text(output, write):
    write(options={"limit": float("inf"), "path": output / "x"})
    status = json.loads((output / "sub-01" / "log" / CALL / "status.json").read_text())
    assert status["Options"] == {"limit": "inf", "path": "<output>/x"}


def test_calls_have_names_of_their_own_that_can_be_folders():
    names = {make_run_uuid() for _ in range(100)}
    assert len(names) == 100
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)


def test_a_failure_passes_between_processes_as_plain_values(statuses):
    status = statuses[3]
    assert replace(status, seconds=2.0).crash == status.crash
    assert all(
        isinstance(value, str | float | int | tuple | None) for value in vars(status).values()
    )
