"""Charts as Plotly reads them."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from neurostorm_bids.group.chart_parts import MAX_POINTS, plain, tell_thinning, thin
from neurostorm_bids.group.charts import (
    chart_classification,
    chart_cmc,
    chart_probabilities,
    chart_values,
)
from neurostorm_bids.group.outliers import Measured
from neurostorm_bids.group.pictures import Colouring
from neurostorm_bids.group.projections import project_linearly
from neurostorm_bids.group.report_map import chart_map
from neurostorm_bids.group.report_quality import chart_scores
from neurostorm_bids.train.metrics import bin_calibration, measure_classification

RANDOM = np.random.default_rng(0)
N = 40
TRUTH = RANDOM.integers(0, 3, N).astype(float)
PROBABILITIES = RANDOM.dirichlet(np.ones(3), N)
NUMBERS = RANDOM.normal(50, 9, N)


def make_values(**changes):
    arguments = {
        "predicted": NUMBERS,
        "truth": NUMBERS + 1,
        "intervals": np.stack([NUMBERS - 3, NUMBERS + 4], axis=1),
        "keys": [f"sub-{n}" for n in range(N)],
        "name": "age",
        "unit": "years",
        "has_same_unit": True,
    } | changes
    return chart_values(
        arguments.pop("predicted"), arguments.pop("truth"), arguments.pop("intervals"), **arguments
    )


def make_charts():
    far = np.arange(N) == 3
    measured = Measured("mean_fd", NUMBERS, np.where(far, 99.0, 0.0), NUMBERS, far)
    return {
        "values": make_values(),
        "values without truth": make_values(truth=np.full(N, np.nan)),
        "classes": chart_probabilities(PROBABILITIES, TRUTH, classes=["a", "b", "c"]),
        "two classes": chart_probabilities(PROBABILITIES[:, :2], TRUTH, classes=["a", "b"]),
        "classification": chart_classification(
            TRUTH, PROBABILITIES, classes=["a", "b", "c"], confusion=np.eye(3, dtype=int).tolist()
        ),
        "cmc": chart_cmc({"one": [0.5, 1.0], "two": [0.2, 0.4]}),
        "scores": chart_scores([measured], [f"sub-{n}" for n in range(N)]),
    }


@pytest.mark.parametrize("name", make_charts())
def test_plotly_knows_all_that_a_chart_says(name):
    chart = make_charts()[name]
    go.Figure(chart)
    json.dumps(chart, allow_nan=False)


def test_bars_reach_from_one_end_of_the_interval_to_the_other():
    points = make_values()["data"][-1]
    assert points["error_y"]["array"] == [4.0] * N
    assert points["error_y"]["arrayminus"] == [3.0] * N
    assert "interval" in points["text"][0]


def test_points_without_interval_have_no_bar():
    points = make_values(intervals=np.full((N, 2), np.nan))["data"][-1]
    assert "error_y" not in points
    assert "interval" not in points["text"][0]


def test_every_prediction_is_in_one_bar():
    bars, outline, *_ = make_values()["data"]
    assert sum(bars["y"]) == N
    assert sum(outline["y"]) == 2 * N


def test_bins_are_those_of_the_calibration_error():
    bins = bin_calibration(TRUTH, PROBABILITIES)
    error = sum(one.n * abs(one.probability - one.share_true) for one in bins) / N
    measured = measure_classification(TRUTH, PROBABILITIES, np.ones((1, N)))["calibration_error"]
    assert error == pytest.approx(measured[0])


def test_of_too_many_points_some_are_drawn_and_it_is_said():
    places = thin(10 * MAX_POINTS)
    assert len(places) == MAX_POINTS
    assert places[[0, -1]].tolist() == [0, 10 * MAX_POINTS - 1]
    assert "5,000 of 50,000 runs" in tell_thinning(10 * MAX_POINTS, "runs")
    assert thin(3).tolist() == [0, 1, 2]
    assert tell_thinning(3, "runs") == ""


def test_a_map_has_numbers_or_codes_of_names_for_each_point():
    vectors = RANDOM.normal(size=(3, 4))
    colourings = [Colouring("age", (1.0, None, 3.0)), Colouring("<b>", ("x", None, "<i>"))]
    chart = chart_map([project_linearly(vectors)], colourings, texts=["a", "b", "c"])
    age, other = chart["colourings"]
    assert age["numbers"] == [1.0, None, 3.0]
    assert other == {
        "label": "<b>",
        "title": "&lt;b&gt;",
        "names": ["&lt;i&gt;", "x"],
        "codes": [1, -1, 0],
    }


def test_texts_of_strangers_are_no_tags_in_a_chart():
    assert plain('<a href="x">&') == '&lt;a href="x"&gt;&amp;'
    chart = make_values(keys=["<b>"] * N, name="<a>", unit="<i>")
    texts = json.dumps(chart).replace("<br>", "").replace("<extra>", "").replace("</extra>", "")
    assert "<" not in texts
