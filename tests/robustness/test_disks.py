"""Disks that are full, read-only, gone or broken: a sentence, the right status, and no loss."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.robustness.driver import (
    check_whole,
    is_stopped,
    list_leftovers,
    read_results,
    wait_for,
)

IS_LONG = "NEUROSTORM_KILLS" in os.environ
SIZES_KB = {
    "participant": (24, 200, 600) if IS_LONG else (200,),
    "group": (8, 40) if IS_LONG else (),
    "pretrain": (24, 400, 3000) if IS_LONG else (),
    "finetune": (24, 400, 1200) if IS_LONG else (),
}


@contextmanager
def mounted(*words, on):
    """Mount something for a test, or skip it where that is not allowed."""
    on.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, on], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    try:
        yield on
    finally:
        subprocess.run(["umount", "--lazy", on], check=True)


def told(log: Path) -> str:
    """Return what a call printed, which is sentences."""
    text = log.read_text()
    assert "Traceback" not in text
    assert "defect of neurostorm" not in text
    return text


@pytest.mark.parametrize(
    ("level", "size_kb"), [(level, size) for level, sizes in SIZES_KB.items() for size in sizes]
)
def test_a_full_disk_is_told_and_the_next_call_finishes(
    ground, nursery, undisturbed, tmp_path, level, size_kb
):
    whole = undisturbed(level)
    with mounted("-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", on=tmp_path / "out") as disk:
        words, log = ground.words(level, disk), tmp_path / "log"
        if level == "group":
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
            shutil.copytree(undisturbed("participant").output, disk, dirs_exist_ok=True)
            used_kb = shutil.disk_usage(disk).used // 1024
            subprocess.run(["mount", "-o", f"remount,size={used_kb + size_kb}k", disk], check=True)
        status = nursery.run(words, log=log, TMPDIR=str(tmp_path))
        # Where all results found room and only figures did not, that is a warning.
        assert status in {0, 1, 73}, log.read_text()
        assert "No space left" in told(log)
        check_whole(disk)
        assert list_leftovers(disk) == []
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert nursery.run(words, log=log) == 0, log.read_text()
        # The report goes on to tell what earlier calls warned of: that the disk was full.
        found = read_results(disk)
        assert found.keys() == whole.results.keys()
        differing = {name for name in found if found[name] != whole.results[name]}
        assert differing <= {"sub-01.html", "sub-02.html"}


def test_an_output_that_is_read_only_is_told_before_the_work(ground, nursery, tmp_path):
    (tmp_path / "there").mkdir()
    with mounted("-o", "ro,bind", tmp_path / "there", on=tmp_path / "ro") as folder:
        log = tmp_path / "log"
        for level in ("participant", "pretrain", "finetune") if IS_LONG else ("participant",):
            assert nursery.run(ground.words(level, folder / "out"), log=log) == 73, log.read_text()
            assert "cannot be written" in told(log)


def test_an_input_that_vanishes_half_way_costs_only_what_was_not_read(
    ground, nursery, undisturbed, tmp_path
):
    bids, output, log = tmp_path / "bids", tmp_path / "out", tmp_path / "log"
    shutil.copytree(ground.bids, bids)
    words = ground._replace(bids=bids).words("participant", output, "03", "04", "05")
    steps = undisturbed("participant").steps
    step = next(i for i, line in enumerate(steps) if "_relmat.json" in line)
    pid = nursery.start(words, log=log, kill_at=step, below=output, number=signal.SIGSTOP)
    wait_for(lambda: is_stopped(pid))
    bids.rename(tmp_path / "away")
    os.kill(pid, signal.SIGCONT)
    assert nursery.wait(pid) == 1, log.read_text()
    assert "Failed: sub-05" in told(log)
    assert "Failed: sub-01" not in told(log)
    assert check_whole(output) > 0
    assert nursery.run(words, log=log) in {2, 16, 66}
    assert str(bids) in told(log)
    (tmp_path / "away").rename(bids)
    assert nursery.run(words, log=log) == 0
    expected = results_of(undisturbed("participant").output)
    assert results_of(output).items() >= expected.items()


def results_of(output):
    return {name: text for name, text in read_results(output).items() if "/func/" in name}


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
@pytest.mark.parametrize(
    ("suffix", "status"),
    [
        ("_desc-preproc_bold.nii.gz", 74),
        *([("_desc-brain_mask.nii.gz", 74), ("_desc-preproc_bold.json", 74)] if IS_LONG else ()),
    ],
)
def test_a_read_that_fails_is_told(ground, nursery, tmp_path, suffix, status):
    bids, log = tmp_path / "bids", tmp_path / "log"
    shutil.copytree(ground.bids, bids)
    (path,) = bids.glob(f"sub-01/func/*{suffix}")
    path.unlink()
    path.symlink_to("/proc/self/mem")  # opens, and gives EIO when it is read
    words = ground._replace(bids=bids).words("participant", tmp_path / "out")
    assert words.pop() == "02"
    assert nursery.run(words, log=log) == status, log.read_text()
    assert path.name in told(log)
