"""What goes in is not touched, nothing is written elsewhere, nobody is called, nothing is told.

All levels run once, watched from within the process. NEUROSTORM_KILLS adds the same from outside:
traced by strace, without a network, with the input mounted read-only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.robustness.driver import HOST, USER, command, environment
from tests.robustness.test_disks import mounted

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = ("participant", "group", "pretrain", "finetune")
IS_LONG = "NEUROSTORM_KILLS" in os.environ
CALLS = (
    "openat,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat"
)
CALLS += ",symlink,symlinkat,chmod,fchmodat,utimensat,truncate,connect,sendto,sendmsg"
HARMLESS = re.compile(
    r"/dev/(null|tty|shm/.*|nvidia.*)|/proc/(self|\d+)/.*|pipe:.*"
    # Matplotlib's list of fonts; told of in docs/privacy.md.
    rf"|.*/{USER}/\.(cache|config)(/matplotlib(/.*)?)?"
)


def look(folder: Path) -> dict:
    """Return names, times, rights and bytes of everything in a folder."""
    seen = {}
    for path in sorted([folder, *folder.rglob("*")]):
        found = path.stat()
        content = path.read_bytes() if path.is_file() else None
        seen[str(path)] = (found.st_mtime_ns, found.st_mode, content)
    return seen


@pytest.fixture(scope="module")
def before(ground):
    return look(ground.bids)


@pytest.fixture(params=LEVELS)
def watched(request, before, undisturbed):
    """What became of a call of a level; `before` asks that the input was looked at."""
    assert before
    return undisturbed(request.param)


def test_a_level_writes_only_into_its_folders_and_tells_nobody(watched, ground):
    paths = {line.split("\t")[1] for line in watched.elsewhere if not line.startswith("socket.")}
    assert len(watched.steps) > 10
    assert find_outside(paths, watched.output, watched.scratch) == []
    assert list(watched.scratch.iterdir()) == [], "temporary files"
    assert [line for line in watched.elsewhere if line.startswith("socket.")] == []
    told = find_told(watched.output, [HOST, USER, str(ground.bids.parent), str(watched.output)])
    assert told == []


def test_the_input_has_the_same_names_times_and_bytes_after_every_level(
    ground, before, undisturbed
):
    for level in LEVELS:
        undisturbed(level)
    assert look(ground.bids) == before


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
    (tmp_path / "home" / USER).mkdir(parents=True)
    with mounted("-o", "ro,bind", ground.bids.parent, on=tmp_path / "ro") as folder:
        moved = [
            folder / path.relative_to(ground.bids.parent)
            for path in (ground.bids, ground.atlas, ground.encoder)
        ]
        here = type(ground)(*moved)
        words = command(
            here.words(level, output, *(["--resource-monitor"] if level == "participant" else []))
        )
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
        # PyTorch makes an empty folder for what it would compile.
        assert [path.name for path in scratch.rglob("*")] in ([], [f"torchinductor_{USER}"])
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
