"""Runs that lie far from the others."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from neurostorm_bids.derivatives.tables import Column
from neurostorm_bids.group.measures import read_tsnr
from neurostorm_bids.group.outliers import find_outliers, score_robustly
from neurostorm_bids.group.report_participants import _summarise_quality


def make_quality(**columns):
    n_rows = len(next(iter(columns.values())))
    columns = {"model": ["one"] * n_rows, "model_sha256": ["a"] * n_rows} | columns
    return [Column(name=name, cells=cells, description="") for name, cells in columns.items()]


def test_a_run_without_confounds_takes_no_motion_from_the_participants_others():
    results = [SimpleNamespace(participant=who, run=run) for who, run in ("ax", "ay", "bz")]
    collection = SimpleNamespace(results=results)
    quality = make_quality(mean_fd=[0.2, np.nan, np.nan])
    found = _summarise_quality(SimpleNamespace(collection=collection, quality=quality))
    motion = found["Mean FD (mm)"]
    assert motion["a"] == pytest.approx(0.2)
    assert np.isnan(motion["b"])


def test_scores_of_normal_values_are_those_of_the_mean_and_standard_deviation():
    values = np.random.default_rng(0).normal(5, 2, 20_000)
    np.testing.assert_allclose(score_robustly(values), (values - 5) / 2, atol=0.1)


def test_one_wild_value_moves_nobody_else():
    values = np.random.default_rng(0).normal(size=50)
    before = score_robustly(values)
    values[np.argmax(values)] = 1e6
    np.testing.assert_allclose(np.sort(score_robustly(values))[:-1], np.sort(before)[:-1])


def test_where_most_values_are_equal_the_others_are_still_far():
    scores = score_robustly(np.array([0.5] * 20 + [9.0]))
    assert scores[-1] > 3.5
    assert np.isnan(score_robustly(np.ones(5))).all()


def test_only_the_worse_side_is_far():
    motion = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 9.0]
    coverage = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 9.0]
    found = find_outliers(make_quality(mean_fd=motion, brain_coverage=coverage))
    assert [one.name for one in found] == ["mean_fd", "brain_coverage"]
    assert found[0].is_far.tolist() == [False] * 6 + [True]
    assert not found[1].is_far.any()


def test_runs_are_compared_with_those_of_their_own_model():
    novelty = [1.0, 1.1, 1.2, 1.3, 1.4, 51.0, 51.1, 51.2, 51.3, 51.4]
    models = ["one"] * 5 + ["two"] * 5
    (found,) = find_outliers(make_quality(novelty=novelty, model=models))
    assert not found.is_far.any()
    assert found.medians[[0, -1]].tolist() == [1.2, 51.2]


@pytest.mark.parametrize("values", [[0.1, 9.0, 0.1, 0.1], [np.nan] * 9, [0.2] * 9])
def test_of_few_or_equal_runs_nothing_is_said(values):
    assert find_outliers(make_quality(mean_fd=values)) == []


def test_the_noise_of_runs_is_read_from_what_tells_of_their_figures(tmp_path):
    figures = tmp_path / "sub-01" / "figures"
    figures.mkdir(parents=True)
    told = {
        "Run": "sub-01_task-rest",
        "ModelSHA256": "abc",
        "Figures": [{"Measures": {}}, {"Measures": {"MedianTSNR": 55.5}}, 3],
    }
    (figures / "sub-01_task-rest_desc-figures_bold.json").write_text(json.dumps(told))
    (figures / "sub-01_task-nback_desc-figures_bold.json").write_text("{")
    (figures / "sub-01_task-rest_desc-mosaic_bold.svg").write_text("<svg/>")
    found = read_tsnr(tmp_path, ["01", "02"])
    assert found == {("sub-01_task-rest", "abc"): 55.5}
