from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from neurostorm_bids.train.linear import (
    LinearFit,
    find_scale,
    fit_classes,
    fit_numbers,
    measure_loss,
    rotate,
)

PENALTIES = (100.0, 10.0, 1.0, 0.1)


def make_problem(n_rows=60, n_features=10, n_classes=3):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n_rows, n_features))
    scores = features @ rng.normal(size=(n_features, n_classes)) + rng.normal(
        size=(n_rows, n_classes)
    )
    return features, scores, rng.uniform(0.5, 1.5, n_rows)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_path_gives_what_each_penalty_gives_alone(n_classes):
    features, scores, weights = make_problem(n_classes=n_classes)
    codes = scores.argmax(axis=1)
    for penalty, fit in zip(
        PENALTIES, fit_classes(features, codes, weights, PENALTIES), strict=True
    ):
        alone = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000)
        alone.fit(features, codes, sample_weight=weights)
        np.testing.assert_allclose(fit.weights, alone.coef_.T, atol=2e-4)
        np.testing.assert_allclose(fit.bias, alone.intercept_, atol=2e-4)
        assert fit.has_converged


def test_numbers_are_fitted_by_ridge_regression():
    features, scores, weights = make_problem()
    for penalty, fit in zip(
        PENALTIES, fit_numbers(features, scores[:, 0], weights, PENALTIES), strict=True
    ):
        alone = Ridge(alpha=penalty).fit(features, scores[:, 0], sample_weight=weights)
        np.testing.assert_allclose(fit.weights[:, 0], alone.coef_)


@pytest.mark.parametrize(("n_rows", "n_features"), [(20, 300), (20, 20), (30, 5)])
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_rotating_changes_no_prediction(n_rows, n_features, kind):
    features, scores, weights = make_problem(n_rows, n_features)
    coordinates, basis = rotate(features)
    np.testing.assert_allclose(coordinates @ basis.T, features, atol=1e-10)
    assert coordinates.shape[1] <= n_rows
    if kind == "numbers":
        straight = fit_numbers(features, scores[:, 0], weights, [3.0])[0]
        turned = fit_numbers(coordinates, scores[:, 0], weights, [3.0])[0]
    else:
        straight = fit_classes(features, scores.argmax(axis=1), weights, [3.0])[0]
        turned = fit_classes(coordinates, scores.argmax(axis=1), weights, [3.0])[0]
    np.testing.assert_allclose(basis @ turned.weights, straight.weights, atol=1e-4)
    np.testing.assert_allclose(turned.bias, straight.bias, atol=1e-4)


def test_features_without_rank_rotate_to_nothing():
    coordinates, basis = rotate(np.zeros((3, 7)))
    assert coordinates.shape == (3, 0)
    assert basis.shape == (7, 0)


def test_no_features_predict_the_shares_or_the_mean():
    codes, weights = np.array([0, 0, 0, 2, 5]), np.ones(5)
    fit = fit_classes(np.zeros((5, 0)), codes, weights, [1.0])[0]
    np.testing.assert_allclose(np.exp(fit.bias), [0.6, 0.2, 0.2])
    two = fit_classes(np.zeros((4, 0)), codes[:4], weights[:4], [1.0])[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-two.bias)), [0.25])
    mean = fit_numbers(np.zeros((2, 0)), np.array([1.0, 4]), np.array([2.0, 1]), [1.0])[0]
    np.testing.assert_allclose(mean.bias, [2])


def test_the_loss_of_probabilities_is_their_log():
    fit = LinearFit(np.zeros((1, 1)), np.array([np.log(3.0)]), has_converged=True)
    loss = measure_loss(
        fit, np.zeros((2, 1)), np.array([1.0, 4]), np.array([1.0, 2]), seen=np.array([1, 4])
    )
    assert loss == pytest.approx(-np.log(0.25) - 2 * np.log(0.75))


def test_a_class_that_was_not_seen_costs_much_but_not_everything():
    fit = LinearFit(np.zeros((1, 1)), np.zeros(1), has_converged=True)
    loss = measure_loss(fit, np.zeros((1, 1)), np.array([7.0]), np.ones(1), seen=np.array([1, 4]))
    assert 10 < loss < np.inf


def test_the_scale_is_weighted_and_constants_stay_finite():
    mean, sd = find_scale(np.array([[1.0, 5], [4, 5]]), np.array([2.0, 1]))
    np.testing.assert_allclose(mean, [2, 5])
    np.testing.assert_allclose(sd, [np.sqrt(2), 1])
