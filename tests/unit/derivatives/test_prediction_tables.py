"""Tables say what the prediction says: the numbers read back are the numbers written."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.derivatives.prediction_tables import (
    embed_clips,
    embed_run,
    measure_overlap_s,
    tabulate_predictions,
)
from neurostorm_bids.derivatives.tables import format_table
from neurostorm_bids.model.assessment import Assessment
from neurostorm_bids.model.config import TargetSpec


def read(columns) -> pd.DataFrame:
    return pd.read_csv(StringIO(format_table(columns)), sep="\t", na_values="n/a")


def declared(columns, name):
    return next(column.declare() for column in columns if column.name == name)


def test_the_embedding_of_a_run_is_one_row(make_prediction):
    prediction = make_prediction()
    table = read(embed_run(prediction))
    assert list(table.columns) == [f"dim{i:03d}" for i in range(6)]
    np.testing.assert_array_equal(table.to_numpy(dtype="f4"), prediction.embedding[None])


def test_the_embeddings_of_clips_follow_onset_and_duration(make_prediction):
    prediction = make_prediction()
    table = read(embed_clips(prediction))
    assert list(table.columns[:3]) == ["onset", "duration", "dim000"]
    assert table["onset"].tolist() == [0.0, 16.0, 24.0]
    assert table["duration"].tolist() == [16.0, 16.0, 16.0]
    np.testing.assert_array_equal(
        table.filter(like="dim").to_numpy(dtype="f4"), prediction.clip_embeddings
    )


def test_names_of_features_sort_as_their_numbers(make_prediction):
    prediction = make_prediction()
    prediction.embedding = np.zeros(1200, dtype="f4")
    names = [column.name for column in embed_run(prediction)]
    assert names == sorted(names)
    assert len(set(names)) == 1200


def test_classes_have_a_label_and_a_probability_each(make_prediction, sex):
    prediction = make_prediction(sex)
    columns = tabulate_predictions(prediction)
    table = read(columns)
    assert list(table.columns) == [
        "onset", "duration", "level", "label", "probability_F", "probability_M", "spread",
    ]  # fmt: skip
    assert table["level"].tolist() == ["clip", "clip", "clip", "run"]
    outputs = np.vstack([prediction.clip_outputs, prediction.output])
    probabilities = table[["probability_F", "probability_M"]].to_numpy(dtype="f4")
    np.testing.assert_array_equal(probabilities, outputs)
    assert table["label"].tolist() == [("F", "M")[i] for i in outputs.argmax(axis=1)]
    assert declared(columns, "label")["Levels"] == {
        "F": "The class of column probability_F.",
        "M": "The class of column probability_M.",
    }


def test_the_spread_of_classes_is_that_of_the_runs_label(make_prediction):
    target = TargetSpec(name="group", kind="classification", classes=("a", "b", "c"))
    prediction = make_prediction(target)
    prediction.output = np.array([0.1, 0.2, 0.7], dtype="f4")
    prediction.spread = np.array([1, 2, 3], dtype="f4")
    table = read(tabulate_predictions(prediction))
    assert table["spread"].isna().tolist() == [True, True, True, False]
    assert table["spread"].iloc[-1] == 3


def test_a_value_stands_in_the_targets_unit(make_prediction, age):
    prediction = make_prediction(age)
    columns = tabulate_predictions(prediction)
    table = read(columns)
    assert list(table.columns) == ["onset", "duration", "level", "value", "spread"]
    np.testing.assert_array_equal(
        table["value"].to_numpy(dtype="f4"), [*prediction.clip_outputs[:, 0], prediction.output[0]]
    )
    assert np.float32(table["spread"].iloc[-1]) == prediction.spread[0]
    assert declared(columns, "value")["Units"] == declared(columns, "spread")["Units"] == "years"


@pytest.mark.parametrize(
    ("changes", "column", "unit"),
    [({"unit": "years"}, "zscore", "z-score"), ({"mean": 1.0, "sd": 2.0}, "value", "arbitrary")],
)
def test_without_mean_and_deviation_a_value_is_a_z_score(make_prediction, changes, column, unit):
    target = TargetSpec(name="age", kind="regression", **changes)
    assert declared(tabulate_predictions(make_prediction(target)), column)["Units"] == unit


def test_the_row_of_the_run_spans_it(make_prediction, age):
    last = read(tabulate_predictions(make_prediction(age))).iloc[-1]
    assert (last["onset"], last["duration"], last["level"]) == (0.0, 40.0, "run")


def test_a_clip_of_a_short_run_ends_with_it_and_has_no_spread(make_prediction, age):
    prediction = make_prediction(age, n_volumes=12)
    table = read(tabulate_predictions(prediction))
    assert table["duration"].tolist() == [9.6, 9.6]
    assert table["spread"].isna().all()
    assert measure_overlap_s(prediction) == 0


def test_the_overlap_is_that_of_the_last_two_clips(make_prediction):
    assert measure_overlap_s(make_prediction(n_volumes=50)) == pytest.approx(8.0)
    assert measure_overlap_s(make_prediction(n_volumes=40)) == pytest.approx(0.0)


def test_a_model_without_a_head_predicts_nothing(make_prediction):
    with pytest.raises(ValueError, match="no head"):
        tabulate_predictions(make_prediction())


def test_an_interval_and_a_novelty_stand_on_the_row_of_the_run(make_prediction, age):
    prediction = make_prediction(age)
    plain = format_table(tabulate_predictions(prediction)).splitlines()
    prediction.assessment = Assessment(
        interval=(20.5, 40.5), coverage=0.9, n_participants=50, novelty=1.25, novelty_rank=0.75
    )
    columns = tabulate_predictions(prediction)
    names = ["interval_low", "interval_high", "novelty", "novelty_rank"]
    lines = format_table(columns).splitlines()
    assert lines[0] == "\t".join([plain[0], *names])
    assert lines[1:-1] == ["\t".join([line, *["n/a"] * 4]) for line in plain[1:-1]]
    assert lines[-1] == "\t".join([plain[-1], "20.5", "40.5", "1.25", "0.75"])
    assert declared(columns, "interval_low")["Units"] == "years"
    assert "90 % of persons like the 50" in declared(columns, "interval_low")["Description"]


def test_a_set_names_its_classes(make_prediction, sex):
    prediction = make_prediction(sex)
    prediction.assessment = Assessment(
        is_in_set=(True, True), coverage=0.8, n_participants=50, temperature=1.5
    )
    columns = tabulate_predictions(prediction)
    cells = read(columns)["prediction_set"]
    assert cells.isna().tolist() == [True, True, True, False]
    assert cells.iloc[-1] == "F|M"
    assert "80 % of persons" in declared(columns, "prediction_set")["Description"]
    assert "temperature 1.5" in declared(columns, "level")["Levels"]["run"]
