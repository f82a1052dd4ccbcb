from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs.columns import Column
from neurostorm_bids.train.confounders import ConfoundRegression, TableEncoder, tabulate_columns


def column_of(name, *cells):
    keys = tuple(str(number) for number in range(len(cells)))
    return Column(
        name=name,
        source="participants.tsv",
        level="participant",
        participants=keys,
        keys=keys,
        cells=cells,
        reasons=tuple(None if cell else "no value (n/a)" for cell in cells),
    )


def test_numbers_become_z_scores_of_the_training_rows():
    encoder = TableEncoder.fit(pd.DataFrame({"age": [20.0, 30.0, 40.0]}))
    encoded = encoder.encode(pd.DataFrame({"age": [30.0, 50.0]})).matrix
    np.testing.assert_allclose(encoded, [[0], [20 / np.std([20, 30, 40])]])


def test_words_become_one_centred_column_each():
    encoder = TableEncoder.fit(pd.DataFrame({"site": ["A", "B", "B", "B"]}))
    encoded = encoder.encode(pd.DataFrame({"site": ["A", "B"]})).matrix
    np.testing.assert_allclose(encoded, [[0.75, -0.75], [-0.25, 0.25]])


def test_what_training_does_not_know_counts_as_its_mean_and_is_told():
    table = pd.DataFrame({"age": [20.0, 40.0, np.nan], "site": ["A", "B", None]})
    encoded = TableEncoder.fit(table).encode(
        pd.DataFrame({"age": [np.nan, 20], "site": ["C", "A"]})
    )
    np.testing.assert_allclose(encoded.matrix[0], 0)
    assert encoded.notes[0].startswith("age: 1 of 2 rows have no value")
    assert encoded.notes[1].startswith("site: 1 of 2 rows have no value")


def test_columns_that_do_not_vary_are_dropped():
    table = pd.DataFrame({"a": [1.0, 1], "b": ["x", "x"], "c": [np.nan, np.nan], "d": [1.0, 2]})
    assert TableEncoder.fit(table).encode(table).matrix.shape == (2, 1)


def test_the_effect_of_confounds_is_removed_and_nothing_else():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(40, 9, 80), "site": rng.choice(["A", "B", "C"], 80)})
    signal = rng.normal(size=(80, 3))
    confounded = TableEncoder.fit(table).encode(table).matrix
    signal -= confounded @ np.linalg.lstsq(confounded, signal, rcond=None)[0]
    features = signal + confounded @ rng.normal(size=(confounded.shape[1], 3))
    cleaned = ConfoundRegression.fit(features, table).remove(features, table).matrix
    np.testing.assert_allclose(cleaned, signal, atol=1e-10)


def test_no_confound_that_varies_changes_nothing():
    features = np.random.default_rng(0).normal(size=(5, 2))
    table = pd.DataFrame({"site": ["A"] * 5})
    cleaned = ConfoundRegression.fit(features, table).remove(features, table).matrix
    np.testing.assert_array_equal(cleaned, features)


def test_columns_of_tables_become_numbers_or_words():
    table = tabulate_columns(
        [
            column_of("age", "23", None, "40.5"),
            column_of("sex", "F", "M", None),
            column_of("code", "1", "2", "x"),
        ]
    )
    np.testing.assert_array_equal(table["age"], [23, np.nan, 40.5])
    assert list(table["sex"][:2]) == ["F", "M"]
    assert list(table["code"]) == ["1", "2", "x"]
    assert TableEncoder.fit(table).encode(table).matrix.shape == (3, 1 + 2 + 3)


def test_a_confound_named_twice_is_refused():
    with pytest.raises(UsageError, match="'age' is named twice"):
        tabulate_columns([column_of("age", "1"), column_of("age", "1")])
