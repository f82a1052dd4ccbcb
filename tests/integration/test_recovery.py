"""What is planted in a cohort is found through the commands; its controls hold nothing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.cohort import write_cohort
from benchmarks.controls import (
    SHUFFLED,
    add_shuffled_columns,
    copy_with_exchanged_sessions,
    copy_with_shuffled_events,
    copy_with_shuffled_tasks,
)
from benchmarks.planted import CohortPlan
from benchmarks.questions import SHORT
from benchmarks.recovery import CONFOUNDS, CONNECTIVITY, MODEL, run


class ShortPlan(CohortPlan):
    """A cohort whose runs end after 24 seconds."""

    n_volumes = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run(SHORT, tmp_path_factory.mktemp("recovery"))


@pytest.fixture(scope="module")
def found(made):
    return pd.DataFrame(made["rows"]).set_index(["target", "truth", "method"])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "cohort"
    write_cohort(folder, ShortPlan(n_participants=12))
    return folder


def test_age_is_found_and_a_shuffled_age_is_not(made, found):
    planted = found.loc[("age", "planted", MODEL)]
    assert planted["value"] > 0.3
    assert planted["is_above_chance"]
    assert planted["n_participants"] == 24
    (shuffled,) = made["shuffles"]
    assert shuffled["n_shuffles"] == 20
    assert shuffled["mean"] < 0.05
    assert shuffled["n_intervals_above_chance"] <= 2


def test_confounds_catch_a_target_that_is_only_the_site(found):
    caught = found.loc[("referral", "planted", CONFOUNDS)]
    assert caught["is_above_chance"]
    assert not caught["is_beaten_by_the_model"]
    assert not found.loc[("referral", "planted", CONNECTIVITY), "is_above_chance"]
    assert not found.loc[("age", "planted", CONFOUNDS), "is_above_chance"]


def test_a_shuffled_column_has_the_same_values_and_is_not_chosen(raw, tmp_path):
    resemblance = []
    for seed in range(40):
        for name in ("participants.tsv", "phenotype/memory.tsv"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes((raw / name).read_bytes())
        add_shuffled_columns(tmp_path, seed=seed)
        table = pd.read_csv(tmp_path / "participants.tsv", sep="\t")
        assert sorted(table["age"]) == sorted(table[f"age{SHUFFLED}"])
        resemblance.append(np.corrcoef(table["age"], table[f"age{SHUFFLED}"])[0, 1])
    # Of 12 people drawn by lot: mean 0, deviation 1 / sqrt(11) = 0.3.
    assert abs(np.mean(resemblance)) < 0.15
    assert 0.2 < np.std(resemblance) < 0.4
    memory = pd.read_csv(tmp_path / "phenotype/memory.tsv", sep="\t")
    assert sorted(memory["memory_score"]) == sorted(memory[f"memory_score{SHUFFLED}"])


def test_shuffled_events_keep_their_times(raw, tmp_path):
    copy_with_shuffled_events(raw, tmp_path / "copy", seed=0)
    pairs = [
        (
            pd.read_csv(path, sep="\t"),
            pd.read_csv(tmp_path / "copy" / path.relative_to(raw), sep="\t"),
        )
        for path in sorted(raw.glob("sub-*/**/*_events.tsv"))
    ]
    assert len(pairs) == 24
    for before, after in pairs:
        assert (before["onset"] == after["onset"]).all()
        assert sorted(before["trial_type"]) == sorted(after["trial_type"])
    assert any((before["trial_type"] != after["trial_type"]).any() for before, after in pairs)
    assert not (tmp_path / "copy" / "derivatives").exists()


def test_half_of_the_sessions_have_exchanged_tasks(raw, tmp_path):
    preprocessed = raw / "derivatives" / "fmriprep"
    sessions = ["sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1", "sub-02/ses-2"]
    copy_with_shuffled_tasks(preprocessed, tmp_path / "copy", sessions, seed=0)
    is_same = []
    for path in sorted((tmp_path / "copy").rglob("*task-rest*_bold.nii.gz")):
        rest = preprocessed / path.relative_to(tmp_path / "copy")
        blocks = rest.with_name(rest.name.replace("task-rest", "task-blocks"))
        is_same.append(path.read_bytes() == rest.read_bytes())
        assert is_same[-1] or path.read_bytes() == blocks.read_bytes()
    assert sorted(is_same) == [False, False, True, True]


def test_an_exchanged_session_changes_its_owner_with_all_its_files(tmp_path):
    labels = [f"sub-{number:02d}" for number in range(1, 11)]
    for label in labels:
        for session in ("ses-1", "ses-2"):
            func = tmp_path / "out" / label / session / "func"
            func.mkdir(parents=True)
            stem = f"{label}_{session}_task-rest_desc-scan_embedding"
            (func / f"{stem}.tsv").write_text(label)
            (func / f"{stem}.json").write_text(json.dumps({"Sources": [f"bids::{label}/{stem}"]}))
    copy_with_exchanged_sessions(tmp_path / "out", tmp_path / "copy", "ses-2", seed=0)
    first_owners = []
    for label in labels:
        stem = f"{label}_ses-2_task-rest_desc-scan_embedding"
        func = tmp_path / "copy" / label / "ses-2" / "func"
        assert sorted(path.name for path in func.iterdir()) == [f"{stem}.json", f"{stem}.tsv"]
        first_owners.append((func / f"{stem}.tsv").read_text())
        assert label in (func / f"{stem}.json").read_text()
        assert (tmp_path / "copy" / label / "ses-1").is_dir()
    assert sorted(first_owners) == labels != first_owners
