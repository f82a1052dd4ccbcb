"""Files appear whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from neurostorm_bids.derivatives.atomic import (
    explain_write_errors,
    remove_leftovers,
    remove_leftovers_below,
    write_files,
    write_text,
)
from neurostorm_bids.errors import OutputError

# Write a file, and die by SIGKILL at the moment when it would get its name.
KILLED = """
import os, signal, sys
from pathlib import Path
from neurostorm_bids.derivatives.atomic import write_text
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
write_text(Path(sys.argv[1]), "new")
"""
# Write a file, and wait at that moment until told to go on.
SLOW = """
import sys
from pathlib import Path
from neurostorm_bids.derivatives.atomic import write_text
replace = Path.replace
def wait(self, target):
    print("staged", flush=True)
    sys.stdin.readline()
    return replace(self, target)
Path.replace = wait
write_text(Path(sys.argv[1]), "new")
"""


def read_all(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def test_what_is_written_is_read_back_as_utf8_with_plain_line_ends(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    write_text(path, "Größe\nµ\n")
    assert path.read_bytes() == "Größe\nµ\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_file_has_the_rights_that_the_umask_leaves(tmp_path):
    old = os.umask(0o002)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o664


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "annexed").write_text("old")
    (tmp_path / "file").symlink_to(tmp_path / "annexed")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "annexed").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_name_that_is_not_utf8_does_not_stop_the_writing(tmp_path):
    write_text(tmp_path / "file", "sub-\udcff")
    assert (tmp_path / "file").read_text() == "sub-?"


@pytest.mark.parametrize("step", range(11))
def test_killed_at_any_step_the_files_are_old_or_unsealed_or_new(tmp_path, killed_at, step):
    names = ("a.tsv", "a.json", "b.tsv", "b.json")
    old, new = ({name: f"{age} {name}" for name in names} for age in ("old", "new"))
    seals = [tmp_path / "a.json", tmp_path / "b.json"]
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    with killed_at(step) as kill:
        write_files({tmp_path / name: text for name, text in new.items()}, seals=seals)
    assert kill.happened == (step < 10)
    found = read_all(tmp_path)
    assert found in (old, new) or not {"a.json", "b.json"} <= set(found)


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="disk is full"):
        write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_what_a_killed_process_left_is_hidden_and_is_cleaned_up(tmp_path):
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_file_that_a_living_process_writes_is_not_cleaned_up(tmp_path):
    path = tmp_path / "file"
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "staged\n"
        remove_leftovers(tmp_path)
        writer.communicate("go on\n")
    assert writer.returncode == 0
    assert path.read_text() == "new"


def test_files_of_others_are_not_leftovers(tmp_path):
    (tmp_path / ".hidden.tmp").write_text("")
    (tmp_path / "note.tmp").write_text("")
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "Check the output folder"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(code, advice):
    with (
        pytest.raises(OutputError, match=rf"Cannot write out/file: .*{advice}") as raised,
        explain_write_errors(Path("out/file")),
    ):
        raise OSError(code, os.strerror(code))
    assert raised.value.exit_status == 73


def test_a_file_in_the_place_of_a_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_text(tmp_path / "file" / "below", "")


def test_leftovers_are_found_in_a_whole_tree(tmp_path):
    folder = tmp_path / "sub-01" / "figures"
    folder.mkdir(parents=True)
    for name in (".neurostorm-0123456789abcdef.tmp", "kept.svg"):
        (folder / name).touch()
    remove_leftovers_below(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["kept.svg"]


def test_temporary_files_lie_in_the_folder_that_was_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", lambda *_, **__: None)
        patch.setattr(type(tmp_path), "replace", refuse)
        with pytest.raises(OutputError):
            write_text(tmp_path / "logs" / "call" / "a.txt", "a", scratch=tmp_path / "logs")
    assert list((tmp_path / "logs" / "call").iterdir()) == []
    assert len(list((tmp_path / "logs").glob(".neurostorm-*.tmp"))) == 1


def test_a_file_that_another_took_for_a_leftover_is_written_again(tmp_path):
    (tmp_path / "a").mkdir()

    def take_away():
        for path in (tmp_path / "a").iterdir():
            path.unlink()
        yield b"second"

    write_files({tmp_path / "a" / "first": "first", tmp_path / "b" / "second": take_away()})
    assert (tmp_path / "a" / "first").read_text() == "first"
    assert (tmp_path / "b" / "second").read_text() == "second"
    assert len(list(tmp_path.rglob("*"))) == 4
