"""Trees of other programs and releases, under the names that these write."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.derivatives.names import check_distinct, derive_path
from neurostorm_bids.errors import MissingFileError, SelectionError, UsageError
from neurostorm_bids.inputs import Cleaning, Selection, find_bold_runs, find_datasets
from neurostorm_bids.inputs.names import join_entities, read_name

OLD = "sub-10159_task-rest_bold_space-MNI152NLin2009cAsym"
MODERN = "sub-10159_task-rest_space-MNI152NLin2009cAsym_desc-preproc"
XCPD = "sub-01_ses-A_task-rest_run-1_space-MNI152NLin6Asym_res-2"
PREFERRED = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")


def find(folder, *, voxel_size_mm=None, cleaning=None, derivatives=None, **selection):
    return find_bold_runs(
        find_datasets(folder, derivatives or {}),
        Selection(**selection),
        preferred_spaces=PREFERRED,
        voxel_size_mm=voxel_size_mm,
        cleaning=cleaning,
    )


def make(folder, *names, repetition_time=2.0):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            path.write_text(json.dumps({"RepetitionTime": repetition_time}))
        else:
            path.touch()
    return folder


@pytest.mark.parametrize(
    ("old", "today"),
    [
        (f"{OLD}_preproc.nii.gz", f"{MODERN}_bold.nii.gz"),
        (f"{OLD}_preproc.json", f"{MODERN}_bold.json"),
        (f"{OLD}_brainmask.nii.gz", MODERN.replace("preproc", "brain") + "_mask.nii.gz"),
        (
            f"{OLD}_variant-smoothAROMAnonaggr_preproc.nii.gz",
            MODERN.replace("preproc", "smoothAROMAnonaggr") + "_bold.nii.gz",
        ),
        (
            "sub-10159_task-rest_bold_confounds.tsv",
            "sub-10159_task-rest_desc-confounds_timeseries.tsv",
        ),
    ],
)
def test_names_of_fmriprep_1_are_read_as_those_of_today(old, today):
    parts = read_name(old)
    assert f"{join_entities(parts.entities)}_{parts.suffix}{parts.extension}" == today


def test_a_run_of_fmriprep_1_has_its_mask_and_confounds_and_a_name_of_today(fmriprep, tmp_path):
    func = "sub-10159/func"
    make(
        fmriprep,
        f"{func}/{OLD}_preproc.nii.gz",
        f"{func}/{OLD}_preproc.json",
        f"{func}/{OLD}_brainmask.nii.gz",
        f"{func}/{OLD}_variant-smoothAROMAnonaggr_preproc.nii.gz",
        f"{func}/sub-10159_task-rest_bold_confounds.tsv",
    )
    (run,) = find(fmriprep).runs
    assert run.label == MODERN
    assert run.path.name == f"{OLD}_preproc.nii.gz"
    assert run.repetition_time_s == 2
    assert run.brain_mask.name == f"{OLD}_brainmask.nii.gz"
    assert run.confounds.name == "sub-10159_task-rest_bold_confounds.tsv"
    path = derive_path(
        tmp_path, run, suffix="embedding", extension=".tsv", entities={"desc": "scan"}
    )
    assert path.name == MODERN.replace("preproc", "scan") + "_embedding.tsv"


def test_one_run_under_its_old_and_its_new_name_is_read_once(fmriprep, add_run):
    make(fmriprep, f"sub-10159/func/{OLD}_preproc.nii.gz", f"sub-10159/func/{OLD}_preproc.json")
    add_run(fmriprep, MODERN)
    found = find(fmriprep)
    assert len(found.runs) == 1
    assert "holds the same series" in found.left_out[0].reason


def test_runs_of_one_old_dataset_do_not_meet_in_one_output(fmriprep, tmp_path):
    for run in ("run-1_", "run-2_", "acq-x_run-1_", ""):
        stem = f"sub-01/func/sub-01_task-rest_{run}bold_space-MNI152NLin6Asym_preproc"
        make(fmriprep, f"{stem}.nii.gz", f"{stem}.json")
    runs = find(fmriprep).runs
    assert len(runs) == 4
    check_distinct(tmp_path, runs)


def test_old_names_can_be_filtered(fmriprep, tmp_path, write_json):
    for task in ("rest", "nback"):
        stem = f"sub-01/func/sub-01_task-{task}_run-01_bold_space-MNI152NLin6Asym_preproc"
        make(fmriprep, f"{stem}.nii.gz", f"{stem}.json")
    for content, tasks in (
        ({"task": "rest", "run": 1, "desc": "preproc"}, ["rest"]),
        ({"session": None, "task": ["rest", "nback"]}, ["nback", "rest"]),
        ({"run": "*", "acquisition": None, "task": "nback"}, ["nback"]),
    ):
        path = write_json(tmp_path / "filter.json", {"bold": content})
        found = find(fmriprep, filter_file=path)
        assert sorted(run.entities["task"] for run in found.runs) == tasks
    path = write_json(tmp_path / "filter.json", {"bold": {"session": "*"}})
    with pytest.raises(SelectionError):
        find(fmriprep, filter_file=path)


def test_a_run_without_a_sidecar_takes_that_of_the_raw_dataset_around_it(tmp_path, describe):
    raw = make(tmp_path / "ds", "task-rest_bold.json", repetition_time=1.5)
    make(raw, "sub-10159/func/sub-10159_task-rest_bold.nii.gz")
    make(describe(raw / "derivatives/fmriprep"), f"sub-10159/func/{OLD}_preproc.nii.gz")
    (run,) = find(raw).runs
    assert run.repetition_time_s == 1.5
    make(raw, "sub-10159/func/sub-10159_task-rest_bold.json", repetition_time=1.25)
    assert find(raw / "derivatives/fmriprep").runs[0].repetition_time_s == 1.25


def test_xcpd_gives_the_series_that_is_not_smoothed_with_its_motion(fmriprep, describe):
    func = "sub-01/ses-A/func"
    run_stem = "sub-01_ses-A_task-rest_run-1"
    make(
        describe(fmriprep, GeneratedBy=[{"Name": "xcp_d", "Version": "0.10.0"}]),
        *(f"{func}/{XCPD}_desc-{d}_bold.nii.gz" for d in ("denoised", "denoisedSmoothed")),
        *(f"{func}/{XCPD}_desc-{d}_bold.json" for d in ("denoised", "denoisedSmoothed")),
        f"{func}/{XCPD}_desc-brain_mask.nii.gz",
        f"{func}/{run_stem}_motion.tsv",
        f"{func}/{run_stem}_outliers.tsv",
        f"{func}/{XCPD}_atlas-4S156Parcels_stat-mean_timeseries.tsv",
    )
    found = find(fmriprep)
    (run,) = found.runs
    assert run.label == f"{XCPD}_desc-denoised"
    assert run.dataset.name == "xcpd"
    assert run.brain_mask.name == f"{XCPD}_desc-brain_mask.nii.gz"
    assert run.confounds.name == f"{run_stem}_motion.tsv"
    (left_out,) = found.left_out
    assert left_out.reason == "desc-denoised of the same series is taken"


def test_the_smoothed_series_is_read_where_it_is_the_only_one(fmriprep, tmp_path):
    stem = f"sub-01/ses-A/func/{XCPD}_desc-denoisedSmoothed_bold"
    make(fmriprep, f"{stem}.nii.gz", f"{stem}.json")
    (run,) = find(fmriprep).runs
    path = derive_path(
        tmp_path, run, suffix="embedding", extension=".tsv", entities={"desc": "scan"}
    )
    assert path.name == f"{XCPD}_desc-denoisedSmoothedScan_embedding.tsv"


def test_a_series_that_was_denoised_is_not_denoised_again(fmriprep):
    stem = f"sub-01/ses-A/func/{XCPD}_desc-denoised_bold"
    make(fmriprep, f"{stem}.nii.gz", f"{stem}.json")
    found = find(fmriprep, cleaning=Cleaning(denoise="simple"))
    (unusable,) = found.unusable
    assert found.runs == []
    assert isinstance(unusable.error, UsageError)
    assert "was denoised before" in str(unusable.error)


@pytest.mark.parametrize("option", [{"denoise": "simple"}, {"fd_threshold_mm": 0.5}])
def test_a_run_without_confounds_cannot_be_cleaned_by_them(option, fmriprep, add_run):
    add_run(fmriprep, MODERN, confounds=None)
    (unusable,) = find(fmriprep, cleaning=Cleaning(**option)).unusable
    assert isinstance(unusable.error, MissingFileError)
    name = next(iter(option)).removesuffix("_mm").replace("_", "-")
    assert f"without which --{name} cannot be done" in str(unusable.error)


def test_derivatives_in_the_form_of_hcp_pipelines_need_no_desc(fmriprep):
    stem = "sub-100307_task-REST1_dir-LR_run-1_space-MNI152NLin6Asym_res-2"
    make(
        fmriprep,
        f"sub-100307/func/{stem}_bold.nii.gz",
        f"sub-100307/func/{stem}_bold.json",
        f"sub-100307/func/{stem}_desc-brain_mask.nii.gz",
        repetition_time=0.72,
    )
    (run,) = find(fmriprep).runs
    assert run.repetition_time_s == 0.72
    assert run.brain_mask is not None


def write_header(path, side_mm):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.int16), np.diag([side_mm] * 3 + [1])), path)


def test_the_resolution_nearest_to_the_model_is_taken_by_affine_not_by_label(fmriprep, add_run):
    sides = {"": 3.0, "_res-1": 2.0, "_res-2": 1.0, "_res-native": 2.4}
    for res, side_mm in sides.items():
        bold = add_run(fmriprep, f"sub-01_task-rest_space-MNI152NLin6Asym{res}_desc-preproc")
        write_header(bold, side_mm)
    for wanted, res in ((2.0, "1"), (1.0, "2"), (2.3, "native"), (4.0, None)):
        found = find(fmriprep, voxel_size_mm=wanted)
        assert [run.entities.get("res") for run in found.runs] == [res]
    reasons = {one.path.name.split("_")[3]: one.reason for one in found.left_out}
    assert reasons["res-2"] == (
        "the file without res- of the same series is taken: its voxels of 3 mm are nearer to the "
        "model's than 1 mm"
    )


def claim_another_type(path):
    content = bytearray(path.read_bytes())
    content[70:72] = (9999).to_bytes(2, "little")
    path.write_bytes(content)


def make_it_of_nothing(path):
    path.write_bytes(b"\x1f\x8b\x08" + bytes(range(200)))


def put_it_in_metres(path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.int16), np.diag([2e-3] * 3 + [1])), path)


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [(claim_another_type, "nii"), (make_it_of_nothing, "nii.gz"), (put_it_in_metres, "nii")],
)
def test_a_header_that_tells_no_size_ends_nothing(fmriprep, add_run, damage, suffix):
    stem = "sub-01_task-rest_space-MNI152NLin6Asym"
    good, bad = (add_run(fmriprep, f"{stem}{res}_desc-preproc") for res in ("_res-1", ""))
    write_header(good, 4.0)
    bad = bad.replace(bad.with_name(bad.name.replace("nii.gz", suffix)))
    write_header(bad, 2.0)
    damage(bad)
    (run,) = find(fmriprep, voxel_size_mm=2.0).runs
    assert run.path == good


def test_the_message_about_a_repetition_time_outlives_a_damaged_header(fmriprep, add_run):
    bold = add_run(fmriprep, MODERN, repetition_time=2000.0)
    bold = bold.replace(bold.with_name(bold.name.replace("nii.gz", "nii")))
    write_header(bold, 2.0)
    claim_another_type(bold)
    (unusable,) = find(fmriprep).unusable
    assert "looks like milliseconds" in str(unusable.error)


def test_a_resolution_can_be_asked_for(fmriprep, add_run):
    for res in ("_res-1", "_res-02", ""):
        add_run(fmriprep, f"sub-01_task-rest_space-MNI152NLin6Asym{res}_desc-preproc")
    (run,) = find(fmriprep, space="MNI152NLin6Asym:res-2").runs
    assert run.entities["res"] == "02"
    with pytest.raises(SelectionError, match="MNI152NLin6Asym:res-3"):
        find(fmriprep, space="MNI152NLin6Asym:res-3")
    with pytest.raises(UsageError, match="not of the form"):
        find(fmriprep, space="MNI152NLin6Asym:2mm")


def test_runs_of_real_trees_are_found_and_told_apart(shared, tmp_path):
    for name, n_runs in (("fmriprep-21.0.1_ds000001", 6), ("fmriprep-21.0.2_ds000228", 8)):
        found = find(shared / "realdata" / "layouts" / name, voxel_size_mm=2.0)
        assert len(found.runs) == n_runs
        assert all(run.brain_mask and run.confounds for run in found.runs)
        check_distinct(tmp_path, found.runs)
