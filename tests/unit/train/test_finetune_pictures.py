"""ROC curves, and pictures that come out whatever was predicted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from neurostorm_bids.train.finetune_pictures import draw_classification, draw_regression, find_roc

PNG = b"\x89PNG"


def test_a_roc_curve_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, is_positive = rng.integers(0, 8, size=60) / 8, rng.random(60) < 0.4
    alarms, hits = find_roc(scores, is_positive)
    expected = roc_curve(is_positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(alarms, expected[0])
    np.testing.assert_allclose(hits, expected[1])


def test_rows_that_were_not_tested_are_not_drawn():
    truth = np.array([20.0, 30.0, 40.0])
    assert draw_regression(truth, np.array([25.0, np.nan, 35.0]), unit="years").startswith(PNG)


@pytest.mark.parametrize("n_classes", [2, 3, 9])
def test_any_number_of_classes_is_drawn(n_classes):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(n_classes), size=30)
    probabilities[0] = np.nan
    truth = rng.integers(0, n_classes, size=30).astype(float)
    counts = np.eye(n_classes, dtype=int)
    names = [f"class {n}" for n in range(n_classes)]
    png = draw_classification(truth, probabilities, classes=names, confusion=counts)
    assert png.startswith(PNG)
