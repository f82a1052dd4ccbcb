from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.calibration import Temperature
from neurostorm_bids.train.metrics import measure_classification
from neurostorm_bids.train.uncertainty import (
    fit_conformal_intervals,
    fit_conformal_sets,
    fit_novelty,
    fit_temperature,
)


def draw_classes(n_rows, *, sharpness=1.0, seed=0, n_classes=3):
    """Return probabilities that are too sure by the factor `sharpness`, and the truth."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n_rows, n_classes))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (honest.cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1).astype(float)
    sure = np.exp(sharpness * logits)
    return sure / sure.sum(axis=1, keepdims=True), truth


def name_people(n_people):
    return [f"{number:03d}" for number in range(n_people)]


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_how_much_too_sure_the_model_was(sharpness):
    probabilities, truth = draw_classes(4000, sharpness=sharpness)
    temperature = fit_temperature(probabilities, truth)
    assert temperature.value == pytest.approx(sharpness, rel=0.1)
    once = np.ones((1, 4000))
    before = measure_classification(truth, probabilities, once)
    after = measure_classification(truth, temperature.apply(probabilities), once)
    assert after["calibration_error"][0] < 0.03
    assert after["accuracy"][0] == before["accuracy"][0]


def test_a_model_that_is_always_right_is_made_surer_within_bounds():
    probabilities = np.array([[0.6, 0.4], [0.4, 0.6]])
    temperature = fit_temperature(probabilities, [0, 1])
    assert temperature == Temperature(value=temperature.value, n_participants=2)
    assert temperature.value < 0.1


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_sets_hold_the_truth_as_often_as_asked_for(coverage):
    shares = []
    for seed in range(150):
        probabilities, truth = draw_classes(260, sharpness=3, seed=seed)
        sets = fit_conformal_sets(probabilities[:60], truth[:60], coverage=coverage)
        is_in = sets.find_sets(probabilities[60:])
        shares.append(is_in[np.arange(200), truth[60:].astype(int)].mean())
    expected = np.ceil(61 * coverage) / 61  # the finite-sample coverage, from above
    assert coverage - 0.01 < np.mean(shares)
    assert np.mean(shares) < max(expected + 0.015, 0.75)  # the largest class is always in


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("draw", [stats.norm.rvs, stats.cauchy.rvs], ids=["normal", "wild"])
def test_intervals_hold_the_truth_as_often_as_asked_for(coverage, draw):
    shares = []
    for seed in range(300):
        error = draw(size=240, random_state=seed)
        truth = np.linspace(20, 80, 240)[np.random.default_rng(seed).permutation(240)]
        intervals = fit_conformal_intervals(truth[:40] + error[:40], truth[:40], coverage=coverage)
        low, high = intervals.find_intervals(truth[40:] + error[40:]).T
        shares.append(((low <= truth[40:]) & (truth[40:] <= high)).mean())
    assert np.mean(shares) == pytest.approx(np.ceil(41 * coverage) / 41, abs=0.015)


@pytest.mark.parametrize(("coverage", "needed"), [(0.9, 9), (0.95, 19), (0.5, 1)])
def test_a_coverage_needs_enough_participants(coverage, needed):
    errors = np.arange(needed, dtype=float)
    fit = fit_conformal_intervals(errors, np.zeros(needed), coverage=coverage)
    assert fit.half_width == needed - 1
    if needed > 1:
        with pytest.raises(DataError, match=f"needs {needed} participants or more"):
            fit_conformal_intervals(errors[1:], np.zeros(needed - 1), coverage=coverage)


def test_rows_without_truth_are_left_out():
    probabilities, truth = draw_classes(40)
    truth[::2] = np.nan
    sets = fit_conformal_sets(probabilities, truth)
    assert sets == fit_conformal_sets(probabilities[1::2], truth[1::2])
    assert sets.n_participants == 20
    with pytest.raises(DataError, match="nothing to learn"):
        fit_temperature(probabilities, np.full(40, np.nan))
    with pytest.raises(UsageError, match="as many predictions"):
        fit_temperature(probabilities, truth[1:])
    with pytest.raises(UsageError, match="between 0 and 1"):
        fit_conformal_sets(probabilities, truth, coverage=1.0)


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12)) + 5 * rng.normal(size=(12, 1))

    def draw(n_rows):
        return rng.normal(size=(n_rows, 12)) @ mixing.T + 100

    return draw


def test_new_participants_are_ranked_evenly_and_strangers_on_top(embeddings):
    novelty = fit_novelty(embeddings(60), name_people(60))
    ranks = novelty.rank(novelty.measure(embeddings(2000)))
    assert stats.kstest(ranks, "uniform").statistic < 0.15
    assert novelty.measure(embeddings(2000)).mean() == pytest.approx(1, abs=0.25)
    strange = embeddings(50) + np.random.default_rng(1).normal(0, 15, size=(50, 12))
    assert novelty.rank(novelty.measure(strange)).mean() > 0.99


def test_fewer_participants_than_features_are_enough(embeddings):
    novelty = fit_novelty(embeddings(10), name_people(10))
    assert np.isfinite(novelty.measure(embeddings(5))).all()


def test_units_of_features_do_not_matter(embeddings):
    train, new = embeddings(40), embeddings(10)
    scale, shift = np.logspace(-3, 3, 12), np.linspace(-50, 50, 12)
    straight = fit_novelty(train, name_people(40))
    scaled = fit_novelty(train * scale + shift, name_people(40))
    np.testing.assert_allclose(scaled.measure(new * scale + shift), straight.measure(new))
    np.testing.assert_allclose(scaled.reference, straight.reference)


def test_the_order_of_rows_changes_nothing(embeddings):
    train, people = embeddings(40), name_people(40)
    order = np.random.default_rng(0).permutation(40)
    straight = fit_novelty(train, people)
    shuffled = fit_novelty(train[order], [people[at] for at in order])
    np.testing.assert_allclose(shuffled.reference, straight.reference)
    np.testing.assert_allclose(shuffled.mean, straight.mean)


def test_runs_of_one_participant_are_measured_without_each_other(embeddings):
    train = embeddings(20)
    once = fit_novelty(train, name_people(20)).reference
    copied = fit_novelty(np.repeat(train, 3, axis=0), np.repeat(name_people(20), 3)).reference
    np.testing.assert_allclose(np.median(copied), np.median(once), rtol=0.2)


def test_a_constant_feature_gives_no_nan(embeddings):
    train = embeddings(30)
    train[:, 3] = 7
    assert np.isfinite(fit_novelty(train, name_people(30)).measure(train)).all()


@pytest.mark.parametrize(
    ("rows", "people", "error", "words"),
    [
        (np.ones((12, 3)), name_people(12), DataError, "that vary"),
        (np.full((12, 3), np.nan), name_people(12), DataError, "finite"),
        (np.eye(12), ["1"] * 12, DataError, "of 10 participants or more.*found 1"),
        (np.eye(12), name_people(11), UsageError, "each of 12 rows"),
    ],
)
def test_embeddings_that_teach_nothing_are_refused(rows, people, error, words):
    with pytest.raises(error, match=words):
        fit_novelty(rows, people)
