"""Trainings that are killed, and trainings of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from neurostorm_bids.train.files import read_table

TIMEOUT_S = 120
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def run(tiny_script):
    """Return a function that runs the tiny training as a process of its own."""

    def run_script(folder, *, launcher=(), **changes):
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *launcher, str(tiny_script), str(folder), json.dumps(changes)],
            env=environment,
            timeout=TIMEOUT_S,
            capture_output=True,
            text=True,
            check=False,
        )

    return run_script


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """Return the folder and model of a training of one process that was never interrupted."""
    folder = tmp_path_factory.mktemp("alone")
    _, model = tiny.train(folder)
    return folder, model


def read_weights_of(folder, rank=0):
    return torch.load(folder / f"final{rank}.pt", weights_only=True)


def read_losses(folder):
    tables = [read_table(folder / name) for name in ("training.csv", "validation.csv")]
    return [row["loss"] for table in tables for row in table]


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_killed_training_goes_on_to_the_same_weights(run, alone, tmp_path):
    folder, model = alone
    killed = run(tmp_path, end=["SIGKILL", 12, 0])
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "final0.pt").exists()
    (tmp_path / ".last.ckpt.partial").write_bytes(b"what was being written")
    resumed = run(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on after" not in killed.stderr
    assert_same(read_weights_of(tmp_path), model.state_dict())
    for name in ("training.csv", "validation.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_two_processes_learn_as_one_with_the_whole_batch(run, alone, tmp_path):
    done = run(tmp_path, devices=2)
    assert done.returncode == 0, done.stderr
    assert read_losses(tmp_path) == pytest.approx(read_losses(alone[0]), rel=1e-5)
    assert_same(read_weights_of(tmp_path, 0), read_weights_of(tmp_path, 1))


def test_when_one_process_runs_out_of_memory_both_take_smaller_micro_batches(run, alone, tmp_path):
    done = run(tmp_path, devices=2, crowded=1)
    assert done.returncode == 0, done.stderr
    sizes = [(tmp_path / f"micro_batch_size{rank}").read_text() for rank in (0, 1)]
    assert sizes == ["1", "1"]
    assert read_losses(tmp_path) == pytest.approx(read_losses(alone[0]), rel=1e-5)


def test_when_one_process_is_asked_to_end_both_do_and_torchrun_goes_on(run, alone, tmp_path):
    ended = run(tmp_path, devices=2, end=["SIGUSR1", 5, 1])
    assert ended.returncode == 75, ended.stderr
    assert len(read_table(tmp_path / "training.csv")) < 12
    resumed = run(tmp_path, launcher=TORCHRUN, devices=None)
    assert resumed.returncode == 0, resumed.stderr
    assert read_losses(tmp_path) == pytest.approx(read_losses(alone[0]), rel=1e-5)
    assert_same(read_weights_of(tmp_path, 0), read_weights_of(tmp_path, 1))


def test_two_processes_lose_patience_together(tiny, run, tmp_path):
    impatient = {"max_steps": 40, "evaluate_every": 2, "patience": 2, "learning_rate": 1.0}
    alone, _ = tiny.train(tmp_path / "alone", **impatient)
    assert alone.n_steps < 40
    done = run(tmp_path / "two", devices=2, **impatient)
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "two" / "training.csv")[-1]["step"] == alone.n_steps
    assert_same(read_weights_of(tmp_path / "two", 0), read_weights_of(tmp_path / "two", 1))


def test_two_processes_contrast_the_clips_of_both(tiny, run, tmp_path):
    alone, _ = tiny.train_jointly(tmp_path / "alone", max_steps=6)
    done = run(tmp_path / "two", joint=True, devices=2, max_steps=6)
    assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "two" / "training.csv")
    assert rows[-1].keys() >= {"mae", "contrastive", "contrastive_instance", "contrastive_local"}
    for one, both in zip(alone.training, rows, strict=True):
        assert both == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert read_losses(tmp_path / "two") == pytest.approx(read_losses(tmp_path / "alone"), rel=1e-4)
