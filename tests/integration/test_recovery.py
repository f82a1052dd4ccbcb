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
def found(tmp_path_factory):
    rows = pd.DataFrame(run(SHORT, tmp_path_factory.mktemp("recovery"))["rows"])
    return rows.set_index(["target", "truth", "method"])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "cohort"
    write_cohort(folder, ShortPlan(n_participants=12))
    return folder


def test_age_is_found_and_a_shuffled_age_is_not(found):
    planted, shuffled = (found.loc[("age", truth, MODEL)] for truth in ("planted", "shuffled"))
    assert planted["value"] > 0.3
    assert planted["is_above_chance"]
    assert shuffled["value"] < 0.2
    assert not shuffled["is_above_chance"]
    assert planted["n_participants"] == 24


def test_confounds_catch_a_target_that_is_only_the_site(found):
    caught = found.loc[("referral", "planted", CONFOUNDS)]
    assert caught["is_above_chance"]
    assert not caught["is_beaten_by_the_model"]
    assert not found.loc[("referral", "planted", CONNECTIVITY), "is_above_chance"]
    assert not found.loc[("age", "planted", CONFOUNDS), "is_above_chance"]


def test_a_shuffled_column_has_the_same_values_and_resembles_nothing(raw, tmp_path):
    for name in ("participants.tsv", "phenotype/memory.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((raw / name).read_bytes())
    add_shuffled_columns(tmp_path, seed=0)
    table = pd.read_csv(tmp_path / "participants.tsv", sep="\t")
    assert sorted(table["age"]) == sorted(table[f"age{SHUFFLED}"])
    assert abs(np.corrcoef(table["age"], table[f"age{SHUFFLED}"])[0, 1]) < 0.5
    same_sex = (table["sex"] == table[f"sex{SHUFFLED}"]).mean()
    assert 0.25 < same_sex < 0.75
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


def test_an_exchanged_session_belongs_to_the_next_person_with_all_its_files(tmp_path):
    for label in ("sub-01", "sub-02", "sub-10"):
        for session in ("ses-1", "ses-2"):
            func = tmp_path / "out" / label / session / "func"
            func.mkdir(parents=True)
            stem = f"{label}_{session}_task-rest_desc-scan_embedding"
            (func / f"{stem}.tsv").write_text(label)
            (func / f"{stem}.json").write_text(json.dumps({"Sources": [f"bids::{label}/{stem}"]}))
    copy_with_exchanged_sessions(tmp_path / "out", tmp_path / "copy", "ses-2")
    for label, first_owner in (("sub-01", "sub-10"), ("sub-02", "sub-01"), ("sub-10", "sub-02")):
        stem = f"{label}_ses-2_task-rest_desc-scan_embedding"
        func = tmp_path / "copy" / label / "ses-2" / "func"
        assert sorted(path.name for path in func.iterdir()) == [f"{stem}.json", f"{stem}.tsv"]
        assert (func / f"{stem}.tsv").read_text() == first_owner
        assert first_owner not in (func / f"{stem}.json").read_text()
        assert (tmp_path / "copy" / label / "ses-1").is_dir()
