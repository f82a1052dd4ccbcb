"""What goes in is not touched, nothing is written elsewhere, nobody is called, nothing is told.

All levels run once, watched from within the process. NEUROSTORM_KILLS adds the same from outside:
traced by strace, without a network, with the input mounted read-only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.robustness.driver import command, environment
from tests.robustness.test_disks import mounted

LEVELS = ("participant", "group", "pretrain", "finetune")
HOST, USER = "ward-seven-console", "drjanefoundling"
IS_LONG = "NEUROSTORM_KILLS" in os.environ
CALLS = (
    "openat,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat"
)
CALLS += ",symlink,symlinkat,chmod,fchmodat,utimensat,truncate,connect,sendto,sendmsg"
HARMLESS = re.compile(r"/dev/(null|tty|shm/.*|nvidia.*)|/proc/(self|\d+)/.*|pipe:.*")


class Watched(NamedTuple):
    """What became of a call of every level."""

    output: Path
    scratch: Path
    steps: list[str]
    before: dict
    after: dict


def look(folder: Path) -> dict:
    """Return names, times, rights and bytes of everything in a folder."""
    seen = {}
    for path in sorted([folder, *folder.rglob("*")]):
        found = path.stat()
        content = path.read_bytes() if path.is_file() else None
        seen[str(path)] = (found.st_mtime_ns, found.st_mode, content)
    return seen


def extras(ground, level):
    """Return options with which a level reads and writes most."""
    if level != "participant":
        return []
    atlas = str(ground.atlas)
    some = ["--connectivity", atlas, "--write-resampled"]
    return [*some, "--resource-monitor"] if IS_LONG else some


@pytest.fixture(scope="module")
def watched(ground, nursery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    before, steps = look(ground.bids), []
    env = dict.fromkeys(("USER", "LOGNAME", "USERNAME"), USER)
    env |= {"HOME": str(folder / "home" / USER), "TMPDIR": str(folder / "tmp")}
    for name in ("HOME", "TMPDIR"):
        Path(env[name]).mkdir(parents=True)
    for level in LEVELS:
        log = folder / f"{level}.log"
        status = nursery.run(
            ground.words(level, folder / "out", *extras(ground, level)),
            log=log,
            steps=folder / "steps",
            below=Path("/"),
            host=HOST,
            **env,
        )
        assert status == 0, log.read_text()
        steps += (folder / "steps").read_text().splitlines()
    return Watched(folder / "out", folder / "tmp", steps, before, look(ground.bids))


def test_the_input_has_the_same_names_times_and_bytes_after_every_level(watched):
    assert watched.after == watched.before


def test_nothing_is_written_outside_the_output_and_the_temporary_folder(watched):
    paths = {line.split("\t")[1] for line in watched.steps if not line.startswith("socket.")}
    assert len(paths) > 100
    assert find_outside(paths, watched.output, watched.scratch) == []


def test_the_temporary_folder_is_empty_afterwards(watched):
    assert list(watched.scratch.iterdir()) == []


def test_the_network_is_not_even_tried(watched):
    assert [line for line in watched.steps if line.startswith("socket.")] == []


def test_no_result_log_or_report_tells_of_user_machine_or_folders(watched, ground):
    told = find_told(watched.output, [HOST, USER, str(ground.bids.parent), str(watched.output)])
    assert told == []


def find_outside(paths, *allowed):
    roots = tuple(f"{root}{end}" for root in allowed for end in ("", "/"))
    return sorted(
        path
        for path in paths
        if not HARMLESS.fullmatch(path)
        and path not in roots
        and not path.startswith(tuple(root for root in roots if root.endswith("/")))
    )


def find_told(output: Path, secrets: list[str]) -> list[tuple[str, str]]:
    """Return the files that hold one of some words, in name or content, but for TensorBoard's."""
    told = []
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if "/tensorboard/" in name:
            continue
        content = path.read_bytes() if path.is_file() else b""
        told += [(name, one) for one in secrets if one in name or one.encode() in content]
    return told


@pytest.mark.skipif(not IS_LONG, reason="long: make robustness")
@pytest.mark.parametrize("level", LEVELS)
def test_the_same_is_seen_from_outside(ground, undisturbed, tmp_path, level):
    for program in ("strace", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    alone = ["unshare", "--net", "--uts"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces")
    output, scratch = undisturbed.prepare(level, tmp_path / "out"), tmp_path / "tmp"
    scratch.mkdir()
    with mounted("-o", "ro,bind", ground.bids.parent, on=tmp_path / "ro") as folder:
        moved = [
            folder / path.relative_to(ground.bids.parent)
            for path in (ground.bids, ground.atlas, ground.encoder)
        ]
        here = type(ground)(*moved)
        words = command(here.words(level, output, *extras(here, level)))
        trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o"]
        shell = ["sh", "-c", f'hostname {HOST} && exec "$@"', "sh"]
        done = subprocess.run(
            [*alone, *shell, *trace, tmp_path / "trace", *words],
            env=environment(
                USER=USER,
                HOME=str(tmp_path / "home" / USER),
                TMPDIR=str(scratch),
                PYTHONDONTWRITEBYTECODE="1",
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / "trace").read_text(errors="replace").splitlines()
        assert find_connections(lines) == []
        assert find_outside(find_written(lines), output, scratch) == []
        assert list(scratch.iterdir()) == []
        assert find_told(output, [HOST, USER, str(folder), str(output)]) == []


def find_connections(lines):
    """Return the lines of a trace in which somebody was called who is not on this machine."""
    pattern = re.compile(r"\b(connect|sendto|sendmsg)\(.*AF_INET")
    return [line for line in lines if pattern.search(line)]


def find_written(lines):
    """Return the paths that a trace shows to be made, changed or removed."""
    written = set()
    for line in lines:
        if " = -1 " in line:
            continue
        is_read = re.search(r"\b(openat|open)\(", line) and not re.search(
            r"O_(WRONLY|RDWR|CREAT|TRUNC)", line
        )
        if not is_read:
            written |= {path for path in re.findall(r'"([^"]*)"', line) if path.startswith("/")}
    return written
