from __future__ import annotations

import pytest

from neurostorm_bids.model.scratch import open_scratch


def test_what_killed_processes_left_goes_when_a_folder_is_whole(tmp_path):
    for name in (".model.01234567.tmp", ".model.01234567.old", ".other.01234567.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with open_scratch(tmp_path / "model") as scratch:
        (scratch.new / "file").touch()
        scratch.new.rename(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.01234567.tmp", "model"]


def test_what_a_living_process_fills_stays(tmp_path):
    with open_scratch(tmp_path / "model") as theirs:
        with open_scratch(tmp_path / "model") as ours:
            assert ours.new != theirs.new
        assert theirs.new.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path):
    def fail():
        with open_scratch(tmp_path / "model"):
            raise OSError("no room")

    (tmp_path / ".model.01234567.old").mkdir()
    with pytest.raises(OSError, match="no room"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == [".model.01234567.old"]
