"""Every measure equals the one of scikit-learn or SciPy on rows repeated as the weights say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from neurostorm_bids.train.metrics import (
    HIGHER_IS_BETTER,
    count_confusions,
    measure_classification,
    measure_regression,
)


def draw_weights(rng, n_rows, n_weightings=20):
    return rng.integers(0, 3, size=(n_weightings, n_rows)).astype(float)


def repeat(values, weights):
    return np.repeat(values, weights.astype(int), axis=0)


@pytest.fixture(params=[2, 3, 5])
def classes(request):
    rng = np.random.default_rng(request.param)
    n_classes, n_rows = request.param, 60
    truth = rng.permutation(np.arange(n_rows) % n_classes)
    probabilities = rng.dirichlet(np.ones(n_classes), n_rows)
    probabilities[:, :] += np.eye(n_classes)[truth] * 0.4
    probabilities = np.round(probabilities / 1.4, 1)  # ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return truth.astype(float), probabilities, draw_weights(rng, n_rows)


def test_classification_equals_scikit_learn_on_repeated_rows(classes):
    truth, probabilities, weights = classes
    n_classes = probabilities.shape[1]
    measured = measure_classification(truth, probabilities, weights)
    for at, weighting in enumerate(weights):
        true, given = repeat(truth, weighting), repeat(probabilities, weighting)
        guess = given.argmax(axis=1)
        score = given[:, 1] if n_classes == 2 else given
        expected = {
            "accuracy": reference.accuracy_score(true, guess),
            "balanced_accuracy": reference.balanced_accuracy_score(true, guess),
            "auroc": reference.roc_auc_score(true, score, multi_class="ovr", average="macro"),
            "f1": reference.f1_score(true, guess, average="macro"),
        }
        for name, value in expected.items():
            assert measured[name][at] == pytest.approx(value, abs=1e-12), name


def test_the_area_within_folds_is_that_of_each_fold_weighted_by_its_pairs():
    rng = np.random.default_rng(0)
    truth, folds = rng.integers(0, 2, 60).astype(float), rng.permutation(np.arange(60) % 4)
    truth[folds == 3] = 1  # a fold of one class has no pairs
    score = np.round(rng.random(60) + folds, 1)
    weights = draw_weights(rng, 60)
    outputs = np.stack([1 - score, score], axis=1)
    measured = measure_classification(truth, outputs, weights, folds=folds)["auroc"]
    for at, weighting in enumerate(weights):
        areas, n_pairs = [], []
        for fold in range(3):
            own = weighting * (folds == fold)
            true, given = repeat(truth, own), repeat(score, own)
            areas.append(reference.roc_auc_score(true, given))
            n_pairs.append(true.sum() * (1 - true).sum())
        assert measured[at] == pytest.approx(np.average(areas, weights=n_pairs), abs=1e-12)


def test_a_constant_in_each_fold_is_at_chance_and_folds_of_one_class_have_no_area():
    truth = np.repeat([0.0, 1, 0, 1], [8, 2, 2, 8])
    folds = np.repeat([0, 1], 10)
    guess = np.where(folds == 0, 0.8, 0.2)  # the share of the other fold
    outputs, once = np.stack([1 - guess, guess], axis=1), np.ones((1, 20))
    assert measure_classification(truth, outputs, once)["auroc"][0] < 0.3
    assert measure_classification(truth, outputs, once, folds=folds)["auroc"][0] == 0.5
    alone = measure_classification(truth, outputs, once, folds=truth.astype(int))
    assert np.isnan(alone["auroc"][0])


def test_confusions_equal_scikit_learn(classes):
    truth, probabilities, _ = classes
    expected = reference.confusion_matrix(truth, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(
        count_confusions(truth, probabilities, probabilities.shape[1]), expected
    )


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    confidence = np.repeat([0.65, 0.95], [4, 2])
    probabilities = np.stack([1 - confidence, confidence], axis=1)
    truth = np.array([1, 1, 0, 0, 1, 1], dtype=float)
    error = measure_classification(truth, probabilities, np.ones((1, 6)))["calibration_error"]
    assert error[0] == pytest.approx((4 * abs(0.5 - 0.65) + 2 * abs(1 - 0.95)) / 6)


def test_probabilities_that_keep_their_word_have_no_calibration_error():
    rng = np.random.default_rng(0)
    second = rng.random(200_000)
    truth = (rng.random(200_000) < second).astype(float)
    probabilities = np.stack([1 - second, second], axis=1)
    measured = measure_classification(truth, probabilities, np.ones((1, 200_000)))
    assert measured["calibration_error"][0] < 0.005


@pytest.mark.parametrize("decimals", [0, 6], ids=["ties", "no ties"])
def test_regression_equals_scikit_learn_and_scipy_on_repeated_rows(decimals):
    rng = np.random.default_rng(1)
    truth = np.round(rng.normal(30, 5, 50), decimals)
    predictions = np.round(truth / 2 + rng.normal(0, 4, 50), decimals)
    weights = draw_weights(rng, 50)
    measured = measure_regression(truth, predictions, weights)
    for at, weighting in enumerate(weights):
        true, given = repeat(truth, weighting), repeat(predictions, weighting)
        expected = {
            "mae": reference.mean_absolute_error(true, given),
            "rmse": reference.root_mean_squared_error(true, given),
            "r2": reference.r2_score(true, given),
            "pearson": stats.pearsonr(true, given).statistic,
            "spearman": stats.spearmanr(true, given).statistic,
        }
        for name, value in expected.items():
            assert measured[name][at] == pytest.approx(value, abs=1e-12), name


def test_a_resample_without_a_class_has_an_accuracy_and_nothing_by_class():
    truth = np.array([0.0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    measured = measure_classification(truth, probabilities, np.array([[1.0, 1, 0]]))
    assert measured["accuracy"][0] == 0.5
    for name in ("balanced_accuracy", "auroc", "f1"):
        assert np.isnan(measured[name][0])


def test_a_class_that_is_never_true_does_not_count():
    truth = np.array([0.0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.1, 0.9, 0], [0.2, 0.8, 0]])
    measured = measure_classification(truth, probabilities, np.ones((1, 4)))
    for name in ("accuracy", "balanced_accuracy", "auroc", "f1"):
        assert measured[name][0] == 1


@pytest.mark.parametrize("constant", [0.0, 23.4, 1e6 + 0.1])
def test_constant_predictions_have_no_correlation(constant):
    truth = np.array([20.0, 30, 45, 31])
    predictions = np.full(4, constant)
    measured = measure_regression(truth, predictions, np.ones((1, 4)))
    assert np.isnan(measured["pearson"][0])
    assert np.isnan(measured["spearman"][0])
    assert np.isfinite(measured["mae"][0])


def test_a_constant_truth_has_no_r2():
    measured = measure_regression(np.full(4, 0.1), np.arange(4.0), np.ones((1, 4)))
    assert np.isnan(measured["r2"][0])
    assert measured["rmse"][0] > 0


def test_each_measure_has_a_direction(classes):
    truth, probabilities, weights = classes
    names = {
        *measure_classification(truth, probabilities, weights),
        *measure_regression(truth, truth, weights),
    }
    assert names == set(HIGHER_IS_BETTER)
