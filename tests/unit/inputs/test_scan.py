"""The scan lists preprocessed MNI BOLD with its mask and confounds, and says what it leaves out."""

from __future__ import annotations

import pytest

from neurostorm_bids.errors import MissingFileError
from neurostorm_bids.inputs.records import SourceDataset
from neurostorm_bids.inputs.scan import list_participants, scan_participant

SPACE = "space-MNI152NLin6Asym"


@pytest.fixture
def scan(fmriprep):
    """Return a function that scans one participant of the tree."""
    dataset = SourceDataset(name="fmriprep", path=fmriprep)
    return lambda label="01": scan_participant(fmriprep / f"sub-{label}", dataset)


@pytest.mark.parametrize(
    "stem",
    [
        f"sub-01_task-rest_{SPACE}_desc-preproc",
        f"sub-01_task-rest_{SPACE}_res-2_desc-preproc",
        f"sub-01_task-rest_{SPACE}_res-02_desc-denoised",
        f"sub-01_ses-A+b_task-rest_acq-x_ce-y_rec-z_dir-AP_run-01_{SPACE}_res-2_desc-preproc",
        f"sub-01_task-rest_unheard-of1_{SPACE}_desc-preproc",
        "sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc",
    ],
)
def test_names_of_all_releases_are_found_with_all_their_entities(stem, fmriprep, add_run, scan):
    bold = add_run(fmriprep, stem)
    (candidate,) = scan().candidates
    assert candidate.path == bold
    assert "_".join(f"{key}-{value}" for key, value in candidate.entities.items()) == stem
    stem_without_desc = stem.rsplit("_", 1)[0]
    assert candidate.find_brain_mask() == bold.with_name(
        f"{stem_without_desc}_desc-brain_mask.nii.gz"
    )
    assert candidate.find_confounds().name.endswith("_desc-confounds_timeseries.tsv")


def test_images_that_are_not_compressed_are_found(fmriprep, add_run, scan):
    bold = add_run(fmriprep, f"sub-01_task-rest_{SPACE}_desc-preproc", mask=False)
    bold.rename(bold.with_suffix(""))
    bold.with_name(f"sub-01_task-rest_{SPACE}_desc-brain_mask.nii").touch()
    (candidate,) = scan().candidates
    assert candidate.path.name.endswith("_bold.nii")
    assert candidate.find_brain_mask().name.endswith("_mask.nii")


def test_confounds_have_two_names_and_the_newer_wins(fmriprep, add_run, scan):
    stem = f"sub-01_task-rest_run-1_{SPACE}_res-2_desc-preproc"
    add_run(fmriprep, stem, confounds="regressors")
    (candidate,) = scan().candidates
    expected = "sub-01_task-rest_run-1_desc-confounds_regressors.tsv"
    assert candidate.find_confounds().name == expected
    add_run(fmriprep, stem, confounds="timeseries")
    (candidate,) = scan().candidates
    assert candidate.find_confounds().name == expected.replace("regressors", "timeseries")


def test_a_mask_of_another_grid_or_run_is_not_taken(fmriprep, add_run, scan):
    bold = add_run(fmriprep, f"sub-01_task-rest_run-1_{SPACE}_res-2_desc-preproc", mask=False)
    for other in (
        f"sub-01_task-rest_run-1_{SPACE}_desc-brain_mask.nii.gz",
        f"sub-01_task-rest_run-1_{SPACE}_res-1_desc-brain_mask.nii.gz",
        f"sub-01_task-rest_run-2_{SPACE}_res-2_desc-brain_mask.nii.gz",
        "sub-01_task-rest_run-1_desc-brain_mask.nii.gz",
        f"sub-01_{SPACE}_res-2_desc-brain_mask.nii.gz",
    ):
        bold.with_name(other).touch()
    (candidate,) = scan().candidates
    assert candidate.find_brain_mask() is None


def test_confounds_of_another_run_are_not_taken(fmriprep, add_run, scan):
    bold = add_run(fmriprep, f"sub-01_task-rest_run-1_{SPACE}_desc-preproc", confounds=None)
    bold.with_name("sub-01_task-rest_desc-confounds_timeseries.tsv").touch()
    bold.with_name("sub-01_task-rest_run-2_desc-confounds_timeseries.tsv").touch()
    (candidate,) = scan().candidates
    assert candidate.find_confounds() is None


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_task-rest_desc-preproc_bold.nii.gz",
        "sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz",
        "sub-01_task-rest_space-MNIInfant_cohort-1_desc-preproc_bold.nii.gz",
        "sub-01_task-rest_hemi-L_space-fsaverage5_bold.func.gii",
        "sub-01_task-rest_space-fsLR_den-91k_bold.dtseries.nii",
        f"sub-01_task-rest_{SPACE}_desc-smoothAROMAnonaggr_bold.nii.gz",
        f"sub-01_task-rest_{SPACE}_desc-preproc_bold.json",
        f"sub-01_task-rest_{SPACE}_desc-preproc_cbv.nii.gz",
        f"sub-01_task-rest_{SPACE}_boldref.nii.gz",
        f"sub-01_task-rest_{SPACE}_sbref.nii.gz",
        "sub-01_task-rest_bold_space-T1w_preproc.nii.gz",
        f"sub-01_task-rest_bold_{SPACE}_variant-smoothAROMAnonaggr_preproc.nii.gz",
        f"sub-01_task-rest_bold_{SPACE}_brainmask.nii.gz",
        f".sub-01_task-rest_{SPACE}_desc-preproc_mask.nii.gz",
    ],
)
def test_what_is_no_preprocessed_mni_bold_is_not_mentioned(name, fmriprep, scan):
    folder = fmriprep / "sub-01" / "func"
    folder.mkdir(parents=True)
    (folder / name).touch()
    assert scan() == ([], [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"sub-01_task-rest_echo-2_{SPACE}_desc-preproc_bold.nii.gz", "echo-2 is a single echo"),
        ("sub-01_task-rest_echo-2_desc-preproc_bold.nii.gz", "echo-2 is a single echo"),
        (f"sub-01_task-r st_{SPACE}_desc-preproc_bold.nii.gz", "not a BIDS name"),
        (f"sub-01_task-r\n_{SPACE}_desc-preproc_bold.nii.gz", "not a BIDS name"),
        (f"sub-01_task-a_task-b_{SPACE}_desc-preproc_bold.nii.gz", "not a BIDS name"),
        (f"sub-01_task-\udcff_{SPACE}_desc-preproc_bold.nii.gz", "not a BIDS name"),
        (f"sub-02_task-rest_{SPACE}_desc-preproc_bold.nii.gz", "another participant"),
        (f"task-rest_{SPACE}_desc-preproc_bold.nii.gz", "another participant"),
    ],
)
def test_what_looks_like_input_and_is_not_is_left_out_with_the_reason(name, reason, fmriprep, scan):
    folder = fmriprep / "sub-01" / "func"
    folder.mkdir(parents=True)
    (folder / name).touch()
    candidates, (left_out,) = scan()
    assert candidates == []
    assert left_out.path == folder / name
    assert reason in left_out.reason


def test_a_file_in_the_folder_of_another_session_is_left_out(fmriprep, add_run, scan):
    bold = add_run(fmriprep, f"sub-01_ses-A_task-rest_{SPACE}_desc-preproc")
    (fmriprep / "sub-01/ses-A").rename(fmriprep / "sub-01/ses-B")
    candidates, (left_out,) = scan()
    assert candidates == []
    assert left_out.path.name == bold.name
    assert "another session" in left_out.reason


def test_only_func_folders_are_listed(fmriprep, add_run, scan):
    bold = add_run(fmriprep, f"sub-01_task-rest_{SPACE}_desc-preproc")
    bold.parent.rename(fmriprep / "sub-01" / "anat")
    (fmriprep / "sub-01" / "ses-A").touch()
    (fmriprep / "sub-01" / "ses-é").mkdir()
    assert scan() == ([], [])


def test_a_participant_folder_may_be_a_link(fmriprep, add_run, scan, tmp_path):
    add_run(fmriprep, f"sub-01_task-rest_{SPACE}_desc-preproc")
    (fmriprep / "sub-01").rename(tmp_path / "store")
    (fmriprep / "sub-01").symlink_to(tmp_path / "store")
    (candidate,) = scan().candidates
    assert candidate.path.parent == fmriprep / "sub-01" / "func"


def test_a_participant_folder_that_was_not_fetched_is_an_error(fmriprep, scan):
    (fmriprep / "sub-01").symlink_to("absent")
    with pytest.raises(MissingFileError, match="datalad get"):
        scan()


def test_participants_are_listed_in_natural_order_by_name_alone(tmp_path):
    for name in ("sub-10", "sub-9", "sub-A+1", "sub-01.html", "sub-", "sub-a_b", "sub-ß", "xsub-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "sub-gone").symlink_to("absent")
    assert list(list_participants(tmp_path)) == ["9", "10", "A+1", "gone"]
