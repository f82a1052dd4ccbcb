"""Clips of shortened and censored runs get the labels of the time that they show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurostorm_bids.grid.censoring import Censoring
from neurostorm_bids.train.examples import find_examples
from neurostorm_bids.train.sampling import Sample
from neurostorm_bids.train.supervised import label_samples

LENGTH = 10
OPTIONS = SimpleNamespace(is_by_clip=True, event_delay_s=0.0, target="trial_type")


@pytest.fixture
def roots(tmp_path):
    """Events of 20 s each, in turn, from the first volume of the file."""
    for label in ("01", "02"):
        folder = tmp_path / f"sub-{label}" / "func"
        folder.mkdir(parents=True)
        rows = [f"{20 * n}\t20\t{'rest' if n % 2 else 'task'}" for n in range(5)]
        text = "\n".join(["onset\tduration\ttrial_type", *rows])
        (folder / f"sub-{label}_task-x_events.tsv").write_text(f"{text}\n")
    return [tmp_path]


def make_scan(label, *, start_s=0.0, censoring=None):
    """A run of 40 volumes of 2 s."""
    run = SimpleNamespace(
        entities={"sub": label, "task": "x"},
        participant=label,
        label=f"sub-{label}_task-x",
        dataset=SimpleNamespace(name="d"),
    )
    stored = SimpleNamespace(
        n_volumes=40,
        spec=SimpleNamespace(repetition_time_s=2.0),
        start_s=start_s,
        censoring=censoring,
    )
    return SimpleNamespace(run=run, stored=stored)


def test_labels_follow_the_clock_of_the_file_where_volumes_were_dropped(roots):
    scans = [make_scan("01"), make_scan("02", start_s=20.0)]
    examples = find_examples(OPTIONS, scans, clip_length=LENGTH, roots=roots)
    values = examples.target.values
    assert list(values[:4]) == ["task", "rest", "task", "rest"]
    assert list(values[4:]) == ["rest", "task", "rest", "task"]
    label = label_samples(examples, clip_length=LENGTH, roots=roots, delay_s=0.0)
    runs = [SimpleNamespace(dataset="d", label=scan.run.label) for scan in scans]
    codes = [label(Sample(0, run, (0,), 0)) for run in runs]
    assert [examples.classes[int(code)] for code in codes] == ["task", "rest"]


def test_a_clip_with_too_many_censored_volumes_has_no_label(roots):
    censoring = Censoring(n_source_volumes=40, volumes=tuple(range(10, 15)), threshold_mm=0.5)
    scans = [make_scan("01", censoring=censoring), make_scan("02")]
    examples = find_examples(OPTIONS, scans, clip_length=LENGTH, roots=roots)
    assert examples.target.is_known.tolist() == [True, False] + [True] * 6
