"""Planes to look at embeddings in."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from neurostorm_bids.group import projections
from neurostorm_bids.group.projections import project_by_neighbours, project_linearly

VECTORS = np.random.default_rng(0).normal(size=(12, 2)) @ np.eye(2, 5)


def put_umap(monkeypatch, program):
    module = ModuleType("umap")
    module.UMAP = program
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setattr(projections, "find_spec", lambda name: name)


def test_the_map_keeps_distances_of_two_dimensional_data():
    plane = project_linearly(VECTORS)
    before = np.linalg.norm(VECTORS[:, None] - VECTORS[None], axis=-1)
    after = np.linalg.norm(plane.points[:, None] - plane.points[None], axis=-1)
    np.testing.assert_allclose(after, before, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 5), (4, 1), (3, 3)])
def test_the_map_of_equal_runs_has_all_points_in_one_place(shape):
    plane = project_linearly(np.ones(shape))
    np.testing.assert_allclose(plane.points, np.zeros((shape[0], 2)), atol=1e-12)
    assert plane.axes[0] == "component 1 (0% of the variance)"


def test_without_umap_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(projections, "find_spec", lambda name: None)  # noqa: ARG005
    assert "pip install umap-learn" in project_by_neighbours(VECTORS, seed=0)


def test_umap_is_asked_for_the_same_plane_every_time(monkeypatch):
    asked = {}

    class Fake:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, vectors):
            return vectors[:, :2]

    put_umap(monkeypatch, Fake)
    plane = project_by_neighbours(VECTORS, seed=3)
    assert plane.name == "UMAP"
    assert plane.points.shape == (12, 2)
    assert asked == {"n_neighbors": 11, "random_state": 3, "n_jobs": 1}


def test_an_umap_that_fails_costs_no_report(monkeypatch):
    put_umap(monkeypatch, None)
    assert "failed (TypeError)" in project_by_neighbours(VECTORS, seed=0)


def test_of_few_runs_there_is_no_umap(monkeypatch):
    put_umap(monkeypatch, None)
    assert "needs 10 runs" in project_by_neighbours(VECTORS[:9], seed=0)
