"""Samples of CPU and memory, few however long a call runs, as a table and a plot."""

from __future__ import annotations

import json
import mmap

import pandas as pd
import pytest

from neurostorm_bids import resources
from neurostorm_bids.resources import Sample, monitor_resources, thin_out, write_resources


def sample(seconds, amount, gpu_mb=None):
    return Sample(seconds, amount, amount, int(amount), gpu_mb)


def test_a_call_leaves_a_table_and_a_plot(tmp_path):
    folder = tmp_path / "logs" / "call"
    with monitor_resources(lambda: folder, interval_s=0.01):
        pass
    table = pd.read_csv(folder / "resources.tsv", sep="\t")
    assert len(table) >= 2
    assert (table["memory_mb"] > 10).all()
    assert (table["n_processes"] >= 1).all()
    assert table["gpu_mb"].isna().all() or (table["gpu_mb"] >= 0).all()
    assert set(table) == set(json.loads((folder / "resources.json").read_text()))
    assert "<svg" in (folder / "resources.svg").read_text()


def test_memory_that_is_held_is_seen(monkeypatch):
    # Children that other tests left may end in between, a bytearray may lie in pages that were this
    # process's already, and the system may take other pages away: so much is new and so much seen.
    monkeypatch.setattr(resources.psutil.Process, "children", lambda *_, **__: [])
    processes = {}
    before = resources._take_sample(processes, 0.0)
    with mmap.mmap(-1, 200_000_000) as held:
        held.write(b"x" * len(held))
        after = resources._take_sample(processes, 1.0)
        assert 100 < after.memory_mb - before.memory_mb < 400


def test_a_call_that_fails_is_told_of_too(tmp_path):
    folder = tmp_path / "logs" / "call"
    with pytest.raises(ValueError, match="x"), monitor_resources(lambda: folder):
        raise ValueError("x")
    assert (folder / "resources.tsv").exists()


def test_nothing_is_written_where_there_is_no_output_folder(tmp_path):
    folder = tmp_path / "absent" / "logs" / "call"
    with monitor_resources(lambda: folder):
        pass
    assert not (tmp_path / "absent").exists()


def test_samples_are_thinned_out_and_peaks_stay(tmp_path, monkeypatch):
    thinned = thin_out([sample(1, 5), sample(2, 3), sample(3, 1), sample(4, 9)])
    assert [(one.seconds, one.memory_mb) for one in thinned] == [(2, 5), (4, 9)]
    monkeypatch.setattr(resources, "MAX_SAMPLES", 10)
    folder = tmp_path / "logs" / "call"
    with monitor_resources(lambda: folder, interval_s=0.001):
        resources.threading.Event().wait(0.3)
    assert 1 <= len(pd.read_csv(folder / "resources.tsv", sep="\t")) <= 10


def test_a_gpu_has_a_panel_of_its_own(tmp_path):
    write_resources(tmp_path / "with", [sample(0, 1, 1000.0), sample(1, 2, 2000.0)])
    write_resources(tmp_path / "without", [sample(0, 1), sample(1, 2)])
    sizes = [len((tmp_path / name / "resources.svg").read_text()) for name in ("with", "without")]
    assert sizes[0] > sizes[1]
    table = pd.read_csv(tmp_path / "with" / "resources.tsv", sep="\t")
    assert table["gpu_mb"].tolist() == [1000, 2000]
