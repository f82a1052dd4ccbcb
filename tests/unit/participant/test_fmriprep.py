"""Whom fMRIPrep has finished, from the names in its folder."""

from __future__ import annotations

import json
import logging

import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs import Selection
from neurostorm_bids.options import ParticipantOptions
from neurostorm_bids.participant import fmriprep

MNI = "space-MNI152NLin6Asym_res-2_desc-preproc"


@pytest.fixture
def options(tmp_path):
    """A participant with two runs, one of them in echoes."""
    for name in ("task-rest_echo-1", "task-rest_echo-2", "task-nback"):
        write(tmp_path / "raw", f"sub-01/func/sub-01_{name}_bold.nii.gz")
    return ParticipantOptions(bids_dir=tmp_path / "raw", output_dir=tmp_path / "out")


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def prepare(options, *names):
    write(options.output_dir / fmriprep.FOLDER, *names)


def name_bold(task, rest=MNI):
    return f"sub-01/func/sub-01_task-{task}_{rest}_bold.nii.gz"


def test_who_has_a_report_and_all_runs_is_finished(options):
    prepare(options, name_bold("rest"), name_bold("nback"))
    assert fmriprep.list_unprocessed(options) == ["01"], "killed before the report was written"
    prepare(options, "sub-01.html")
    assert fmriprep.list_unprocessed(options) == []


def test_the_report_of_many_sessions_is_in_parts(options):
    prepare(options, name_bold("rest"), name_bold("nback"))
    prepare(options, "sub-01_anat.html", "sub-01_ses-A_func.html", "sub-010.html")
    assert fmriprep.list_unprocessed(options) == []


def test_a_run_that_is_missing_is_made_unless_it_is_not_wanted(options, tmp_path):
    prepare(options, name_bold("rest"), "sub-01.html")
    assert fmriprep.list_unprocessed(options) == ["01"]
    filters = tmp_path / "filters.json"
    filters.write_text(json.dumps({"bold": {"task": "rest"}}))
    for selection in (Selection(task_ids=("rest",)), Selection(filter_file=filters)):
        chosen = ParticipantOptions(
            bids_dir=options.bids_dir, output_dir=options.output_dir, selection=selection
        )
        assert fmriprep.list_unprocessed(chosen) == []


def test_a_run_in_another_space_is_not_what_is_wanted(options):
    names = [
        name_bold(task, "space-MNI152NLin2009cAsym_desc-preproc") for task in ("rest", "nback")
    ]
    prepare(options, *names, "sub-01.html")
    assert fmriprep.list_unprocessed(options) == ["01"]
    asked = ParticipantOptions(
        bids_dir=options.bids_dir,
        output_dir=options.output_dir,
        fmriprep_args=("--output-spaces", "T1w", "MNI152NLin2009cAsym", "--fs-no-reconall"),
    )
    assert fmriprep.list_unprocessed(asked) == []


def test_what_fmriprep_left_out_is_told_of_and_nothing_at_all_is_an_error(options, caplog):
    folder = options.output_dir / fmriprep.FOLDER
    with pytest.raises(DataError, match="holds no BOLD in MNI152NLin6Asym:res-2 of sub-01"):
        fmriprep._check_results(options, folder)
    prepare(options, name_bold("rest"), "sub-01.html")
    with caplog.at_level(logging.WARNING, logger="neurostorm_bids"):
        fmriprep._check_results(options, folder)
    assert "made nothing of sub-01_task-nback" in caplog.text
