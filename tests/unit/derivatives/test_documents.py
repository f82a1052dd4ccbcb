"""Small files that are only added to."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.documents import (
    IGNORED,
    add_change,
    add_ignored,
    add_models,
    add_participants,
    declare_participants,
)
from neurostorm_bids.errors import OutputError

DAY = date(2025, 1, 31)
labels = st.text("abc012", min_size=1, max_size=4)


@given(st.lists(labels), st.lists(labels))
def test_participants_are_added_once_whoever_adds_them(first, second):
    text = add_participants(add_participants(None, first), second)
    header, *rows = text.splitlines()
    assert header == "participant_id"
    assert sorted(rows) == sorted({f"sub-{label}" for label in first + second})
    assert add_participants(text, first + second) == text


def test_other_columns_and_rows_are_kept():
    text = "age\tparticipant_id\tsex\n30\tsub-02\tF\n\n"
    assert add_participants(text, ["01", "sub-02"]) == text + "n/a\tsub-01\tn/a\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_are_kept_and_a_missing_last_one_is_added(end):
    text = f"participant_id{end}sub-02"
    assert add_participants(text, ["01"]) == f"participant_id{end}sub-02{end}sub-01{end}"


def test_a_byte_order_mark_does_not_hide_the_column():
    assert add_participants("\ufeffparticipant_id\n", ["01"]) == "participant_id\nsub-01\n"


def test_a_table_without_participants_is_not_touched():
    with pytest.raises(OutputError, match="no column participant_id"):
        add_participants("subject\n01\n", ["01"])


def test_the_column_is_declared_and_what_others_declare_is_kept():
    mine = json.loads(declare_participants(None))
    assert mine["Description"]
    assert mine["participant_id"]["Description"]
    theirs = '{"participant_id": {"Description": "x"}, "age": {"Units": "years"}}'
    both = declare_participants(theirs)
    assert json.loads(both) == {**mine, **json.loads(theirs)}
    assert declare_participants(both) == both


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_spoilt_sidecar_of_participants_is_not_touched(text):
    with pytest.raises(OutputError, match="not a JSON object"):
        declare_participants(text)


def test_patterns_are_added_to_those_that_are_there():
    text = add_ignored("mine.txt\nfigures")
    assert text.splitlines() == ["mine.txt", "figures", *(p for p in IGNORED if p != "figures")]
    assert add_ignored(text) == text


def test_data_and_sidecars_are_ignored_together_and_folders_without_a_slash():
    assert "*_embedding.*" in IGNORED
    assert not any(pattern.endswith("/") for pattern in IGNORED)


def test_a_version_is_told_once_above_older_ones():
    text = add_change("0.0.1 2024-01-01\n  - First.\n", today=DAY)
    assert text == (
        f"{__version__} 2025-01-31\n  - Written by neurostorm-bids {__version__}.\n\n"
        "0.0.1 2024-01-01\n  - First.\n"
    )
    assert add_change(text, today=date(2026, 1, 1)) == text


def test_the_readme_names_every_model_once(make_model):
    models = [make_model("a"), make_model("b")]
    text = add_models(add_models(None, models[:1]), models)
    assert text.count("- `a` from `a.ckpt`, SHA-256 `") == 1
    assert text.count("- `b` from `b.ckpt`, SHA-256 `") == 1
    assert add_models(text, models) == text


def test_somebody_elses_readme_is_kept(make_model):
    text = add_models("# My study", [make_model("a")])
    assert text.startswith("# My study\n\n## Models\n\n- `a`")


def test_a_models_name_cannot_break_the_readme(make_model):
    model = make_model("a`\n# b")
    assert "- `a' # b` from" in add_models(None, [model])
