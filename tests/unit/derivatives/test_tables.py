"""Cells are read back as they were written."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.derivatives.tables import (
    format_cell,
    make_column_names,
)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_is_read_back_as_it_was(value):
    assert np.float32(float(format_cell(np.float32(value)))) == np.float32(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float64_is_read_back_as_it_was(value):
    assert float(format_cell(value)) == value
    assert float(format_cell(np.float64(value))) == value


@pytest.mark.parametrize("value", [None, math.nan, np.float32("nan"), math.inf, "", " \t\n"])
def test_what_is_missing_is_not_available(value):
    assert format_cell(value) == "n/a"


def test_a_text_cannot_break_the_table():
    assert format_cell("two\tcells\r\nand a line") == "two cells and a line"


def test_names_of_classes_become_plain_and_different_columns():
    labels = ["a b", "a-b", "\t", "x/../y", "é"]
    assert make_column_names("probability", labels) == [
        "probability_a_b",
        "probability_a_b_1",
        "probability_2",
        "probability_x_y",
        "probability_4",
    ]


@given(st.lists(st.text(), unique=True))
def test_columns_are_never_the_same(labels):
    names = make_column_names("probability", labels)
    assert len(set(names)) == len(labels)
