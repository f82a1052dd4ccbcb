from __future__ import annotations

import json

import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.declarations import (
    NOTHING,
    Declaration,
    parse_number,
    read_declaration,
)


@pytest.fixture
def declare(tmp_path):
    def write(content):
        path = tmp_path / "participants.json"
        path.write_text(json.dumps(content))
        return path

    return write


def test_unit_and_levels_are_read(declare):
    sidecar = declare(
        {
            "age": {"Units": " months "},
            "sex": {"Levels": {"F": "female", "M": {"Description": "male", "TermURL": "x"}}},
        }
    )
    assert read_declaration(sidecar, "age").unit == "months"
    assert read_declaration(sidecar, "sex").levels == {"F": "female", "M": "male"}
    assert read_declaration(sidecar, "weight") is NOTHING


def test_no_sidecar_declares_nothing(tmp_path):
    assert read_declaration(tmp_path / "participants.json", "age") is NOTHING


def test_a_broken_sidecar_is_no_missing_one(tmp_path):
    sidecar = tmp_path / "participants.json"
    sidecar.write_text("{")
    with pytest.raises(DataError, match="Expected JSON"):
        read_declaration(sidecar, "age")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("a text", "does not describe"),
        ({"Units": 3}, "Units"),
        ({"Levels": ["a", "b"]}, "Levels"),
    ],
)
def test_what_cannot_be_read_in_an_entry_is_noted(declare, entry, words):
    declaration = read_declaration(declare({"age": entry}), "age")
    assert (declaration.unit, declaration.levels) == (None, {})
    assert words in declaration.notes[0]


@pytest.mark.parametrize(
    "meaning",
    [
        "missing",
        "Missing data",
        "missing (scan aborted)",
        "Value is missing.",
        "not available",
        "Not collected at this site",
        "unknown",
        "n/a",
        "no answer",
        "Declined to answer",
        "prefer not to say",
        "Don\N{RIGHT SINGLE QUOTATION MARK}t know",
        "  DID   NOT RESPOND ",
    ],
)
def test_a_level_that_says_missing_is_one(meaning):
    declared = Declaration(None, {"-9": meaning, "1": "yes"})
    assert declared.explain_missing("-9") == meaning
    assert declared.explain_missing("-9.0") == meaning
    assert declared.explain_missing("1") is None
    assert declared.explain_missing("9") is None


@pytest.mark.parametrize(
    "meaning",
    ["unknown face", "invalid cue", "missing tooth", "No slice gap", "control", "", "not guilty"],
)
def test_a_level_that_names_a_condition_is_not_missing(meaning):
    assert Declaration(None, {"a": meaning}).explain_missing("a") is None


@pytest.mark.parametrize(("cell", "number"), [("23", 23), ("-.5", -0.5), ("1e2", 100), ("3.", 3)])
def test_numbers_are_read(cell, number):
    assert parse_number(cell) == number


@pytest.mark.parametrize(
    "cell", ["", "nan", "inf", "1e999", "1_000", "2,5", "89+", "0x1", "\u0663"]
)
def test_what_only_resembles_a_number_is_none(cell):
    assert parse_number(cell) is None
