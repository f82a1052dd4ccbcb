from __future__ import annotations

import json

import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.columns import Column
from neurostorm_bids.inputs.declarations import Declaration
from neurostorm_bids.inputs.targets import make_target, read_target
from neurostorm_bids.inputs.tsv import read_tsv


def column_of(*cells, level="participant", unit=None, levels=None, name="score"):
    return Column(
        name=name,
        source="participants.tsv",
        level=level,
        participants=tuple(f"{number:02d}" for number in range(len(cells))),
        keys=tuple(f"sub-{number:02d}" for number in range(len(cells))),
        cells=cells,
        reasons=tuple("no value (n/a)" if cell is None else None for cell in cells),
        declaration=Declaration(unit, levels or {}),
    )


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (column_of("a", "b", "a"), "classification"),
        (column_of("1", "2", "2", "1"), "classification"),
        (column_of("23", "45"), "regression"),
        (column_of("1", "2", "3", "3", "1", "2"), "regression"),
        (column_of("1", "1", "2", "2", unit="points"), "regression"),
        (column_of("0", "1", "2", "2", levels={"0": "", "1": "", "2": ""}), "classification"),
        (column_of("0", "1", "2", "5", levels={"5": "top"}), "regression"),
        (column_of(".1", "None", "0.1", levels={"0.1": "", "None": ""}), "classification"),
        (column_of("01", "02", "01", level="run", name="task"), "classification"),
    ],
)
def test_the_kind_is_inferred_from_values_and_sidecar(column, kind):
    assert make_target(column).kind == kind


def test_the_kind_can_be_asked_for():
    column = column_of("1", "2", "3", "3")
    assert make_target(column, kind="classification").classes == ("1", "2", "3")
    assert make_target(column_of("1", "2", "2", "1"), kind="regression").encode()[0] == 1.0


def test_numbers_mixed_with_words_need_the_kind():
    column = column_of("45", "50", "89+", "50")
    with pytest.raises(DataError, match=r"mixes numbers with words \(89\+\)"):
        make_target(column)
    target = make_target(column, kind="regression")
    assert target.values == (45.0, 50.0, None, 50.0)
    assert target.reasons[2] == "'89+' is not a number"


def test_classes_are_encoded_by_their_position_and_what_was_left_out_is_nan():
    target = make_target(column_of("b", None, "a", "b"))
    assert target.classes == ("a", "b")
    np.testing.assert_array_equal(target.encode(), [1, np.nan, 0, 1])
    np.testing.assert_array_equal(target.is_known, [True, False, True, True])


def test_classes_stand_in_the_order_of_the_sidecar_else_of_numbers_else_of_names():
    levels = {"patient": "", "control": ""}
    assert make_target(column_of("control", "patient", "patient", levels=levels)).classes == (
        "patient",
        "control",
    )
    assert make_target(column_of("10", "9", "10", "9")).classes == ("9", "10")
    assert make_target(column_of("run10", "run9", "run9")).classes == ("run9", "run10")


def test_spellings_of_one_number_are_one_class_and_noted():
    target = make_target(column_of("1.0", "2", "1", "2"), kind="classification")
    assert target.classes == ("1", "2")
    assert "1, 1.0 are the same number" in target.notes[0]


def test_classes_that_differ_by_case_or_occur_once_are_noted():
    notes = " ".join(make_target(column_of("control", "Control", "control", "x")).notes)
    assert "differ only by case: Control, control" in notes
    assert "2 class(es) occur only once and cannot be tested: Control, x" in notes


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ((None, None), r"No value of 'score'.*2 x no value \(n/a\)"),
        ((), "there are no rows"),
        (("a", "a", None), r"found only 'a' \(2 participant.*1 x no value"),
        (("a", "b", "c"), "occurs only once"),
        (("7", "7", "7.0"), "Expected different numbers.*found only 7"),
    ],
)
def test_a_target_that_leaves_nothing_to_predict_is_refused(cells, words):
    with pytest.raises(DataError, match=words):
        make_target(column_of(*cells))


def test_a_regression_on_words_is_refused():
    with pytest.raises(DataError, match=r"found no number.*2 x 'a' is not a number"):
        make_target(column_of("a", "b", "a"), kind="regression")


def test_usual_codes_for_missing_are_doubted():
    notes = make_target(column_of("-999", "3", "4", "5")).notes
    assert "-999 occurs in 'score' and may stand for a missing value" in notes[0]


def test_a_number_that_has_a_level_of_its_own_is_noted():
    notes = make_target(column_of("-1", "3.5", "4", levels={"-1": "below range"})).notes
    assert notes == ("-1 ('below range' in the Levels of 'score') is used as a number.",)


def test_the_description_counts_participants_not_rows(tmp_path):
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tgroup\nsub-1\ta\nsub-2\tb\nsub-3\ta\nsub-4\tn/a\n"
    )
    rows = [{"sub": label} for label in "1112334"]
    lines = read_target("group", rows, roots=[tmp_path]).describe()
    assert "3 participant(s) in 2 classes: a 2, b 1." in lines[0]
    assert lines[1] == "Left out: 1 x no value (n/a)."


def test_age_without_sidecar_is_in_years_and_other_units_come_from_the_sidecar(tmp_path):
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tgestation\n1\t20\t210\n2\t30\t280\n3\t25\t275\n"
    )
    (tmp_path / "participants.json").write_text(json.dumps({"gestation": {"Units": "days"}}))
    rows = [{"sub": label} for label in "123"]
    age = read_target("age", rows, roots=[tmp_path])
    assert age.unit == "years"
    assert "mean 25, SD 5 years" in age.describe()[0]
    assert read_target("gestation", rows, roots=[tmp_path]).unit == "days"


@pytest.fixture
def openneuro(shared, tmp_path):
    def place(name):
        for suffix in (".tsv", ".json"):
            source = shared / "realdata" / "participants" / f"{name}_participants{suffix}"
            if source.exists():
                (tmp_path / f"participants{suffix}").write_bytes(source.read_bytes())
        labels = read_tsv(tmp_path / "participants.tsv").columns["participant_id"]
        return tmp_path, [{"sub": label.removeprefix("sub-")} for label in labels]

    return place


def test_the_diagnoses_of_ds000030_are_four_classes(openneuro):
    root, rows = openneuro("ds000030")
    target = read_target("diagnosis", rows, roots=[root])
    assert (target.kind, target.classes) == (
        "classification",
        ("ADHD", "BIPOLAR", "CONTROL", "SCHZ"),
    )
    counts = np.bincount(target.encode().astype(int))
    np.testing.assert_array_equal(counts, [43, 49, 130, 50])


def test_missing_values_of_ds000030_are_left_out_and_a_column_of_ones_is_refused(openneuro):
    root, rows = openneuro("ds000030")
    with pytest.raises(DataError, match=r"found only 1.*x no value \(n/a\)"):
        read_target("rest", rows, roots=[root])
    serial = read_target("ScannerSerialNumber", rows, roots=[root])
    assert serial.classes == ("35343.0", "35426.0")


def test_age_and_group_of_ds000228_parse(openneuro):
    root, rows = openneuro("ds000228")
    age = read_target("Age", rows, roots=[root])
    assert (age.kind, age.unit) == ("regression", None)
    assert np.isfinite(age.encode()).sum() == 155
    assert age.encode().min() == pytest.approx(3.518138261)
    assert age.encode().max() == pytest.approx(39.0)
    group = read_target("Child_Adult", rows, roots=[root])
    assert group.classes == ("adult", "child")
    np.testing.assert_array_equal(np.bincount(group.encode().astype(int)), [33, 122])


def test_names_with_colons_and_blanks_of_ds000228_parse(openneuro):
    root, rows = openneuro("ds000228")
    assert read_target("Scanlog: Scanner", rows, roots=[root]).classes == ("3T1", "3T2")
    pass_fail = read_target("FB_Group", rows, roots=[root])
    assert pass_fail.classes == ("fail", "inc", "pass")
    assert pass_fail.is_known.sum() == 122
