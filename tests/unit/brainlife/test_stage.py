"""From what Brainlife stages to a folder that is read like fMRIPrep's."""

from __future__ import annotations

import json

import pytest

from neurostorm_bids.brainlife.stage import stage_inputs
from neurostorm_bids.brainlife.task import list_options
from neurostorm_bids.errors import DataError, MissingFileError, UsageError, UserError

SPACE = "space-MNI152NLin2009cAsym"


@pytest.fixture
def task(tmp_path):
    """A task's folder with staged files beside it; their contents are not looked into."""
    for name in ("aaa/bold.nii.gz", "bbb/mask.nii.gz", "ccc/regressors.tsv"):
        path = tmp_path / "tasks" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"content of " + name.encode())
    folder = tmp_path / "tasks" / "task"
    folder.mkdir()
    return folder


def configure(*, meta=None, tags=(SPACE,), **more):
    meta = {"subject": "01", "RepetitionTime": 2.0} if meta is None else meta
    return {
        "fmri": "../aaa/bold.nii.gz",
        "mask": "../bbb/mask.nii.gz",
        "regressors": "../ccc/regressors.tsv",
        "_inputs": [
            {"id": "t1w", "meta": {"subject": "someone else"}},
            {"id": "fmri", "meta": meta, "tags": list(tags), "datatype_tags": ["preprocessed"]},
        ],
        **more,
    }


def stage(task, config):
    stage_inputs(config, task, task / "bids")
    return sorted(p.relative_to(task / "bids").as_posix() for p in task.glob("bids/sub-*/**/*.*"))


def test_files_get_the_names_of_fmriprep(task):
    meta = {"subject": "01", "session": "A", "task": "rest", "run": 1, "RepetitionTime": 2.0}
    stem = "sub-01/ses-A/func/sub-01_ses-A_task-rest_run-1"
    assert stage(task, configure(meta=meta)) == [
        f"{stem}_desc-confounds_regressors.tsv",
        f"{stem}_{SPACE}_desc-brain_mask.nii.gz",
        f"{stem}_{SPACE}_desc-preproc_bold.json",
        f"{stem}_{SPACE}_desc-preproc_bold.nii.gz",
    ]
    assert (task / "bids" / f"{stem}_desc-confounds_regressors.tsv").read_bytes() == (
        b"content of ccc/regressors.tsv"
    )


def test_strange_labels_cannot_leave_the_folder(task):
    meta = {"subject": "../../etc/pa_ss-wd", "task": "<b>ré st", "RepetitionTime": 2.0}
    names = stage(task, configure(meta=meta))
    assert all(name.startswith("sub-etcpasswd/func/sub-etcpasswd_task-brst_") for name in names)


def test_another_try_replaces_what_the_first_one_staged(task):
    stage(task, configure())
    meta = {"subject": "02", "RepetitionTime": 2.0}
    assert {name[:6] for name in stage(task, configure(meta=meta))} == {"sub-02"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (configure(tags=["MNI152NLin6Asym"]), "MNI152NLin6Asym"),
        (configure(tags=[], space="MNI152NLin6Asym"), "MNI152NLin6Asym"),
        (configure(tags=["space-MNI152NLin6Asym", "other"], space=""), "MNI152NLin6Asym"),
        (
            configure(
                tags=[],
                meta={"subject": "1", "RepetitionTime": 2.0, "space": "MNI152NLin6Asym"},
            ),
            "MNI152NLin6Asym",
        ),
    ],
)
def test_the_space_is_a_tag_an_option_or_in_the_meta_data(task, config, expected):
    assert any(f"_space-{expected}_" in name for name in stage(task, config))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (configure(tags=[]), UsageError, "found none"),
        (configure(space="MNI152NLin6Asym"), UsageError, "'MNI152NLin6Asym', 'MNI152NLin2009c"),
        (configure(tags=[], space="T1w"), UsageError, "found 'T1w'"),
        (configure(meta={"RepetitionTime": 2.0}), UsageError, "whose series"),
        (configure(meta={"subject": "01"}), DataError, "repetition time is not told"),
        (configure(fmri="../nowhere/bold.nii.gz"), MissingFileError, "no such file"),
        (configure(fmri=["a", "b"]), UsageError, "expected the path of one file"),
        (configure(fmri="../ccc/regressors.tsv"), DataError, "ends in .nii.gz"),
        (configure(fmri=None), UsageError, "names no series"),
        (configure(fmri="../aaa"), UserError, "Expected a file"),
    ],
)
def test_what_cannot_be_staged_is_said(task, config, error, message):
    with pytest.raises(error, match=message):
        stage(task, config)


def test_the_staged_sidecar_wins_over_the_meta_data_and_that_is_said(task):
    (task.parent / "aaa" / "bold.json").write_text('{"RepetitionTime": 0.8, "TaskName": "rest"}')
    warnings = stage_inputs(configure(), task, task / "bids")
    assert len(warnings) == 1
    assert "0.8" in warnings[0]
    sidecar = next((task / "bids").rglob("*_bold.json"))
    assert json.loads(sidecar.read_text()) == {"RepetitionTime": 0.8, "TaskName": "rest"}


def test_options_become_those_of_the_command():
    warnings: list[str] = []
    config = configure(model="m", fd_threshold=0.5, batch_size="", colour="red", _app="x")
    assert list_options(config, warnings) == ["--model=m", "--fd-threshold=0.5"]
    assert len(warnings) == 1
    assert "'colour'" in warnings[0]


def test_a_value_cannot_pass_for_an_option():
    assert list_options({"model": "--overwrite"}, []) == ["--model=--overwrite"]


@pytest.mark.parametrize("config", [{}, {"model": ""}, {"model": ["a"]}])
def test_a_task_without_a_model_is_refused(config):
    with pytest.raises(UsageError, match="model"):
        list_options(config, [])
