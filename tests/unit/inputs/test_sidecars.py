"""The repetition time comes from the nearest sidecar that applies, or there is an error."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.inputs import read_repetition_time

STEM = "sub-01_ses-A_task-rest_space-MNI152NLin6Asym_res-2_desc-preproc"


@pytest.fixture
def bold(fmriprep, add_run):
    return add_run(fmriprep, STEM, repetition_time=None)


def test_an_own_sidecar_is_read(bold, write_json):
    write_json(bold.with_name(f"{STEM}_bold.json"), {"RepetitionTime": 2})
    assert read_repetition_time(bold) == 2.0


@pytest.mark.parametrize(
    "place",
    [
        "bold.json",
        "task-rest_bold.json",
        "task-rest_desc-preproc_bold.json",
        "sub-01/sub-01_task-rest_bold.json",
        "sub-01/ses-A/sub-01_ses-A_bold.json",
        "sub-01/ses-A/func/sub-01_ses-A_task-rest_desc-preproc_bold.json",
    ],
)
def test_a_sidecar_above_is_inherited(place, bold, fmriprep, write_json):
    write_json(fmriprep / place, {"RepetitionTime": 0.8})
    assert read_repetition_time(bold) == 0.8
    assert read_repetition_time(bold, dataset_root=fmriprep) == 0.8


@pytest.mark.parametrize(
    "place",
    [
        "task-nback_bold.json",
        "run-1_bold.json",
        "task-rest_events.json",
        "task-rest_bold.txt",
        "sub-02/sub-02_task-rest_bold.json",
        "../task-rest_bold.json",
        "sub-01/ses-A/anat/sub-01_ses-A_bold.json",
    ],
)
def test_a_sidecar_that_does_not_apply_is_not_read(place, bold, fmriprep, write_json):
    write_json(fmriprep / place, {"RepetitionTime": 0.8})
    with pytest.raises(MissingFileError, match="No JSON sidecar"):
        read_repetition_time(bold)


def test_the_nearer_sidecar_wins_and_in_one_folder_the_one_with_more_entities(
    bold, fmriprep, write_json
):
    write_json(fmriprep / "task-rest_space-MNI152NLin6Asym_bold.json", {"RepetitionTime": 1.0})
    assert read_repetition_time(bold) == 1.0
    write_json(fmriprep / "sub-01/sub-01_bold.json", {"RepetitionTime": 2.0})
    assert read_repetition_time(bold) == 2.0
    write_json(fmriprep / "sub-01/sub-01_task-rest_bold.json", {"RepetitionTime": 3.0})
    assert read_repetition_time(bold) == 3.0


def test_a_nearer_sidecar_without_repetition_time_inherits_it(bold, fmriprep, write_json):
    write_json(fmriprep / "task-rest_bold.json", {"RepetitionTime": 1.5})
    write_json(bold.with_name(f"{STEM}_bold.json"), {"SkullStripped": False})
    assert read_repetition_time(bold) == 1.5


def test_without_a_description_inheritance_ends_above_the_participant(
    tmp_path, add_run, write_json
):
    bold = add_run(tmp_path / "out", STEM, repetition_time=None)
    write_json(tmp_path / "task-rest_bold.json", {"RepetitionTime": 9.0})
    write_json(tmp_path / "out" / "task-rest_bold.json", {"RepetitionTime": 1.5})
    assert read_repetition_time(bold) == 1.5


def test_a_loose_file_of_any_name_has_the_sidecar_beside_it(tmp_path, write_json, monkeypatch):
    write_json(tmp_path / "my scan.json", {"RepetitionTime": 1.1})
    assert read_repetition_time(tmp_path / "my scan.nii.gz") == 1.1
    monkeypatch.chdir(tmp_path)
    assert read_repetition_time(type(tmp_path)("my scan.nii")) == 1.1


@pytest.mark.parametrize("value", [True, "2.0", None, [2.0], {}])
def test_a_repetition_time_that_is_no_number_is_an_error(value, bold, write_json):
    write_json(bold.with_name(f"{STEM}_bold.json"), {"RepetitionTime": value})
    with pytest.raises(DataError, match="a number"):
        read_repetition_time(bold)


@pytest.mark.parametrize("value", [0, 0.0, -2.0, float("nan"), float("inf"), -float("inf")])
def test_a_repetition_time_that_is_no_duration_is_an_error(value, bold, write_json):
    write_json(bold.with_name(f"{STEM}_bold.json"), {"RepetitionTime": value})
    with pytest.raises(DataError, match="above 0 s"):
        read_repetition_time(bold)


@pytest.mark.parametrize("value", [2000, 720.0, 100, 10**400])
def test_a_repetition_time_in_milliseconds_is_an_error_that_says_so(value, bold, write_json):
    write_json(bold.with_name(f"{STEM}_bold.json"), {"RepetitionTime": value})
    with pytest.raises(DataError, match="looks like milliseconds"):
        read_repetition_time(bold)


def test_sidecars_without_repetition_time_are_listed(bold, fmriprep, write_json):
    write_json(fmriprep / "task-rest_bold.json", {})
    write_json(bold.with_name(f"{STEM}_bold.json"), {"VolumeTiming": [0, 2]})
    with pytest.raises(DataError, match=rf"task-rest_bold\.json.*{STEM}_bold\.json"):
        read_repetition_time(bold)


def test_a_broken_sidecar_is_an_error(bold):
    bold.with_name(f"{STEM}_bold.json").write_text("{'RepetitionTime': 2}")
    with pytest.raises(DataError, match="Expected JSON"):
        read_repetition_time(bold)


def test_a_sidecar_that_was_not_fetched_is_named_with_the_command(bold, fmriprep):
    bold.with_name(f"{STEM}_bold.json").symlink_to("../.git/annex/objects/x")
    with pytest.raises(MissingFileError, match=f"datalad get -d {fmriprep} .*_bold.json"):
        read_repetition_time(bold)


def test_a_file_outside_the_dataset_is_an_error(bold, tmp_path):
    with pytest.raises(UsageError, match="does not lie in the dataset"):
        read_repetition_time(bold, dataset_root=tmp_path / "other")


@pytest.mark.parametrize("value", [0, 2000, "2"])
def test_a_wrong_repetition_time_is_told_beside_the_header_s(value, tmp_path):
    bold = tmp_path / "sub-01_bold.nii.gz"
    image = nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4))
    image.header.set_zooms((1, 1, 1, 2.5))
    nib.save(image, bold)
    (tmp_path / "sub-01_bold.json").write_text(json.dumps({"RepetitionTime": value}))
    with pytest.raises(DataError, match=rf"{value}.*The header of {bold.name} says 2\.5"):
        read_repetition_time(bold, dataset_root=tmp_path)
