"""The work folder is emptied of what the program made, and of nothing else."""

from __future__ import annotations

import pytest

from neurostorm_bids.derivatives import open_work_dir
from neurostorm_bids.errors import UsageError


def fill(folder):
    for name in ("store", "mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")


def test_only_what_the_program_made_is_removed(tmp_path):
    folder = open_work_dir(tmp_path / "work")
    fill(folder)
    open_work_dir(folder)
    assert (folder / "store" / "file").exists()
    open_work_dir(folder, clean=True)
    assert not (folder / "store").exists()
    assert (folder / "mine" / "file").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    fill(tmp_path)
    open_work_dir(tmp_path)
    with pytest.raises(UsageError, match="which neurostorm did not make"):
        open_work_dir(tmp_path, clean=True)
    assert (tmp_path / "store" / "file").exists()


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path):
    fill(tmp_path / "elsewhere")
    folder = open_work_dir(tmp_path / "work")
    (folder / "store").symlink_to(tmp_path / "elsewhere" / "store")
    open_work_dir(folder, clean=True)
    assert not (folder / "store").is_symlink()
    assert (tmp_path / "elsewhere" / "store" / "file").exists()


def test_several_processes_do_not_remove_under_one_another(tmp_path, monkeypatch):
    folder = open_work_dir(tmp_path)
    fill(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="several processes"):
        open_work_dir(folder, clean=True)
    assert (folder / "store" / "file").exists()


def test_nothing_to_remove_is_no_mistake(tmp_path):
    (tmp_path / "mine").mkdir()
    open_work_dir(tmp_path, clean=True)
    assert (tmp_path / "mine").exists()


def test_the_input_is_no_work_folder_but_its_derivatives_may_be(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    for name in (".", "work", "sub-01/x"):
        with pytest.raises(UsageError, match="lies in the input dataset"):
            open_work_dir(tmp_path / name, bids_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_description.json"]
    open_work_dir(tmp_path / "derivatives" / "out" / ".work", bids_dir=tmp_path)


def test_what_a_killed_call_left_half_written_goes(tmp_path):
    left = tmp_path / ".neurostorm-0.tmp"
    left.touch()
    open_work_dir(tmp_path)
    assert not left.exists()
