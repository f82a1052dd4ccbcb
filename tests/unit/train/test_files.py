from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neurostorm_bids.errors import DataError, MissingFileError, OutputError
from neurostorm_bids.train.files import Table, _save, read_table, read_weights, write_json


@pytest.fixture
def path(tmp_path):
    table = Table(tmp_path / "t.csv", last_step=0)
    for step in (1, 2, 3):
        table.append({"step": step, "loss": step / 3})
    return tmp_path / "t.csv"


def test_a_table_gives_back_what_was_added_to_the_last_digit(path):
    assert read_table(path) == [{"step": step, "loss": step / 3} for step in (1, 2, 3)]


def test_rows_of_a_lost_training_are_cut_off(path):
    table = Table(path, last_step=2)
    table.append({"step": 3, "loss": 9.0})
    assert [row["loss"] for row in read_table(path)] == [1 / 3, 2 / 3, 9.0]


def test_a_row_that_was_cut_short_is_no_row(path):
    path.write_text(path.read_text()[:-3])
    assert [row["step"] for row in read_table(path)] == [1, 2]


def test_a_table_that_is_not_there_is_empty(tmp_path):
    assert read_table(tmp_path / "none.csv") == []


def test_a_checkpoint_that_is_missing_or_damaged_says_what_to_do(tmp_path):
    with pytest.raises(MissingFileError, match="no checkpoint"):
        read_weights(tmp_path / "best.ckpt")
    (tmp_path / "best.ckpt").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="Delete it to begin anew"):
        read_weights(tmp_path / "best.ckpt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"model": Evil()}, tmp_path / "best.ckpt")
    with pytest.raises(DataError, match="not a checkpoint"):
        read_weights(tmp_path / "best.ckpt")
    assert not (tmp_path / "written").exists()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"a": 1})
    before = path.read_text()
    (tmp_path / ".facts.json.partial").mkdir()
    with pytest.raises(OutputError, match="Cannot write"):
        write_json(path, {"a": 2})
    assert path.read_text() == before


@pytest.mark.parametrize(
    "contents", [None, {}, [1], {"model": {"": None}, "average": {}, "progress": {}, "numbers": {}}]
)
def test_a_checkpoint_that_holds_something_else_is_told(contents, tmp_path):
    torch.save(contents, tmp_path / "best.ckpt")
    with pytest.raises(DataError, match="Delete it to begin anew"):
        read_weights(tmp_path / "best.ckpt")


@pytest.mark.parametrize("content", [b"step,loss\n \n", b"\n1,2\n", b"\xff\xfe\n", b"loss\n1\n"])
def test_a_damaged_table_of_losses_is_told(content, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match="begin anew"):
        read_table(tmp_path / "t.csv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_an_error_of_the_system_whatever_pytorch_says_then():
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed below
    with full, pytest.raises(OSError, match="No space left"):
        _save({"a": torch.zeros(100_000)}, full)
