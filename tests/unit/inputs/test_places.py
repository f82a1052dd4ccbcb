"""A folder too high, too low, linked in circles or not fetched leads to the data or to advice."""

from __future__ import annotations

import logging

import pytest

from neurostorm_bids.errors import DatasetError, MissingFileError
from neurostorm_bids.inputs import Selection, find_bold_runs, find_datasets
from neurostorm_bids.inputs.places import find_place

STEM = "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc"


def paths(folder, **kwargs):
    return [dataset.path for dataset in find_datasets(folder, {}, **kwargs)]


@pytest.fixture
def tree(fmriprep, add_run):
    """One participant without a session, one with."""
    add_run(fmriprep, STEM)
    add_run(fmriprep, STEM.replace("sub-01", "sub-02_ses-A"))
    return fmriprep


@pytest.mark.parametrize(
    ("below", "participant", "session"),
    [
        ("", None, None),
        ("sub-01", "01", None),
        ("sub-01/func", "01", None),
        ("sub-02/ses-A", "02", "A"),
        ("sub-02/ses-A/func", "02", "A"),
    ],
)
def test_a_folder_inside_a_dataset_leads_to_it_and_to_its_participant(
    below, participant, session, tree, caplog
):
    with caplog.at_level(logging.WARNING):
        place = find_place(tree / below)
    assert place == (tree, participant, session)
    assert bool(caplog.messages) == bool(participant)
    selection = place.narrow(Selection())
    assert selection.participant_labels == ((participant,) if participant else ())
    assert selection.session_ids == ((session,) if session else ())


def test_what_the_user_chose_stays_chosen(tree):
    asked = Selection(participant_labels=("02",))
    assert find_place(tree / "sub-01").narrow(asked) == asked


@pytest.mark.parametrize("above", ["study", "study/derivatives", "study/derivatives/out"])
def test_the_one_dataset_below_a_folder_is_read_and_told(
    above, tmp_path, add_run, describe, caplog
):
    folder = tmp_path / "study/derivatives/out/prep"
    add_run(describe(folder), STEM)
    with caplog.at_level(logging.WARNING):
        assert paths(tmp_path / above) == [folder]
    assert str(folder) in caplog.text


def test_several_datasets_below_a_folder_are_listed(tmp_path, add_run, describe):
    for name in ("a/one", "a/two", "a/sourcedata", "a/.git", "a/.datalad"):
        add_run(describe(tmp_path / name), STEM)
    with pytest.raises(DatasetError) as caught:
        find_datasets(tmp_path / "a", {})
    message = str(caught.value)
    assert message.count("\n  ") == 2
    assert f"{tmp_path}/a/one\n" in message
    assert f"{tmp_path}/a/two\n" in message


def test_a_raw_dataset_leads_to_other_derivatives_than_fmriprep(tmp_path, add_run, describe):
    raw = tmp_path / "raw"
    describe(raw, DatasetType="raw")
    (raw / "sub-01/func").mkdir(parents=True)
    (raw / "sub-01/func/sub-01_task-rest_bold.nii.gz").touch()
    (raw / "derivatives/mriqc/sub-01/func").mkdir(parents=True)
    xcpd = raw / "derivatives/xcp_d"
    add_run(describe(xcpd), STEM.replace("preproc", "denoised"))
    (dataset,) = find_datasets(raw, {})
    assert (dataset.path, dataset.raw) == (xcpd, raw)


def test_links_in_circles_end_the_search(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/back").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to("self")
    with pytest.raises(DatasetError, match="No dataset"):
        find_datasets(tmp_path, {})


def test_a_participant_that_links_to_itself_is_told_and_the_others_are_read(tree):
    (tree / "sub-03").symlink_to("sub-03")
    found = find_bold_runs(find_datasets(tree, {}), Selection(), preferred_spaces=())
    assert [run.participant for run in found.runs] == ["01", "02"]
    assert [one.participant for one in found.unusable] == ["03"]


def test_links_to_participants_elsewhere_are_followed(tree, tmp_path, describe):
    linked = describe(tmp_path / "linked")
    (linked / "sub-01").symlink_to(tree / "sub-01")
    found = find_bold_runs(find_datasets(linked, {}), Selection(), preferred_spaces=())
    assert [run.participant for run in found.runs] == ["01"]


def test_a_subdataset_that_was_not_fetched_is_told_with_the_command(tmp_path):
    (tmp_path / ".gitmodules").write_text('[submodule "x"]\n\tpath = fmri prep\n\turl = ./x\n')
    (tmp_path / "fmri prep").mkdir()
    with pytest.raises(MissingFileError) as caught:
        find_datasets(tmp_path, {})
    assert f"datalad get -d {tmp_path} '{tmp_path}/fmri prep'" in str(caught.value)


def test_a_participant_that_was_not_fetched_does_not_stop_the_others(tree):
    (tree / ".gitmodules").write_text('[submodule "sub-03"]\n\tpath = sub-03\n')
    (tree / "sub-03").mkdir()
    found = find_bold_runs(find_datasets(tree, {}), Selection(), preferred_spaces=())
    assert len(found.runs) == 2
    (unusable,) = found.unusable
    assert f"datalad get -d {tree} {tree}/sub-03" in str(unusable.error)


@pytest.mark.parametrize("kind", ["link", "pointer"])
def test_a_series_that_was_not_fetched_is_told_with_the_command(kind, tree):
    bold = tree / "sub-01/func" / f"{STEM}_bold.nii.gz"
    bold.unlink()
    content = ".git/annex/objects/x1/Jv/MD5E-s5--abc.nii.gz/MD5E-s5--abc.nii.gz"
    if kind == "link":
        bold.symlink_to(f"../../{content}")
    else:
        bold.write_text("/annex/objects/MD5E-s5--abc.nii.gz\n")
    found = find_bold_runs(find_datasets(tree, {}), Selection(), preferred_spaces=())
    (unusable,) = found.unusable
    assert isinstance(unusable.error, MissingFileError)
    assert f"datalad get -d {tree} {bold}" in str(unusable.error)
    assert [run.participant for run in found.runs] == ["02"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Name": None}, "Name is None"),
        ({"BIDSVersion": 1.4}, "BIDSVersion is 1.4"),
        ({"DatasetType": "derivative", "Name": ""}, "Name is ''"),
    ],
)
def test_an_odd_description_is_refused_unless_validation_is_skipped(
    changes, problem, tree, describe
):
    describe(tree, **changes)
    with pytest.raises(DatasetError, match=f"{problem}.*--skip-bids-validation"):
        find_datasets(tree, {})
    assert paths(tree, is_checked=False) == [tree]


def test_a_damaged_description_is_passed_over_where_validation_is_skipped(tree):
    (tree / "dataset_description.json").write_text("{")
    (dataset,) = find_datasets(tree, {}, is_checked=False)
    assert dataset.description == {}
