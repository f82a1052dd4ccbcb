"""JSON and TOML that their own readers read back."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.derivatives.texts import (
    format_json,
    format_toml,
    make_writable,
    to_plain,
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = texts | st.integers(-(2**60), 2**60) | st.booleans() | st.floats(allow_nan=False)
values = plain | st.lists(plain) | st.dictionaries(texts, plain | st.lists(plain))
options = st.dictionaries(texts, values | st.dictionaries(texts, values))


@given(options)
def test_toml_is_read_back_as_it_was(content):
    assert tomllib.loads(format_toml(content)) == content


def test_options_become_plain_values():
    content = {
        "path": Path("/a/../in"),
        "runs": ("1", None),
        "n": {"limit": float("inf"), "ok": True},
    }
    plain = {"path": "/in", "runs": ["1", None], "n": {"limit": "inf", "ok": True}}
    assert to_plain(content) == plain


def test_toml_leaves_out_what_has_no_value():
    content = {
        "space": None,
        "labels": ["01", None, "02"],
        "selection": {"task": None, "runs": []},
        "scales": [{"name": "age", "unit": None}],
    }
    assert tomllib.loads(format_toml(content)) == {
        "labels": ["01", "02"],
        "selection": {"runs": []},
        "scales": [{"name": "age"}],
    }


def test_tables_come_after_the_plain_values():
    text = format_toml({"selection": {"space": "X"}, "nprocs": 2})
    assert text == 'nprocs = 2\n\n[selection]\nspace = "X"\n'


def test_a_path_that_is_not_utf8_is_written_all_the_same():
    assert tomllib.loads(format_toml({"path": "a\udcff"})) == {"path": "a?"}


def test_json_is_readable_and_refuses_nan():
    content = {"Größe": [1, 0.1, None]}
    assert json.loads(format_json(content)) == content
    assert "Größe" in format_json(content)
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json({"a": float("nan")})


def test_what_lies_deep_in_another_s_json_is_cut_before_it_grows_many_times():
    text = '{"a": ' + "[" * 400 + "0" + "]" * 400 + ', "b": {"c": [1]}}'
    writable = make_writable(json.loads(text))
    assert writable["b"] == {"c": [1]}
    assert len(format_json(writable)) < 10 * len(text)
