"""Filter files mean what they mean to fMRIPrep, and PyBIDS sees only the chosen participants."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neurostorm_bids.errors import DatasetError, MissingFileError, UsageError
from neurostorm_bids.inputs.queries import count_raw_bold, find_filtered, read_filter_file

SPACE = "space-MNI152NLin6Asym_desc-preproc"


@pytest.fixture
def tree(fmriprep, add_run):
    """Two participants: one with two runs and another task, one with two sessions."""
    for stem in (
        "sub-01_task-rest_run-01",
        "sub-01_task-rest_run-02",
        "sub-01_task-nback",
        "sub-02_ses-A_task-rest",
        "sub-02_ses-B_task-rest_acq-fast",
    ):
        add_run(fmriprep, f"{stem}_{SPACE}")
    return fmriprep


def ask(tree, filters, participants=("01", "02")):
    found = find_filtered(tree, participants, filters)
    return sorted(path.split("/")[-1].removesuffix(f"_{SPACE}_bold.nii.gz") for path in found)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"task": "nback"}, ["sub-01_task-nback"]),
        ({"run": "1"}, ["sub-01_task-rest_run-01"]),
        ({"run": 2}, ["sub-01_task-rest_run-02"]),
        ({"run": ["01", None], "subject": "01"}, ["sub-01_task-nback", "sub-01_task-rest_run-01"]),
        ({"run": "*"}, ["sub-01_task-rest_run-01", "sub-01_task-rest_run-02"]),
        ({"session": None, "run": None}, ["sub-01_task-nback"]),
        ({"session": "*", "acquisition": None}, ["sub-02_ses-A_task-rest"]),
        ({"session": ["A", "B"], "acquisition": "fast"}, ["sub-02_ses-B_task-rest_acq-fast"]),
        ({"task": ["*", None], "session": "B"}, ["sub-02_ses-B_task-rest_acq-fast"]),
        ({"desc": None}, []),
        ({"suffix": "T1w"}, []),
        ({"run": "first"}, []),
    ],
)
def test_null_means_absent_a_star_any_and_a_list_either(filters, expected, tree):
    assert ask(tree, filters) == expected


def test_only_the_participants_asked_for_are_indexed(tree):
    assert ask(tree, {"task": "*"}, participants=("02",)) == [
        "sub-02_ses-A_task-rest",
        "sub-02_ses-B_task-rest_acq-fast",
    ]


def test_nothing_is_written_beside_the_input(tree):
    before = sorted(tree.rglob("*"))
    ask(tree, {"task": "rest"})
    assert sorted(tree.rglob("*")) == before


def test_odd_names_and_links_in_a_circle_do_not_disturb(tree):
    func = tree / "sub-01" / "func"
    (func / "loop").symlink_to(func)
    for name in ("sub-01_task-ré_bold.nii.gz", "sub-01_\n_bold.nii.gz", "a b_bold.nii"):
        (func / name).touch()
    (func / "sub-01_task-x_bold.nii.gz").symlink_to("absent")
    assert ask(tree, {"task": "nback"}) == ["sub-01_task-nback"]


def test_a_name_that_is_not_utf_8_does_not_disturb(tree):
    (tree / "sub-01" / "func" / "sub-01_task-\udcff_bold.nii.gz").touch()
    assert ask(tree, {"task": "nback"}) == ["sub-01_task-nback"]


def test_a_participant_folder_that_is_a_link_is_indexed(tree, tmp_path):
    (tree / "sub-01").rename(tmp_path / "store")
    (tree / "sub-01").symlink_to(tmp_path / "store")
    assert ask(tree, {"task": "nback"}) == ["sub-01_task-nback"]


def test_a_tree_behind_a_link_is_indexed(tree, tmp_path):
    (tmp_path / "link to").symlink_to(tree)
    assert ask(tmp_path / "link to", {"task": "nback"}) == ["sub-01_task-nback"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_description_may_have_a_byte_order_mark(bom, tree):
    path = tree / "dataset_description.json"
    path.write_bytes(bom + path.read_bytes())
    assert ask(tree, {"task": "nback"}) == ["sub-01_task-nback"]


def test_what_pybids_cannot_index_is_an_error(tree, describe):
    describe(tree, GeneratedBy=[1])
    with pytest.raises(DatasetError, match="PyBIDS cannot index"):
        ask(tree, {"task": "nback"})


def test_filters_are_read_as_they_stand(tmp_path, write_json):
    bold = {"task": "rest", "session": None, "run": "*", "echo": ["1", None], "res": 2}
    path = write_json(tmp_path / "f.json", {"t1w": {"acquisition": None}, "bold": bold})
    assert read_filter_file(path) == bold


def test_a_filter_file_that_says_nothing_of_bold_is_warned_about(tmp_path, write_json, caplog):
    assert read_filter_file(write_json(tmp_path / "f.json", {"t1w": {"run": "1"}})) == {}
    assert "leaves out nothing" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"BOLD": {}}, r"Unknown keys \['BOLD'\].*Known are bold, fmap"),
        ({"bold": {"ses": "A"}}, r"Unknown entity 'ses'.*Known are acquisition, .*session.*task"),
        ({"bold": {"RepetitionTime": 2}}, "Unknown entity 'RepetitionTime'"),
        ({"bold": ["rest"]}, 'under "bold"'),
        ({"bold": None}, 'under "bold"'),
        ({"bold": {"task": True}}, "Expected text, null"),
        ({"bold": {"task": {"a": 1}}}, "Expected text, null"),
        ({"bold": {"task": ["a", ["b"]]}}, "Expected text, null"),
        ({"bold": {"run": 1.5}}, "Expected text, null"),
        ([], "found list"),
    ],
)
def test_a_filter_file_that_means_nothing_is_a_usage_error(content, message, tmp_path, write_json):
    with pytest.raises(UsageError, match=message):
        read_filter_file(write_json(tmp_path / "f.json", content))


def test_a_filter_file_that_is_not_json_is_a_usage_error(tmp_path):
    (tmp_path / "f.json").write_text("bold: rest")
    with pytest.raises(UsageError, match="Expected JSON"):
        read_filter_file(tmp_path / "f.json")
    with pytest.raises(MissingFileError, match="found nothing"):
        read_filter_file(tmp_path / "absent.json")


def test_raw_runs_are_counted_without_echoes_and_derivatives(tmp_path):
    for name in ("run-1_echo-1", "run-1_echo-2", "run-2"):
        path = tmp_path / "sub-01" / "func" / f"sub-01_task-rest_{name}_bold.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    inner = tmp_path / "derivatives" / "x" / "sub-01" / "func"
    inner.mkdir(parents=True)
    (inner / "sub-01_task-rest_bold.nii.gz").touch()
    assert count_raw_bold(tmp_path) == 2


def test_discovery_does_not_import_pybids_before_it_is_needed():
    code = "import sys, neurostorm_bids.inputs; sys.exit('bids' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("value", ["99999999999999999999999", '"\\ud800"', '"\\u0000"'])
def test_a_value_that_no_database_can_look_for_is_an_error(value, tmp_path):
    path = tmp_path / "filter.json"
    path.write_text(f'{{"bold": {{"run": {value}}}}}')
    with pytest.raises(UsageError, match="Expected text"):
        read_filter_file(path)
