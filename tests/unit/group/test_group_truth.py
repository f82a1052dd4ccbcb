"""Predictions beside the truth of the source's tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.errors import UsageError
from neurostorm_bids.group.classes import match_classes
from neurostorm_bids.group.collect import collect_results
from neurostorm_bids.group.truth import assess_predictions
from neurostorm_bids.train.resampling import Resampling

QUICK = Resampling(n_bootstrap=20)
Z_SCORE = {
    "name": "age",
    "kind": "regression",
    "classes": [],
    "unit": None,
    "mean": None,
    "sd": None,
}


def assess(study, *, column=None):
    (predictions,) = collect_results(study.options()).predictions
    return assess_predictions(predictions, column=column, roots=[study.source], resampling=QUICK)


@pytest.mark.parametrize(
    ("words", "classes", "expected"),
    [
        (["F", "M"], ("female", "male"), {"F": "female", "M": "male"}),
        (["Female", "Male"], ("F", "M"), {"Female": "F", "Male": "M"}),
        (["f", "F"], ("F", "M"), {"f": "F", "F": "F"}),
        (["m", "o"], ("female", "male"), {"m": "male"}),
        (["A"], ("ADHD", "autism"), {}),
        (["AD", "ADHD"], ("AD", "ADHD"), {"AD": "AD", "ADHD": "ADHD"}),
        (["a"], ("A", "a"), {"a": "a"}),
        (["", "1"], ("0", "1"), {"1": "1"}),
        (["con", "control"], ("CONTROLS", "PATIENTS"), {}),
    ],
)
def test_words_match_classes_where_there_is_no_doubt(words, classes, expected):
    assert match_classes(words, classes) == expected


@given(st.lists(st.text(max_size=3), min_size=2, max_size=5, unique=True))
def test_every_class_matches_itself(classes):
    assert match_classes(classes, classes) == {name: name for name in classes}


def test_a_participant_is_the_mean_of_the_runs(study):
    study.tell("participant_id age", "sub-01 30", "sub-02 50")
    study.add("sub-01_task-rest", value=20.0)
    study.add("sub-01_task-nback", value=40.0)
    study.add("sub-02_task-rest", value=44.0)
    found = assess(study)
    assert found.predicted[:, 0].tolist() == [30, 44]
    assert found.truth.tolist() == [30, 50]
    assert found.scores["mae"].value == 3


def test_a_truth_that_changes_by_session_is_scored_by_session(study):
    for session, age in (("1", 30), ("2", 32)):
        for label in ("01", "02"):
            study.add(f"sub-{label}_ses-{session}_task-rest", value=float(age))
            table = study.source / f"sub-{label}" / f"sub-{label}_sessions.tsv"
            table.write_text("session_id\tage\nses-1\t31\nses-2\t33\n")
    found = assess(study)
    assert found.level == "session"
    assert found.scores.n_rows == 4
    assert found.scores.n_participants == 2


def test_without_a_column_there_is_no_score_and_it_is_said(study):
    study.tell("participant_id iq", "sub-01 100")
    study.add("sub-01_task-rest", value=20.0)
    found = assess(study)
    assert found.scores is None
    assert np.isnan(found.truth).all()
    assert "No table" in found.notes[0]


def test_a_column_that_was_asked_for_must_be_there(study):
    study.tell("participant_id iq", "sub-01 100")
    study.add("sub-01_task-rest", value=20.0)
    with pytest.raises(UsageError, match="No column 'Age'"):
        assess(study, column="Age")


def test_one_known_value_is_too_few_to_score(study):
    study.tell("participant_id age", "sub-01 30", "sub-02 n/a")
    study.add("sub-01_task-rest", value=20.0)
    study.add("sub-02_task-rest", value=20.0)
    found = assess(study)
    assert found.scores is None
    assert any("too few" in note for note in found.notes)
    assert any("1 participant(s) left out: no value" in note for note in found.notes)


def test_z_scores_get_correlations_and_no_errors(study):
    study.tell("participant_id age", "sub-01 30", "sub-02 50", "sub-03 60")
    for label, value in (("01", -1.0), ("02", 0.1), ("03", 1.0)):
        study.add(f"sub-{label}_task-rest", value=value, target=Z_SCORE)
    found = assess(study)
    assert [score.name for score in found.measures] == ["pearson", "spearman"]


def test_the_levels_of_a_sidecar_tell_what_codes_mean(study):
    study.tell("participant_id sex", "sub-01 1", "sub-02 2", "sub-03 3")
    sidecar = '{"sex": {"Levels": {"1": "Male", "2": "Female", "3": "other"}}}'
    (study.source / "participants.json").write_text(sidecar)
    for label in ("01", "02", "03"):
        study.add(f"sub-{label}_task-rest", probabilities=(0.2, 0.8))
    found = assess(study)
    np.testing.assert_array_equal(found.truth, [1, 0, np.nan])
    assert "1 as male, 2 as female" in found.notes[0]
    assert "left out of the scores: 3 (1 run(s))" in found.warnings[0]


def test_other_units_are_told(study):
    study.tell("participant_id age", "sub-01 360", "sub-02 500")
    (study.source / "participants.json").write_text('{"age": {"Units": "months"}}')
    for label in ("01", "02"):
        study.add(f"sub-{label}_task-rest", value=30.0)
    (warning,) = assess(study).warnings
    assert "in months, and the prediction in years" in warning
