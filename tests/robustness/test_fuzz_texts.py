"""Strangers' tables, sidecars, filter files and configurations: read, or refused in a sentence."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.audit import audit, format_audit
from neurostorm_bids.cli import main
from neurostorm_bids.derivatives.description import describe_dataset
from neurostorm_bids.derivatives.results import (
    list_tables,
    read_embedding,
    read_prediction,
    read_result,
)
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.inputs import BoldRun, Cleaning, SourceDataset, find_datasets
from neurostorm_bids.inputs.confounds import read_nuisance
from neurostorm_bids.inputs.events import find_events, label_clips, read_events
from neurostorm_bids.inputs.queries import passes_filters, read_filter_file
from neurostorm_bids.inputs.sidecars import read_repetition_time
from neurostorm_bids.inputs.targets import read_target
from neurostorm_bids.train.split_file import check_groups, read_splits
from tests.robustness.corpus import (
    cases,
    check_text,
    json_bytes,
    obeying,
    odd_texts,
    odd_values,
    tsv_bytes,
)

BOLD = "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc_bold"
DESCRIPTION = {
    "Name": "A dataset",
    "BIDSVersion": "1.10.1",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}],
    "License": "CC0",
    "Authors": ["A", "B"],
    "DatasetDOI": "doi:10.1/2",
    "SourceDatasets": [{"URL": "https://example.org", "Version": "1"}],
    "DatasetLinks": {"raw": "../.."},
}


@cases(0.08, short=30)
@given(content=json_bytes({"RepetitionTime": 2.0, "TaskName": "rest", "SkullStripped": False}))
def test_sidecars_of_a_run(content):
    with obeying("sidecars") as (folder, begin):
        (folder / f"{BOLD}.nii.gz").touch()
        (folder / f"{BOLD}.json").write_bytes(content)
        begin()
        seconds = read_repetition_time(folder / f"{BOLD}.nii.gz", dataset_root=folder)
        assert 0 < seconds < 100


@cases(0.06, short=25)
@given(
    content=json_bytes(DESCRIPTION, extra=["PipelineDescription"]), other=json_bytes(DESCRIPTION)
)
def test_descriptions_of_datasets(content, other):
    with obeying("dataset descriptions") as (folder, begin):
        (folder / "in" / "sub-01" / "func").mkdir(parents=True)
        (folder / "in" / "sub-01" / "func" / f"{BOLD}.nii.gz").touch()
        (folder / "in" / "dataset_description.json").write_bytes(content)
        begin()
        datasets = find_datasets(folder / "in", {})
        try:
            existing = json.loads(other)
        except (ValueError, RecursionError):
            existing = {}
        described = describe_dataset(
            existing if isinstance(existing, dict) else {},
            output_dir=folder / "out",
            datasets=datasets,
        )
        check_text(format_json(described))


PARTICIPANTS = [
    ["participant_id", "age", "sex", "site"],
    *(
        [f"sub-{number:02}", str(20 + number), "FM"[number % 2], f"s{number % 3}"]
        for number in range(1, 9)
    ),
]


@cases(0.1, short=30)
@given(
    content=tsv_bytes(PARTICIPANTS),
    sidecar=json_bytes(
        {"age": {"Units": "years"}, "sex": {"Levels": {"F": "female", "M": "male"}}}
    ),
    name=st.sampled_from(["age", "sex", "site"]),
    kind=st.sampled_from([None, "classification", "regression"]),
)
def test_tables_of_participants(content, sidecar, name, kind):
    with obeying("participants.tsv") as (folder, begin):
        (folder / "participants.tsv").write_bytes(content)
        (folder / "participants.json").write_bytes(sidecar)
        rows = [{"sub": f"{number:02}", "task": "rest"} for number in range(1, 9)]
        begin()
        target = read_target(name, rows, roots=[folder], kind=kind)
        for line in target.describe():
            check_text(line)
        known = target.encode()[target.is_known]
        assert np.isfinite(known).all()


SPLITS = [
    ["participant_id", "seed", "fold1", "fold2"],
    *(
        [f"sub-{number:02}", "0", ("train", "validation", "test")[number % 3], "train"]
        for number in range(1, 9)
    ),
]


@cases(0.05, short=20)
@given(content=tsv_bytes(SPLITS))
def test_split_files(content):
    with obeying("split files") as (folder, begin):
        path = folder / "splits.tsv"
        path.write_bytes(content)
        begin()
        splits = read_splits(path, [f"{number:02}" for number in range(1, 9)])
        check_groups(splits, {"01": "a", "02": "a"})


EVENTS = [
    ["onset", "duration", "trial_type"],
    *([str(3.5 * number), "2", "AB"[number % 2]] for number in range(6)),
]


@cases(0.05, short=20)
@given(content=tsv_bytes(EVENTS))
def test_tables_of_events(content):
    with obeying("events.tsv") as (folder, begin):
        (folder / "sub-01" / "func").mkdir(parents=True)
        (folder / "sub-01" / "func" / "sub-01_task-rest_events.tsv").write_bytes(content)
        begin()
        path = find_events({"sub": "01", "task": "rest"}, roots=[folder])
        label_clips(read_events(path).events, [0.0, 8.0, 16.0], 8.0)


AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
CONFOUNDS = [
    [*AXES, "framewise_displacement", "non_steady_state_outlier00"],
    *(
        [*(f"{0.01 * row * column:g}" for column in range(6)), "0.1" if row else "n/a", "0"]
        for row in range(20)
    ),
]


@cases(0.05, short=12)
@given(
    content=tsv_bytes(CONFOUNDS),
    sidecar=json_bytes({"trans_x": {"Units": "mm"}, "a_comp_cor_00": {"Method": "aCompCor"}}),
    strategy=st.sampled_from([None, "simple", "motion"]),
)
def test_tables_of_confounds(content, sidecar, strategy):
    with obeying("confounds") as (folder, _):
        path = folder / "sub-01_task-rest_desc-confounds_timeseries.tsv"
        path.write_bytes(content)
        path.with_suffix(".json").write_bytes(sidecar)
        denoise = (
            {"denoise": '{"strategy": ["motion"], "motion": "basic"}'}
            if strategy == "motion"
            else {"denoise": strategy}
        )
        run = BoldRun(
            path=folder / f"{BOLD}.nii.gz",
            entities={"sub": "01"},
            space="MNI152NLin6Asym",
            repetition_time_s=2.0,
            brain_mask=None,
            confounds=path,
            dataset=SourceDataset(name="test", path=folder),
            cleaning=Cleaning(fd_threshold_mm=0.5, dummy_scans="auto", **denoise),
        )
        nuisance = read_nuisance(run, n_volumes=20)
        assert nuisance.regressors is None or np.isfinite(nuisance.regressors).all()


@cases(0.06, short=15)
@given(
    content=json_bytes({"bold": {"task": "rest", "run": 1, "space": None, "session": ["*", "A"]}})
)
def test_filter_files(content):
    with obeying("filter files") as (folder, begin):
        path = folder / "filter.json"
        path.write_bytes(content)
        begin()
        passes_filters(f"{BOLD}.nii.gz", read_filter_file(path))


STATUS = {
    "Software": "neurostorm-bids",
    "Version": "1",
    "Participant": "01",
    "Runs": [{"Run": "sub-01_task-rest", "State": "failed", "Message": "No mask.", "Warnings": []}],
}


@cases(0.04, short=15)
@given(content=json_bytes(STATUS), table=tsv_bytes([["participant_id"], ["sub-01"], ["sub-02"]]))
def test_status_files_read_by_the_audit(content, table):
    with obeying("status.json") as (folder, begin):
        call = folder / "sub-01" / "log" / "20260101-000000_0"
        call.mkdir(parents=True)
        (call / "status.json").write_bytes(content)
        (folder / "participants.tsv").write_bytes(table)
        begin()
        check_text(format_audit(audit(folder)))


PREDICTION = {
    "Sources": [f"bids:fmriprep:sub-01/func/{BOLD}.nii.gz"],
    "ModelName": "one",
    "ModelSHA256": "0" * 64,
    "Grid": {"space": "MNI152NLin6Asym", "repetition_time_s": 0.8},
    "BrainCoverage": 0.99,
    "Warnings": ["It moved."],
    "Target": {
        "name": "age",
        "kind": "regression",
        "classes": [],
        "unit": "years",
        "mean": 40.0,
        "sd": 15.0,
    },
}


@cases(0.06, short=20)
@given(
    sidecar=json_bytes(PREDICTION),
    table=tsv_bytes(
        [
            [
                "level",
                "onset",
                "duration",
                "value",
                "interval_low",
                "interval_high",
                "novelty",
                "prediction_set",
            ],
            ["run", "0", "80", "41", "30", "50", "0.5", "n/a"],
            ["clip", "0", "8", "40", "n/a", "n/a", "n/a", "n/a"],
        ]
    ),
    kind=st.sampled_from(["age_predictions", "scan_embedding"]),
)
def test_results_read_by_the_group_level(sidecar, table, kind):
    with obeying("results") as (folder, begin):
        func = folder / "sub-01" / "func"
        func.mkdir(parents=True)
        stem = f"sub-01_task-rest_space-MNI152NLin6Asym_desc-{kind}"
        (func / f"{stem}.tsv").write_bytes(table)
        (func / f"{stem}.json").write_bytes(sidecar)
        begin()
        for path, name in list_tables(folder / "sub-01"):
            result = read_result(path, name, root=folder)
            check_text(result.run + result.source_name + result.target_name)
            for key in PREDICTION:
                result.read_number(key)
                result.list_texts(key)
            (read_embedding if result.kind == "embedding" else read_prediction)(result)


def to_toml(value) -> str:
    """Write any value as TOML; what TOML cannot write becomes a text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value) if value >= 0 else f"-{-value % 10**18}"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    text = str(value).encode("utf-8", errors="replace").decode()
    return json.dumps(text).replace("\x7f", "\\u007f")


OPTIONS = (
    *("participant-label", "session-id", "task-id", "run-id", "space", "exclude-participant-label"),
    *("bids-filter-file", "derivatives", "skip-bids-validation", "work-dir", "nprocs", "mem"),
    *("omp-nthreads", "batch-size", "fd-threshold", "dummy-scans", "denoise", "warp", "device"),
    *("output-layout", "random-seed", "verbose", "overwrite", "target-scale", "precision", "atlas"),
    *("clip-stride", "save-resampled", "attribution", "no-such-option"),
)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A dataset of names alone, which a dry run lists."""
    folder = tmp_path_factory.mktemp("named")
    for label in ("01", "02"):
        func = folder / f"sub-{label}" / "func"
        func.mkdir(parents=True)
        stem = BOLD.replace("sub-01", f"sub-{label}")
        (func / f"{stem}.nii.gz").touch()
        (func / f"{stem}.json").write_text('{"RepetitionTime": 2.0}')
    (folder / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    return folder


def assert_told(status, printed):
    """Check that a call of the command ended as it promises."""
    check_text(printed.err)
    check_text(printed.out)
    assert "unexpected" not in printed.err, printed.err[-2000:]
    assert "--- Logging error ---" not in printed.err
    assert status in {0, 1, 2, 16, 17, 18, 65, 66, 73, 74, 75}


@cases(0.08, short=25)
@given(
    values=st.dictionaries(st.sampled_from(OPTIONS), odd_values, min_size=1, max_size=2),
    spelling=st.sampled_from(["plain", "plain", "plain", "cut", "bom", "utf-16", "deep"]),
)
def test_configuration_files_through_the_command(named, capsys, values, spelling):
    with obeying("TOML configurations") as (folder, begin):
        text = "".join(f"{key} = {to_toml(value)}\n" for key, value in values.items())
        content = {
            "cut": text.encode()[: len(text) // 2],
            "bom": b"\xef\xbb\xbf" + text.encode(),
            "utf-16": text.encode("utf-16"),
            "deep": f"nprocs = {'[' * 5000}{']' * 5000}\n".encode(),
        }.get(spelling, text.encode())
        path = folder / "config.toml"
        path.write_bytes(content)
        begin()
        call = [str(named), str(folder / "out"), "participant", "--dry-run"]
        status = main([*call, "--config-file", str(path)])
        assert_told(status, capsys.readouterr())


@cases(0.05, short=20)
@given(
    names=st.lists(
        odd_texts
        | st.sampled_from([f"{BOLD}.nii.gz", f"{BOLD}.nii", f"{BOLD}.json", BOLD.upper()])
        | st.builds(
            lambda text: f"sub-01_task-{text}_space-MNI152NLin6Asym_bold.nii.gz", odd_texts
        ),
        min_size=1,
        max_size=4,
    ),
    label=odd_texts,
)
def test_file_names_through_the_command(capsys, names, label):
    with obeying("file names") as (folder, begin):
        for participant in ("01", label):
            for name in names:
                path = folder / "in" / f"sub-{participant}" / "func" / name
                if "\x00" in str(path) or "/" in participant + name or name in {"", ".", ".."}:
                    continue
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                except (OSError, UnicodeEncodeError):
                    path = None  # no file system has this name
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in" / "task-rest_bold.json").write_text('{"RepetitionTime": 2.0}')
        begin()
        status = main([str(folder / "in"), str(folder / "out"), "participant", "--dry-run"])
        assert_told(status, capsys.readouterr())


def test_a_table_that_a_case_left_whole_is_read(tmp_path):
    pd.DataFrame(PARTICIPANTS[1:], columns=PARTICIPANTS[0]).to_csv(
        tmp_path / "participants.tsv", sep="\t", index=False
    )
    rows = [{"sub": f"{number:02}"} for number in range(1, 9)]
    assert read_target("age", rows, roots=[tmp_path]).is_known.all()
