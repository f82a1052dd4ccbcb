"""The output folder: whose it is, and its own files when many write them."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys

import pytest

from neurostorm_bids.derivatives import check_output_dir, dataset, write_dataset_files
from neurostorm_bids.derivatives.dataset import read_dataset_description
from neurostorm_bids.errors import OutputError, TemporaryError, UsageError

FILES = {
    ".bidsignore",
    "CHANGES",
    "README.md",
    "dataset_description.json",
    "participants.json",
    "participants.tsv",
}
HOLD_LOCK = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def visible(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != dataset.LOCK}


def write(output, source_dataset, participants=("01",), models=()):
    write_dataset_files(output, datasets=[source_dataset], participants=participants, models=models)


def add_many(output, source_dataset, worker):
    for number in range(5):
        write(output, source_dataset, participants=[f"{worker}x{number}"])


def test_the_files_of_a_dataset_are_written_and_nothing_else(output, source, make_dataset):
    write(output, make_dataset(source))
    assert visible(output) == FILES
    assert (output / "participants.tsv").read_bytes() == b"participant_id\nsub-01\n"


def test_writing_again_touches_no_file(output, source, make_dataset):
    write(output, make_dataset(source))
    before = {path.name: path.stat().st_ino for path in output.iterdir() if path.name in FILES}
    write(output, make_dataset(source))
    after = {path.name: path.stat().st_ino for path in output.iterdir() if path.name in FILES}
    assert after == before


def test_processes_that_write_at_once_lose_no_participant(output, source, make_dataset):
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=add_many, args=(output, make_dataset(source), worker))
        for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    rows = (output / "participants.tsv").read_text().splitlines()
    assert sorted(rows[1:]) == sorted(f"sub-{w}x{n}" for w in range(4) for n in range(5))


def test_a_lock_that_is_never_released_ends_in_advice(output, source, make_dataset, monkeypatch):
    output.mkdir()
    monkeypatch.setattr(dataset, "LOCK_TIMEOUT_S", 0.05)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, output / dataset.LOCK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TemporaryError, match="Run again when it has ended"):
            write(output, make_dataset(source))
        holder.communicate("\n")
    write(output, make_dataset(source))
    assert visible(output) == FILES


@pytest.mark.parametrize("name", ["README", "README.rst", "README.txt"])
def test_a_readme_of_another_kind_stays_alone(output, source, make_dataset, name):
    output.mkdir()
    (output / name).write_text("mine")
    write(output, make_dataset(source))
    assert visible(output) == FILES - {"README.md"} | {name}


def test_a_folder_with_other_files_is_accepted(output, source, make_dataset):
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    check_output_dir(output, bids_dir=source)
    write(output, make_dataset(source))
    assert (output / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "names fMRIPrep"),
        ('{"Name": "raw"}', "names no program"),
        ("[]", "names no program"),
        ("{", "is not JSON"),
    ],
)
def test_a_dataset_of_others_is_not_written_to(output, source, make_dataset, text, found):
    output.mkdir()
    (output / "dataset_description.json").write_text(text)
    with pytest.raises(OutputError, match=found):
        check_output_dir(output, bids_dir=source)
    with pytest.raises(OutputError, match=found):
        write(output, make_dataset(source))
    assert visible(output) == {"dataset_description.json"}


def test_our_own_dataset_is_written_to_again(output, source, make_dataset):
    write(output, make_dataset(source))
    check_output_dir(output, bids_dir=source, datasets=[make_dataset(source)])


def test_checking_writes_nothing(tmp_path, output, source, make_dataset):
    before = sorted(tmp_path.rglob("*"))
    check_output_dir(output / "deep" / "er", bids_dir=source, datasets=[make_dataset(source)])
    assert sorted(tmp_path.rglob("*")) == before


def test_the_input_folder_is_no_output_folder(source):
    with pytest.raises(UsageError, match="is the input folder"):
        check_output_dir(source / "." / "x" / "..", bids_dir=source)


@pytest.mark.parametrize("below", ["sub-01", "neurostorm", "sub-01/derivatives"])
def test_an_input_dataset_is_never_written_to(source, make_dataset, below):
    for bids_dir, datasets in ((source, []), (source.parent, [make_dataset(source)])):
        with pytest.raises(UsageError, match="never written to"):
            check_output_dir(source / below, bids_dir=bids_dir, datasets=datasets)


def test_a_link_into_an_input_dataset_is_seen_through(tmp_path, source):
    (tmp_path / "link").symlink_to(source / "sub-01")
    with pytest.raises(UsageError, match="never written to"):
        check_output_dir(tmp_path / "link", bids_dir=source)


def test_the_folder_for_derivatives_and_neighbours_may_be_written_to(source, make_dataset):
    check_output_dir(source / "derivatives" / "neurostorm", bids_dir=source)
    # BIDS_DIR is here only a folder of datasets, one of which is ours.
    check_output_dir(
        source.parent / "neurostorm", bids_dir=source.parent, datasets=[make_dataset(source)]
    )


def test_a_file_is_no_output_folder(tmp_path, source, make_dataset):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_output_dir(tmp_path / "file" / "below", bids_dir=source)
    with pytest.raises(OutputError, match="is a file"):
        write(tmp_path / "file" / "below", make_dataset(source))


def test_a_folder_without_permission_is_an_output_error(output, source, monkeypatch):
    # The test may run as root, who may write everywhere.
    monkeypatch.setattr(dataset.os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission"):
        check_output_dir(output, bids_dir=source)


def test_the_lock_and_leftovers_are_hidden(output, source, make_dataset):
    write(output, make_dataset(source))
    assert dataset.LOCK.startswith(".")


def test_a_file_that_is_not_utf8_is_not_overwritten(output, source, make_dataset):
    output.mkdir()
    (output / "participants.tsv").write_bytes(b"participant_id\nsub-\xff\n")
    with pytest.raises(OutputError, match=r"Cannot add to .*participants\.tsv"):
        write(output, make_dataset(source))
    assert (output / "participants.tsv").read_bytes() == b"participant_id\nsub-\xff\n"


@pytest.mark.parametrize("step", range(15))
def test_killed_at_any_step_the_dataset_can_be_written_again(
    output, source, make_dataset, killed_at, step
):
    with killed_at(step):
        write(output, make_dataset(source))
    for path in output.glob("*.json"):
        json.loads(path.read_text())
    write(output, make_dataset(source))
    assert visible(output) == FILES


@pytest.mark.parametrize("text", ["[" * 100_000, '{"GeneratedBy": 1}'])
def test_a_damaged_description_in_the_output_folder_is_an_error(text, tmp_path):
    (tmp_path / "dataset_description.json").write_text(text)
    with pytest.raises(OutputError, match="dataset_description"):
        read_dataset_description(tmp_path)
