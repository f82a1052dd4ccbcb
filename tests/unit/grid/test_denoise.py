"""Regressing signals out takes these and nothing else, and leaves each voxel its mean."""

from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.grid.denoise import remove_regressors

T, V, K = 80, 9000, 5
ALL = np.ones(T, dtype=bool)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_is_left_is_the_residual_of_least_squares_and_the_mean(rng):
    regressors = rng.normal(size=(T, K)) * [1, 1e-6, 1e4, 3, 2] + 7
    brain = rng.normal(1000, 30, size=(T, V)).astype(np.float32)
    frames = brain.copy()
    assert remove_regressors(frames, regressors, is_fitted=ALL) == K
    design = np.column_stack([np.ones(T), regressors])
    fitted, *_ = np.linalg.lstsq(design, brain.astype(float), rcond=None)
    expected = brain - design @ fitted + brain.mean(axis=0)
    np.testing.assert_allclose(frames, expected, atol=2e-3)
    np.testing.assert_allclose(frames.mean(axis=0), brain.mean(axis=0), rtol=1e-6)


def test_a_planted_artefact_goes_and_the_signal_stays(rng):
    signal = rng.normal(size=(T, V))
    artefact = rng.normal(size=(T, 1))
    artefact -= artefact.mean()
    clean = 500 + signal
    frames = (clean + 50 * artefact * rng.normal(size=V)).astype(np.float32)
    remove_regressors(frames, artefact, is_fitted=ALL)
    correlations = [np.corrcoef(frames[:, v], clean[:, v])[0, 1] for v in range(100)]
    assert min(correlations) > 0.9
    assert np.abs(artefact.T @ (frames - frames.mean(axis=0))).max() < 0.1


def test_censored_volumes_do_not_shape_the_fit(rng):
    regressors = rng.normal(size=(T, 2))
    is_fitted = np.arange(T) % 7 != 0
    frames = (100 + regressors @ rng.normal(size=(2, V))).astype(np.float32)
    frames[~is_fitted] += 1e4
    remove_regressors(frames, regressors, is_fitted=is_fitted)
    np.testing.assert_allclose(frames[is_fitted].std(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(frames[~is_fitted].std(axis=0), 0, atol=2e-2)


def test_constant_and_repeated_regressors_add_nothing(rng):
    regressors = rng.normal(size=(T, 2))
    more = np.column_stack([regressors, regressors.sum(axis=1), np.full(T, 3.0)])
    one, other = (rng.normal(10, 1, size=(T, 50)).astype(np.float32) for _ in range(2))
    other[:] = one
    assert remove_regressors(one, regressors, is_fitted=ALL) == 2
    assert remove_regressors(other, more, is_fitted=ALL) == 2
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_no_regressor_changes_nothing(rng):
    frames = rng.normal(10, 1, size=(T, 5)).astype(np.float32)
    before = frames.copy()
    assert remove_regressors(frames, np.zeros((T, 3)), is_fitted=ALL) == 0
    np.testing.assert_array_equal(frames, before)
