"""A call that is told to end, ends: with the right status, without leftovers or orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.robustness.driver import (
    check_whole,
    command,
    environment,
    is_stopped,
    list_leftovers,
    read_results,
    wait_for,
)

POOL = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from neurostorm_bids.ending import end_when_told, end_with_parent

if __name__ == "__main__":
    with end_when_told(), ProcessPoolExecutor(
        2, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        pool.map(time.sleep, [600, 600])
        print("begun", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
@pytest.mark.parametrize(
    ("n_cpus", "during"), [("1", "sub-02"), ("2", "sub-01")], ids=["last run", "reading ahead"]
)
def test_a_call_that_is_told_to_end_says_so_and_cleans_up(
    ground, nursery, tmp_path, number, status, n_cpus, during
):
    output, log = tmp_path / "out", tmp_path / "log"
    halfway = {"kill_at": 0, "below": output / during, "number": signal.SIGSTOP}
    words = ground.words("participant", output, "--nprocs", n_cpus)
    pid = nursery.start(words, log=log, **halfway)
    wait_for(lambda: is_stopped(pid))
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    assert nursery.wait(pid) == status
    assert "Interrupted. What was finished is kept" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert list_leftovers(output) == []
    assert check_whole(output) > 0


def test_a_call_that_reads_ahead_writes_what_it_would_have_written(
    ground, nursery, undisturbed, tmp_path
):
    output, log = tmp_path / "out", tmp_path / "log"
    words = ground.words("participant", output, "--nprocs", "2")
    assert nursery.run(words, log=log) == 0, log.read_text()
    assert read_results(output) == undisturbed("participant").results


@pytest.mark.skipif("NEUROSTORM_KILLS" not in os.environ, reason="long: make robustness")
def test_a_training_that_is_told_to_end_saves_and_asks_to_be_called_again(
    ground, nursery, tmp_path
):
    output, log = tmp_path / "out", tmp_path / "log"
    words = ground.words("pretrain", output, "--max-steps", "1000", "--evaluate-every", "1000")
    pid = nursery.start(words, log=log)
    wait_for(lambda: any(output.rglob("last.ckpt")) or not psutil.pid_exists(pid))
    os.kill(pid, signal.SIGTERM)
    assert nursery.wait(pid) == 75
    assert check_whole(output) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_helpers_end_with_the_process_that_began_them(tmp_path, number):
    (tmp_path / "pool.py").write_text(POOL)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "pool.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    with parent:
        assert parent.stdout.readline() == b"begun\n"
        helpers = psutil.Process(parent.pid).children(recursive=True)
        assert len(helpers) >= 2
        parent.send_signal(number)
        parent.wait()
    _, alive = psutil.wait_procs(helpers, timeout=60)
    assert not alive


@pytest.mark.skipif("NEUROSTORM_KILLS" not in os.environ, reason="long: make robustness")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_call_with_several_processes_leaves_no_orphans(ground, tmp_path, number):
    words = ground.words("participant", tmp_path / "out", "--nprocs", "2", "--omp-nthreads", "1")
    with subprocess.Popen(command(words), env=environment(), stderr=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        wait_for(lambda: len(parent.children(recursive=True)) >= 3)
        helpers = parent.children(recursive=True)
        process.send_signal(number)
        assert process.wait() == (143 if number == signal.SIGTERM else -number)
    _, alive = psutil.wait_procs(helpers, timeout=60)
    assert not alive
