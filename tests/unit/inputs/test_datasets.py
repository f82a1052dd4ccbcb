"""BIDS_DIR and -d lead to folders of derivatives, or to an error that says what was looked for."""

from __future__ import annotations

import json
import logging

import pytest

from neurostorm_bids.errors import DatasetError, MissingFileError, UsageError
from neurostorm_bids.inputs import find_datasets

STEM = "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc"


@pytest.fixture
def raw(tmp_path, write_json):
    """A raw dataset of two participants, three BOLD runs, one of them with two echoes."""
    folder = tmp_path / "raw data"
    write_json(folder / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.8.0"})
    for name in (
        "sub-01/func/sub-01_task-rest_run-1_bold.nii.gz",
        "sub-01/func/sub-01_task-rest_run-2_echo-1_bold.nii.gz",
        "sub-01/func/sub-01_task-rest_run-2_echo-2_bold.nii.gz",
        "sub-02/ses-A/func/sub-02_ses-A_task-rest_bold.nii",
        "sub-02/ses-A/anat/sub-02_ses-A_T1w.nii.gz",
        "sourcedata/sub-03/func/sub-03_task-rest_bold.nii.gz",
        "code/sub-04_task-rest_bold.nii.gz",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paths(datasets):
    return [dataset.path for dataset in datasets]


def test_an_output_folder_of_today_is_its_own_dataset(fmriprep, add_run):
    add_run(fmriprep, STEM)
    (dataset,) = find_datasets(fmriprep, {})
    assert dataset.path == fmriprep
    assert dataset.name == "fmriprep"
    assert dataset.description["GeneratedBy"][0]["Version"] == "23.2.1"


def test_an_output_folder_of_before_21_has_the_dataset_in_fmriprep(fmriprep, add_run):
    add_run(fmriprep, STEM)
    assert paths(find_datasets(fmriprep.parent, {})) == [fmriprep]


def test_a_raw_dataset_leads_to_all_its_fmriprep_derivatives(raw, add_run, describe):
    for name in ("fmriprep", "fmriprep-20.2", "mriqc"):
        add_run(describe(raw / "derivatives" / name), STEM)
    add_run(describe(raw / "derivatives/fmriprep-old/fmriprep"), STEM)
    found = find_datasets(raw, {})
    expected = ["fmriprep", "fmriprep-20.2", "fmriprep-old/fmriprep"]
    assert paths(found) == [raw / "derivatives" / name for name in expected]
    assert [dataset.name for dataset in found] == ["fmriprep", "fmriprep2", "fmriprep3"]


def test_a_raw_dataset_with_named_derivatives_leads_to_those_alone(
    raw, tmp_path, add_run, describe
):
    add_run(describe(raw / "derivatives" / "fmriprep"), STEM)
    add_run(describe(tmp_path / "elsewhere"), STEM)
    (dataset,) = find_datasets(raw, {"my.prep": tmp_path / "elsewhere"})
    assert (dataset.name, dataset.path) == ("my.prep", tmp_path / "elsewhere")


def test_named_derivatives_come_after_a_folder_of_derivatives(
    fmriprep, tmp_path, add_run, describe
):
    add_run(fmriprep, STEM)
    add_run(describe(tmp_path / "xcp"), "sub-01_task-rest_space-MNI152NLin6Asym_desc-denoised")
    found = find_datasets(fmriprep, {"xcpd": tmp_path / "xcp", "same": fmriprep})
    assert [dataset.name for dataset in found] == ["fmriprep", "xcpd"]


def test_a_relative_path_becomes_absolute(fmriprep, add_run, monkeypatch):
    add_run(fmriprep, STEM)
    monkeypatch.chdir(fmriprep.parent)
    assert paths(find_datasets(type(fmriprep)("fmriprep"), {})) == [fmriprep]


@pytest.mark.parametrize("kind", ["raw", None])
def test_a_raw_dataset_without_derivatives_is_counted_and_given_the_command(kind, raw, describe):
    if kind:
        describe(raw, DatasetType=kind)
    before = sorted(raw.rglob("*"))
    with pytest.raises(MissingFileError) as caught:
        find_datasets(raw, {})
    message = str(caught.value)
    assert "2 participants, 3 BOLD runs" in message
    output = raw / "derivatives" / "fmriprep"
    assert (
        f"fmriprep-docker '{raw}' '{output}' participant --output-spaces MNI152NLin6Asym:res-2"
    ) in message
    assert sorted(raw.rglob("*")) == before


def test_a_raw_dataset_without_a_description_still_leads_to_its_derivatives(raw, add_run, describe):
    (raw / "dataset_description.json").unlink()
    add_run(describe(raw / "derivatives" / "fmriprep"), STEM)
    assert paths(find_datasets(raw, {})) == [raw / "derivatives" / "fmriprep"]


def test_a_raw_dataset_without_any_bold_is_an_error(tmp_path, write_json):
    write_json(tmp_path / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.8.0"})
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(MissingFileError, match="1 participants, 0 BOLD runs"):
        find_datasets(tmp_path, {})


def test_a_description_that_does_not_say_what_it_is_leaves_it_to_the_file_names(
    fmriprep, add_run, write_json
):
    add_run(fmriprep, STEM)
    write_json(fmriprep / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.4.0"})
    assert paths(find_datasets(fmriprep, {})) == [fmriprep]


def test_derivatives_without_a_description_are_usable_with_a_warning(tmp_path, add_run, caplog):
    add_run(tmp_path / "my (prep)", STEM)
    with caplog.at_level(logging.WARNING):
        (dataset,) = find_datasets(tmp_path / "my (prep)", {})
    assert dataset.description == {}
    assert dataset.name == "myprep"
    assert "dataset_description.json" in caplog.text


@pytest.mark.parametrize(
    ("generated_by", "name"),
    [
        ([{"Name": "XCP-D"}], "xcpd"),
        ([{"Name": "é"}], "fmriprep"),
        ([{"Name": 3}], "fmriprep"),
        (["fMRIPrep"], "fmriprep"),
        ({"Name": "x"}, "fmriprep"),
        ([], "fmriprep"),
    ],
)
def test_a_dataset_is_named_after_its_program_or_else_its_folder(
    generated_by, name, fmriprep, add_run, describe
):
    add_run(describe(fmriprep, GeneratedBy=generated_by), STEM)
    assert find_datasets(fmriprep, {})[0].name == name


@pytest.mark.parametrize("content", ["", "[]", "{'a': 1}", "\udcff"])
def test_a_broken_description_is_an_error(content, fmriprep, add_run):
    add_run(fmriprep, STEM)
    path = fmriprep / "dataset_description.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=r"dataset_description\.json"):
        find_datasets(fmriprep, {})


def test_a_description_that_was_not_fetched_is_an_error(fmriprep, add_run):
    add_run(fmriprep, STEM)
    path = fmriprep / "dataset_description.json"
    path.unlink()
    path.symlink_to("absent")
    with pytest.raises(MissingFileError, match="datalad get"):
        find_datasets(fmriprep, {})


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="found nothing at"):
        find_datasets(tmp_path / "absent", {})


def test_a_file_is_no_dataset(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(DatasetError, match="found a file at"):
        find_datasets(tmp_path / "a", {})


def test_a_folder_without_participants_is_an_error_that_says_where_was_looked(tmp_path):
    (tmp_path / "sub-01.html").touch()
    (tmp_path / "derivatives").mkdir()
    with pytest.raises(DatasetError, match=r"No dataset .*sub-\*.*fmriprep.*derivatives"):
        find_datasets(tmp_path, {})


def test_named_derivatives_without_participants_are_an_error(fmriprep, tmp_path):
    with pytest.raises(DatasetError, match="No dataset for -d mine="):
        find_datasets(fmriprep, {"mine": tmp_path / "absent"})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "-a", "é"])
def test_a_name_that_cannot_stand_in_a_uri_is_an_error(name, fmriprep, add_run):
    add_run(fmriprep, STEM)
    with pytest.raises(UsageError, match="-d NAME=PATH"):
        find_datasets(fmriprep, {name: fmriprep})


def test_nothing_hidden_is_mistaken_for_a_participant(tmp_path):
    for name in (".git", "sourcedata", ".datalad", "sub-", "sub-0 1", "sub-é", "sub-01\n"):
        (tmp_path / name).mkdir()
    (tmp_path / "dataset_description.json").write_text(json.dumps({"DatasetType": "derivative"}))
    with pytest.raises(DatasetError, match="No dataset"):
        find_datasets(tmp_path, {})
