"""Maps from responses to image vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurostorm_bids.retrieval.maps import (
    ContrastiveSettings,
    _contrast,
    fit_contrastive_map,
    fit_ridge_map,
)


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4))
    return vectors @ rng.normal(size=(4, 15)) + 0.1 * rng.normal(size=(60, 15)), vectors


@pytest.mark.parametrize("fit", [fit_ridge_map, fit_contrastive_map])
def test_a_map_predicts_vectors_of_new_responses(planted, fit):
    responses, vectors = planted
    mapped = fit(responses[:40], vectors[:40])(responses[40:])
    assert mapped.shape == (20, 4)
    assert np.corrcoef(mapped.ravel(), vectors[40:].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("fit", [fit_ridge_map, fit_contrastive_map])
def test_units_of_features_do_not_matter(planted, fit):
    responses, vectors = planted
    scale = np.logspace(-3, 3, responses.shape[1])
    expected = fit(responses, vectors)(responses)
    np.testing.assert_allclose(
        fit(responses * scale, vectors)(responses * scale), expected, rtol=1e-6
    )


@pytest.mark.parametrize("fit", [fit_ridge_map, fit_contrastive_map])
def test_vectors_of_one_dimension_are_mapped_too(planted, fit):
    responses, vectors = planted
    assert fit(responses, vectors[:, :1])(responses).shape == (60, 1)


def test_training_lowers_the_contrastive_loss(planted):
    rng = np.random.default_rng(1)
    responses, vectors = planted
    responses = responses + 3 * rng.normal(size=responses.shape)

    def loss(n_steps):
        settings = ContrastiveSettings(n_steps=n_steps, learning_rate=0.01)
        mapped = fit_contrastive_map(responses, vectors, settings=settings)(responses)
        mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
        wanted = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        logits = torch.from_numpy(10 * mapped @ wanted.T)
        return float(_contrast(logits, torch.arange(len(logits))))

    assert loss(100) < 0.98 * loss(0)


def test_the_seed_fixes_the_contrastive_map(planted):
    responses, vectors = planted
    maps = [
        fit_contrastive_map(
            responses, vectors, settings=ContrastiveSettings(n_steps=5, batch_size=16, seed=seed)
        )(responses)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_responses_to_one_image_are_no_wrong_answers_to_each_other():
    image = torch.tensor([0, 0, 1])
    same = torch.tensor([[50.0, 50.0, 0.0], [50.0, 50.0, 0.0], [0.0, 0.0, 50.0]])
    assert float(_contrast(same, image)) == pytest.approx(np.log(2) * 2 / 3, abs=1e-6)
    assert float(_contrast(same, torch.arange(3))) == pytest.approx(np.log(2) * 2 / 3, abs=1e-6)
    only_one = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0], [0.0, 0.0, 50.0]])
    assert float(_contrast(only_one, image)) > 10
    assert float(_contrast(only_one, torch.arange(3))) == pytest.approx(0.0, abs=1e-6)
