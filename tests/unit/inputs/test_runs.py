"""From a tree and a selection to runs, what was left out, and what cannot be run."""

from __future__ import annotations

import logging
import os
import shutil

import pytest

from neurostorm_bids.errors import (
    DataError,
    DatasetError,
    MissingFileError,
    ReadError,
    SelectionError,
    UsageError,
)
from neurostorm_bids.inputs import Selection, SourceDataset, find_bold_runs, find_datasets

SPACE = "space-MNI152NLin6Asym"
PREFERRED = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")


def find(folder, *, derivatives=None, **selection):
    datasets = find_datasets(folder, derivatives or {})
    return find_bold_runs(datasets, Selection(**selection), preferred_spaces=PREFERRED)


def labels(discovery):
    return [run.label.removesuffix(f"_{SPACE}_desc-preproc") for run in discovery.runs]


@pytest.fixture
def tree(fmriprep, add_run):
    """Three participants: two runs and a task, two sessions, one run in two spaces."""
    for stem in (
        f"sub-9_task-rest_run-2_{SPACE}_desc-preproc",
        f"sub-9_task-rest_run-10_{SPACE}_desc-preproc",
        f"sub-9_task-nback_{SPACE}_desc-preproc",
        f"sub-10_ses-A_task-rest_{SPACE}_desc-preproc",
        f"sub-10_ses-B_task-rest_{SPACE}_desc-preproc",
        f"sub-B_task-rest_{SPACE}_desc-preproc",
        "sub-B_task-rest_space-MNI152NLin2009cAsym_desc-preproc",
    ):
        add_run(fmriprep, stem)
    return fmriprep


def test_every_run_is_found_once_in_natural_order(tree):
    discovery = find(tree)
    assert labels(discovery) == [
        "sub-9_task-nback",
        "sub-9_task-rest_run-2",
        "sub-9_task-rest_run-10",
        "sub-10_ses-A_task-rest",
        "sub-10_ses-B_task-rest",
        "sub-B_task-rest",
    ]
    assert discovery.participants == ["9", "10", "B"]
    assert discovery.unusable == []
    ((path, reason),) = discovery.left_out
    assert path.name == "sub-B_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    assert reason == "space-MNI152NLin6Asym of the same series is taken"


@pytest.mark.parametrize(
    ("selection", "excluded"),
    [
        ({}, ()),
        ({"participant_labels": ("9",)}, ("10", "11", "B")),
        ({"exclude_participant_labels": ("10",)}, ("10",)),
        ({"task_ids": ("nback",)}, ("10", "B")),
        ({"participant_labels": ("9", "10"), "session_ids": ("A",)}, ("9", "11", "B")),
    ],
)
def test_whom_the_filters_leave_without_a_run_is_told(tree, selection, excluded):
    (tree / "sub-11").mkdir()  # has no run, whatever the filters
    assert find(tree, **selection).excluded == excluded


def test_a_run_carries_what_the_grid_needs(tree):
    run = find(tree, participant_labels=("10",), session_ids=("A",)).runs[0]
    func = tree / "sub-10" / "ses-A" / "func"
    stem = f"sub-10_ses-A_task-rest_{SPACE}"
    assert run.path == func / f"{stem}_desc-preproc_bold.nii.gz"
    assert run.entities == {
        "sub": "10",
        "ses": "A",
        "task": "rest",
        "space": "MNI152NLin6Asym",
        "desc": "preproc",
    }
    assert list(run.entities) == ["sub", "ses", "task", "space", "desc"]
    assert run.participant == "10"
    assert run.label == f"{stem}_desc-preproc"
    assert run.space == "MNI152NLin6Asym"
    assert run.repetition_time_s == 2.0
    assert run.brain_mask == func / f"{stem}_desc-brain_mask.nii.gz"
    assert run.confounds == func / "sub-10_ses-A_task-rest_desc-confounds_timeseries.tsv"
    assert run.dataset.name == "fmriprep"
    assert run.warnings == ()
    assert len({run, run}) == 1


def test_a_run_without_mask_and_confounds_has_none(fmriprep, add_run):
    add_run(fmriprep, f"sub-01_task-rest_{SPACE}_desc-preproc", mask=False, confounds=None)
    (run,) = find(fmriprep).runs
    assert (run.brain_mask, run.confounds) == (None, None)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"participant_labels": ("sub-B", "9"), "task_ids": ("task-rest",)}, [0, 1, 4]),
        ({"exclude_participant_labels": ("sub-9", "B")}, [2, 3]),
        ({"session_ids": ("ses-B",)}, [3]),
        ({"run_ids": ("02", "run-010")}, [0, 1]),
        ({"space": "space-MNI152NLin6Asym", "task_ids": ("rest",)}, [0, 1, 2, 3, 4]),
    ],
)
def test_filters_choose_runs_and_list_the_rest(selection, expected, tree):
    rest = [
        "sub-9_task-rest_run-2",
        "sub-9_task-rest_run-10",
        "sub-10_ses-A_task-rest",
        "sub-10_ses-B_task-rest",
        "sub-B_task-rest",
    ]
    discovery = find(tree, **selection)
    assert labels(discovery) == [rest[index] for index in expected]
    total = len(list(tree.glob("sub-*/**/*_bold.nii.gz")))
    untouched = {"9", "10", "B"} - set(discovery.participants)
    not_seen = sum(len(list(tree.glob(f"sub-{one}/**/*_bold.nii.gz"))) for one in untouched)
    assert len(discovery.runs) + len(discovery.left_out) == total - not_seen


def test_a_space_asked_for_wins_over_the_preferred(tree):
    (run,) = find(tree, space="MNI152NLin2009cAsym").runs
    assert (run.participant, run.space) == ("B", "MNI152NLin2009cAsym")


def test_a_filter_file_and_labels_both_have_to_agree(tree, tmp_path, write_json):
    path = write_json(tmp_path / "f.json", {"bold": {"session": None, "run": [None, "10"]}})
    discovery = find(tree, filter_file=path, task_ids=("rest",))
    assert labels(discovery) == ["sub-9_task-rest_run-10", "sub-B_task-rest"]
    reasons = {one.path.name.split("_space")[0]: one.reason for one in discovery.left_out}
    assert f"filters in {path}" in reasons["sub-9_task-rest_run-2"]
    assert "--task-id" in reasons["sub-9_task-nback"]


def test_filters_that_select_nothing_are_an_error_that_lists_the_labels(tree, tmp_path, write_json):
    with pytest.raises(SelectionError, match=r"none of 7 .*--task-id gambling.*task: nback, rest"):
        find(tree, task_ids=("gambling",))
    with pytest.raises(
        SelectionError, match=r"--space T1w.*space: MNI152NLin6Asym, MNI152NLin2009c"
    ):
        find(tree, space="T1w")
    with pytest.raises(SelectionError, match=r"ses: none; task: rest; run: none"):
        find(tree, participant_labels=("B",), run_ids=("1",))
    path = write_json(tmp_path / "f.json", {"bold": {"task": "gambling"}})
    with pytest.raises(SelectionError, match=r"--bids-filter-file .*f\.json"):
        find(tree, filter_file=path)


def test_a_filter_file_that_means_nothing_is_an_error(tree, tmp_path, write_json):
    with pytest.raises(UsageError, match="Unknown entity 'ses'"):
        find(tree, filter_file=write_json(tmp_path / "f.json", {"bold": {"ses": "A"}}))


def test_an_absent_participant_is_an_error(tree):
    with pytest.raises(SelectionError, match=r"No participant 01 .*There are: 9, 10, B"):
        find(tree, participant_labels=("01", "9"))


class PoisonedError(Exception):
    """A folder was touched that nobody chose."""


@pytest.fixture
def poison(monkeypatch):
    """Return a function after which anything inside a folder raises when touched."""

    def spread(folder):
        for name in ("listdir", "scandir", "stat", "lstat", "open"):
            original = getattr(os, name)

            def guarded(path=".", *args, original=original, name=name, **kwargs):
                text = path if isinstance(path, int) else os.fspath(path)
                below = isinstance(text, str) and text.startswith(f"{folder}{os.sep}")
                listed = name in {"listdir", "scandir"} and text == str(folder)
                if below or listed:
                    raise PoisonedError(text)
                return original(path, *args, **kwargs)

            monkeypatch.setattr(os, name, guarded)

    return spread


@pytest.mark.parametrize("filtered", [False, True])
def test_only_the_chosen_participants_are_touched(filtered, tree, poison, tmp_path, write_json):
    path = write_json(tmp_path / "f.json", {"bold": {"task": "rest"}}) if filtered else None
    poison(tree / "sub-10")
    discovery = find(tree, participant_labels=("9", "B"), filter_file=path, task_ids=("rest",))
    assert labels(discovery) == [
        "sub-9_task-rest_run-2",
        "sub-9_task-rest_run-10",
        "sub-B_task-rest",
    ]
    with pytest.raises(PoisonedError):
        find(tree, participant_labels=("10",))


@pytest.mark.parametrize("name", [".git", "sourcedata", ".datalad", "logs"])
def test_folders_that_hold_no_participants_are_not_touched(name, tree, poison):
    (tree / name).mkdir()
    poison(tree / name)
    assert len(find(tree).runs) == 6


def test_a_run_without_repetition_time_stops_none_of_the_others(tree, write_json):
    for bad, content in (("run-2", {}), ("run-10", {"RepetitionTime": 2000})):
        write_json(
            tree / "sub-9/func" / f"sub-9_task-rest_{bad}_{SPACE}_desc-preproc_bold.json", content
        )
    (tree / "sub-B/func" / f"sub-B_task-rest_{SPACE}_desc-preproc_bold.json").unlink()
    discovery = find(tree)
    assert len(discovery.runs) == 3
    assert [(one.participant, type(one.error)) for one in discovery.unusable] == [
        ("9", DataError),
        ("9", DataError),
        ("B", MissingFileError),
    ]
    assert "milliseconds" in str(discovery.unusable[1].error)


@pytest.mark.parametrize("what", ["desc-preproc_bold.nii.gz", "desc-brain_mask.nii.gz"])
def test_content_that_was_not_fetched_makes_a_run_unusable(what, tree):
    path = tree / "sub-B/func" / f"sub-B_task-rest_{SPACE}_{what}"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/aa/bb/x.nii.gz")
    discovery = find(tree)
    assert len(discovery.runs) == 5
    (unusable,) = discovery.unusable
    assert unusable.participant == "B"
    assert unusable.path.name.endswith("_bold.nii.gz")
    assert isinstance(unusable.error, MissingFileError)
    assert f"datalad get -d {tree} {path}" in str(unusable.error)


def test_confounds_that_were_not_fetched_are_a_warning(tree):
    path = tree / "sub-B/func/sub-B_task-rest_desc-confounds_timeseries.tsv"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/aa/bb/x.tsv")
    run = find(tree).runs[-1]
    assert run.confounds is None
    assert "datalad get" in run.warnings[0]


def test_a_fetched_link_is_a_file_like_any_other(tree, tmp_path):
    path = tree / "sub-B/func" / f"sub-B_task-rest_{SPACE}_desc-preproc_bold.nii.gz"
    path.rename(tmp_path / "content")
    path.symlink_to(tmp_path / "content")
    assert find(tree).runs[-1].path == path


def test_a_participant_that_cannot_be_listed_stops_none_of_the_others(tree, monkeypatch):
    original = os.listdir

    def refuse(path="."):
        if str(path) == str(tree / "sub-10"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(type(tree), "iterdir", lambda self: (self / name for name in refuse(self)))
    discovery = find(tree)
    assert len(discovery.runs) == 4
    (unusable,) = discovery.unusable
    assert (unusable.participant, type(unusable.error)) == ("10", ReadError)


def test_a_participant_without_mni_bold_is_chosen_and_warned_about(tree, caplog):
    (tree / "sub-empty").mkdir()
    with caplog.at_level(logging.WARNING):
        discovery = find(tree)
    assert discovery.participants == ["9", "10", "B", "empty"]
    assert "No preprocessed BOLD in an MNI space for empty" in caplog.text


def test_a_tree_without_mni_bold_is_an_error_with_the_command_that_makes_it(tmp_path, describe):
    folder = describe(tmp_path / "my prep")
    func = folder / "sub-01" / "func"
    func.mkdir(parents=True)
    (func / "sub-01_task-rest_desc-preproc_bold.nii.gz").touch()
    (func / "sub-01_task-rest_desc-coreg_boldref.nii.gz").touch()
    with pytest.raises(MissingFileError) as caught:
        find(folder)
    assert (
        "fmriprep-docker BIDS_DIR NEW_OUTPUT_DIR participant "
        f"--output-spaces MNI152NLin6Asym:res-2 --derivatives 'fmriprep={folder}'"
    ) in str(caught.value)


@pytest.mark.parametrize("version", ["25.1.0", "25.1.4"])
def test_runs_of_a_release_with_interpolation_artefacts_carry_a_warning(
    version, fmriprep, add_run, describe
):
    describe(fmriprep, GeneratedBy=[{"Name": "fMRIPrep", "Version": version}])
    add_run(fmriprep, f"sub-01_task-rest_{SPACE}_res-2_desc-preproc")
    (run,) = find(fmriprep).runs
    assert len(run.warnings) == 1
    assert version in run.warnings[0]
    assert "artefacts" in run.warnings[0]


@pytest.mark.parametrize(
    "generated_by",
    [
        [{"Name": "fMRIPrep", "Version": "25.2.0"}],
        [{"Name": "fMRIPrep", "Version": "25.0.0"}],
        [{"Name": "XCP-D", "Version": "25.1.0"}],
        [{"Name": "fMRIPrep"}],
        [{"Name": None, "Version": 25.1}],
        ["fMRIPrep 25.1.0"],
        "fMRIPrep",
    ],
)
def test_other_releases_carry_no_warning(generated_by, fmriprep, add_run, describe):
    describe(fmriprep, GeneratedBy=generated_by)
    add_run(fmriprep, f"sub-01_task-rest_{SPACE}_res-2_desc-preproc")
    (run,) = find(fmriprep).runs
    assert run.warnings == ()


def test_runs_of_an_unknown_program_carry_a_warning(fmriprep, add_run):
    (fmriprep / "dataset_description.json").unlink()
    add_run(fmriprep, f"sub-01_task-rest_{SPACE}_desc-preproc")
    (run,) = find(fmriprep).runs
    assert "no dataset_description.json" in run.warnings[0]


def test_two_datasets_give_each_series_once(tree, tmp_path, add_run, describe):
    other = describe(tmp_path / "other", GeneratedBy=[{"Name": "XCP-D", "Version": "1"}])
    add_run(other, f"sub-B_task-rest_{SPACE}_desc-preproc")
    add_run(other, f"sub-B_task-rest_{SPACE}_desc-denoised")
    add_run(other, f"sub-C_task-rest_{SPACE}_desc-preproc")
    discovery = find(tree, derivatives={"mine": other}, participant_labels=("B", "C"))
    assert [
        (run.participant, run.entities["desc"], run.dataset.name) for run in discovery.runs
    ] == [
        ("B", "denoised", "mine"),
        ("B", "preproc", "fmriprep"),
        ("C", "preproc", "mine"),
    ]


def test_a_dataset_without_participants_is_an_error(tmp_path):
    dataset = SourceDataset(name="x", path=tmp_path)
    with pytest.raises(DatasetError, match=r"No sub-\* folders"):
        find_bold_runs([dataset], Selection(), preferred_spaces=())


def test_the_inputs_are_left_as_they_were(tree, tmp_path, write_json):
    before = sorted((path, path.lstat().st_mtime_ns) for path in tree.rglob("*"))
    find(tree, filter_file=write_json(tmp_path / "f.json", {"bold": {"task": "rest"}}))
    assert sorted((path, path.lstat().st_mtime_ns) for path in tree.rglob("*")) == before


@pytest.mark.parametrize(
    ("layout", "participants", "n_runs"),
    [("fmriprep-21.0.1_ds000001", 2, 6), ("fmriprep-21.0.2_ds000228", 8, 8)],
)
def test_real_trees_give_exactly_their_mni_runs(layout, participants, n_runs, shared):
    discovery = find(shared / "realdata" / "layouts" / layout)
    assert len(discovery.participants) == participants
    assert len(discovery.runs) == n_runs
    assert (discovery.left_out, discovery.unusable) == ([], [])
    for run in discovery.runs:
        assert run.space == "MNI152NLin2009cAsym"
        assert run.entities["res"] == "2"
        assert run.repetition_time_s == 2.0
        assert run.brain_mask is not None
        assert run.confounds is not None


def test_a_real_tree_is_filtered_by_a_filter_file(shared, tmp_path, write_json):
    tree = shared / "realdata" / "layouts" / "fmriprep-21.0.1_ds000001"
    path = write_json(tmp_path / "f.json", {"bold": {"run": ["1", 3], "session": None}})
    discovery = find(tree, filter_file=path, participant_labels=("sub-02",))
    assert [run.entities["run"] for run in discovery.runs] == ["1", "3"]
    assert len(discovery.left_out) == 1


def test_a_real_minimal_tree_has_no_mni_bold(shared):
    tree = shared / "realdata" / "layouts" / "fmriprep-23.2.0_minimal_ds003752"
    with pytest.raises(MissingFileError, match=r"--level minimal.*--output-spaces"):
        find(tree)


def test_a_real_tree_with_links_instead_of_images_says_how_to_fetch_them(shared, tmp_path):
    tree = tmp_path / "ds000001-fmriprep"
    shutil.copytree(shared / "realdata" / "layouts" / "fmriprep-21.0.1_ds000001", tree)
    for path in tree.rglob("*.nii.gz"):
        path.unlink()
        path.symlink_to(f"../../.git/annex/objects/{path.name}")
    discovery = find(tree)
    assert discovery.runs == []
    assert len(discovery.unusable) == 6
    assert all("datalad get" in str(one.error) for one in discovery.unusable)


def test_the_real_series_are_found_one_without_confounds(shared):
    first, second = find(shared / "realdata" / "fmriprep-semireal").runs
    assert (first.repetition_time_s, second.repetition_time_s) == (2.0, 3.0)
    assert (first.confounds is None, second.confounds is None) == (False, True)
    assert second.entities["ses"] == "A"
    assert first.brain_mask is not None
    assert second.brain_mask is not None
