from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.train.comparison import compare_predictions
from neurostorm_bids.train.resampling import (
    Resampling,
    measure_dependence,
    permute,
    sort_rows,
)
from neurostorm_bids.train.scores import average_rows, score_classification, score_regression

QUICK = Resampling(n_bootstrap=200, n_permutations=100)


def name_people(n_people):
    return [f"{number:03d}" for number in range(n_people)]


def make_regression(n_people, *, noise, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(40, 10, n_people)
    return truth, truth + rng.normal(0, noise, n_people), name_people(n_people)


def make_classes(n_people, *, skill, seed=0, n_classes=2):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(n_people) % n_classes)
    logits = rng.normal(size=(n_people, n_classes)) + skill * np.eye(n_classes)[truth]
    chances = np.exp(logits)
    return truth, chances / chances.sum(axis=1, keepdims=True), name_people(n_people)


def test_a_score_lies_in_its_interval_and_beats_chance_when_there_is_something():
    truth, predictions, people = make_regression(80, noise=8)
    scores = score_regression(truth, predictions, people, unit="years", resampling=QUICK)
    for score in scores.scores:
        assert score.low < score.value < score.high
        assert score.p_value == pytest.approx(1 / 101)
        assert score.n_undefined == 0
    assert scores["mae"].value < scores["mae"].chance
    assert scores["r2"].value > scores["r2"].chance == 0
    assert (scores.unit, scores.n_participants) == ("years", 80)


def test_predictions_of_nothing_are_at_chance():
    truth, probabilities, people = make_classes(300, skill=0)
    scores = score_classification(
        truth, probabilities, people, classes=["a", "b"], resampling=QUICK
    )
    for name in ("accuracy", "balanced_accuracy", "auroc"):
        score = scores[name]
        assert score.low < score.chance < score.high
        assert score.p_value > 0.05
    assert scores["calibration_error"].p_value is None
    assert sum(map(sum, scores.confusion)) == 300


@pytest.mark.parametrize(("n_classes", "chance"), [(2, 0.5), (4, 0.25)])
def test_chance_levels_are_those_of_a_guess_that_knows_the_shares(n_classes, chance):
    truth, probabilities, people = make_classes(40, skill=1, n_classes=n_classes)
    scores = score_classification(truth, probabilities, people, classes="abcd"[:n_classes])
    assert scores["accuracy"].chance == scores["balanced_accuracy"].chance == chance
    guess = np.zeros_like(probabilities)
    guess[:, 0] = 1
    of_guess = score_classification(truth, guess, people, classes="abcd"[:n_classes])
    for name in ("accuracy", "balanced_accuracy", "auroc", "f1"):
        assert of_guess[name].value == pytest.approx(of_guess[name].chance)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(24)))
def test_the_order_of_rows_changes_nothing(order):
    truth, predictions, people = make_regression(12, noise=5)
    truth, predictions, people = np.tile(truth, 2), np.r_[predictions, predictions + 1], people * 2
    resampling = Resampling(n_bootstrap=20, n_permutations=5)
    scores = score_regression(truth, predictions, people, resampling=resampling)
    shuffled = score_regression(
        truth[order], predictions[order], [people[at] for at in order], resampling=resampling
    )
    for one, other in zip(scores.scores, shuffled.scores, strict=True):
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))
        assert other.p_value == one.p_value


def test_rows_of_one_participant_are_drawn_together():
    truth, predictions, people = make_regression(40, noise=8)
    once = score_regression(truth, predictions, people)
    tenfold = score_regression(
        np.repeat(truth, 10), np.repeat(predictions, 10), sorted(people * 10)
    )
    assert tenfold.n_rows == 400
    assert tenfold.n_participants == 40
    for one, other in zip(once.scores, tenfold.scores, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=1e-9)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    def covers(seed):
        rng = np.random.default_rng(seed)
        error = rng.normal(size=50)
        scores = score_regression(
            np.zeros(50) + np.arange(50),
            np.arange(50) + error,
            name_people(50),
            resampling=Resampling(n_bootstrap=200, seed=seed),
        )
        return scores["mae"].low < np.sqrt(2 / np.pi) < scores["mae"].high

    assert np.mean([covers(seed) for seed in range(200)]) > 0.88


def test_p_values_of_predictions_of_nothing_are_spread_evenly():
    def find_p_value(seed):
        truth, probabilities, people = make_classes(30, skill=0, seed=seed)
        resampling = Resampling(n_bootstrap=1, n_permutations=49, seed=seed)
        scores = score_classification(
            truth, probabilities, people, classes=["a", "b"], resampling=resampling
        )
        return scores["auroc"].p_value

    p_values = np.array([find_p_value(seed) for seed in range(150)])
    assert 0.4 < p_values.mean() < 0.6
    assert 0.02 < (p_values <= 0.1).mean() < 0.2


def test_resamples_without_a_class_are_counted_and_left_out():
    truth = np.array([0, 0, 0, 0, 0, 1])
    probabilities = np.stack([np.linspace(1, 0, 6), np.linspace(0, 1, 6)], axis=1)
    scores = score_classification(truth, probabilities, name_people(6), classes=["a", "b"])
    assert 500 < scores["auroc"].n_undefined < 900  # (5 / 6) ** 6 of 2000 = 670
    assert scores["accuracy"].n_undefined == 0
    assert scores["auroc"].low is not None


def test_an_interval_of_mostly_undefined_resamples_is_not_given():
    truth = np.array([0, 1, 2])
    scores = score_classification(truth, np.eye(3), name_people(3), classes=["a", "b", "c"])
    assert scores["auroc"].value == 1
    assert (scores["auroc"].low, scores["auroc"].high) == (None, None)


def test_one_class_alone_has_no_area():
    scores = score_classification([0, 0], np.eye(2), ["1", "2"], classes=["a", "b"])
    assert scores["auroc"].value is None
    assert scores["auroc"].chance is None


def test_rows_without_truth_or_prediction_are_left_out_and_counted():
    truth = [1.0, 2, np.nan, 4, 5]
    scores = score_regression(truth, [1.0, np.nan, 3, 4, 6], name_people(5))
    assert (scores.n_rows, scores.n_left_out) == (3, 2)
    with pytest.raises(DataError, match="nothing to score"):
        score_regression([np.nan], [1.0], ["1"])


def test_lengths_and_classes_must_fit():
    with pytest.raises(UsageError, match="as many participants"):
        score_regression([1.0, 2], [1.0, 2], ["1"])
    with pytest.raises(UsageError, match="Expected 3 probabilities"):
        score_classification([0, 1], np.eye(2), ["1", "2"], classes="abc")
    with pytest.raises(UsageError, match="numbers from 0"):
        Resampling(n_bootstrap=-1)


def test_scores_are_written_as_json():
    truth, probabilities, people = make_classes(10, skill=1)
    scores = score_classification(truth, probabilities, people, classes=["a", "b"])
    written = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert written["scores"][0]["value"] == scores["accuracy"].value


def test_permuting_keeps_folds_and_participants_together():
    people = np.repeat(name_people(8), 2)
    truth = np.repeat(np.arange(8.0), 2)
    folds = np.repeat(["x", "y"], 8)
    rows = sort_rows(truth, (truth,), people, folds)
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = permute(rows, rng)
        assert sorted(moved) == sorted(truth)
        np.testing.assert_array_equal(moved[::2], moved[1::2])
        assert set(moved[:8]) == {0, 1, 2, 3}
    assert any((permute(rows, rng) != truth).any() for _ in range(3))


@pytest.mark.parametrize("n_twice", [0, 1, 100])
def test_second_sessions_leave_participants_exchangeable(n_twice):
    truth, predictions, people = make_regression(100, noise=4)
    folds = [str(at % 5) for at in range(100)]
    scores = score_regression(
        np.r_[truth, truth[:n_twice] + 1],
        np.r_[predictions, predictions[:n_twice] + 1],
        people + people[:n_twice],
        folds=folds + folds[:n_twice],
        resampling=QUICK,
    )
    assert not scores.permutes_within
    assert [score.p_value for score in scores.scores] == [pytest.approx(1 / 101)] * 5


def test_all_truths_of_a_participant_go_to_one_of_the_fold_with_as_many_rows():
    people = ["a", "a", "b", "b", "c", "d", "e", "e"]
    truth = np.array([40.0, 41, 60, 61, 20, 30, 80, 81])
    folds = list("xxxxxxyy")
    rows = sort_rows(truth, (truth,), people, folds)
    found = {tuple(permute(rows, np.random.default_rng(seed))) for seed in range(40)}
    pairs, singles = [(40, 41, 60, 61), (60, 61, 40, 41)], [(20, 30), (30, 20)]
    assert found == {(*pair, *single, 80, 81) for pair in pairs for single in singles}


def test_states_of_a_participant_are_permuted_within_the_participant():
    people = np.repeat(name_people(5), 3)
    truth = np.tile([0.0, 1, 2], 5)
    rows = sort_rows(truth, (truth,), people, None)
    moved = permute(rows, np.random.default_rng(0)).reshape(5, 3)
    np.testing.assert_array_equal(np.sort(moved, axis=1), np.sort(rows.truth.reshape(5, 3), axis=1))
    assert (moved != rows.truth.reshape(5, 3)).any()


def test_clips_are_averaged_by_their_weights():
    keys, means = average_rows([[1.0, 4], [3, 0], [5, 5]], ["b", "b", "a"], weights=[3, 1, 9])
    assert keys == ("b", "a")
    np.testing.assert_allclose(means, [[1.5, 3], [5, 5]])
    np.testing.assert_allclose(average_rows([1.0, 2, 6], ["a", "a", "a"])[1], [3])


@pytest.mark.parametrize(
    ("folds", "factor"),
    [(None, 1), (["x"] * 20, 1), (list("abcde") * 4, 1.5), (list("aabbbbbbbb") * 2, None)],
)
def test_folds_that_share_training_participants_depend_on_each_other(folds, factor):
    truth, predictions, people = make_regression(20, noise=1)
    rows = sort_rows(truth, (predictions,), people, folds)
    expected = factor or np.sqrt(1 + 4 / 16 + 16 / 4)
    assert measure_dependence(rows) == pytest.approx(expected)
    assert measure_dependence(sort_rows(truth, (predictions,), people, folds)) >= 1


def test_folds_widen_a_difference_around_its_value():
    truth, good, people = make_regression(60, noise=4)
    bad = make_regression(60, noise=12)[1]
    alone = compare_predictions(truth, good, bad, people, folds=None, resampling=QUICK)
    folds = [str(at % 5) for at in range(60)]
    folded = compare_predictions(truth, good, bad, people, folds=folds, resampling=QUICK)
    for one, other in zip(alone, folded, strict=True):
        assert other.value == one.value
        assert other.high - other.low == pytest.approx(1.5 * (one.high - one.low))
        assert other.p_value >= one.p_value


def test_the_better_of_two_is_named_and_predictions_do_not_beat_themselves():
    truth, good, people = make_regression(60, noise=4)
    bad = make_regression(60, noise=12, seed=0)[1]
    by_name = {
        each.name: each for each in compare_predictions(truth, good, bad, people, folds=None)
    }
    mae = by_name["mae"]
    assert mae.low < mae.value < mae.high < 0
    assert mae.is_better
    assert mae.p_value < 0.01
    assert by_name["r2"].is_better
    for same in compare_predictions(truth, good, good, people, folds=None, resampling=QUICK):
        assert (same.value, same.is_better, same.p_value) == (0, None, 1)


def test_exchanging_the_two_sides_changes_the_sign_only():
    truth, one, people = make_classes(50, skill=1)
    other = make_classes(50, skill=0.5, seed=1)[1]
    forward = compare_predictions(truth, one, other, people, folds=None, resampling=QUICK)
    back = compare_predictions(truth, other, one, people, folds=None, resampling=QUICK)
    for there, here in zip(forward, back, strict=True):
        assert here.value == pytest.approx(-there.value)
        assert here.low == pytest.approx(-there.high, abs=0.05)
        assert abs(here.p_value - there.p_value) < 0.15
