from __future__ import annotations

import json

import pytest

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.inputs.columns import read_column


def write_table(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n")
    return path


def rows_of(*labels):
    return [{"sub": label, "task": "rest"} for label in labels]


@pytest.fixture
def participants(tmp_path):
    write_table(
        tmp_path / "participants.tsv",
        ("participant_id", "age", "sex"),
        ("sub-01", "23", "F"),
        ("sub-02", "n/a", "M"),
        ("sub-03", "40", "M"),
    )
    return tmp_path


def test_every_row_gets_the_value_of_its_participant(participants):
    column = read_column("age", rows_of("03", "01", "03"), roots=[participants])
    assert column.cells == ("40", "23", "40")
    assert column.keys == ("sub-03", "sub-01", "sub-03")
    assert column.reasons == (None, None, None)
    assert (column.level, column.source) == ("participant", "participants.tsv")


def test_what_has_no_value_has_a_reason(participants):
    column = read_column("age", rows_of("01", "02", "04"), roots=[participants])
    assert column.cells == ("23", None, None)
    assert column.reasons == (None, "no value (n/a)", "no row in participants.tsv")
    assert column.notes == ("participants.tsv: 1 participant(s) are not among those of this call.",)


def test_who_has_no_row_was_excluded_or_has_no_run(participants):
    def read(excluded):
        return read_column("age", rows_of("01"), roots=[participants], excluded=excluded).notes

    excluded = "participants.tsv: {} participant(s) are excluded by the filters of this call."
    without = "participants.tsv: {} participant(s) have no usable run."
    assert read(["02", "99"]) == (excluded.format(1), without.format(1))
    assert read([]) == (without.format(2),)
    assert read(["02", "03"]) == (excluded.format(2),)


def test_labels_with_and_without_prefix_are_the_same_participant(tmp_path):
    write_table(
        tmp_path / "participants.tsv", ("participant_id", "age"), ("01", "23"), ("sub-02", "30")
    )
    assert read_column("age", rows_of("01", "02"), roots=[tmp_path]).cells == ("23", "30")


def test_a_row_that_is_repeated_counts_once_and_is_noted(tmp_path):
    write_table(
        tmp_path / "participants.tsv", ("participant_id", "age"), ("sub-01", "23"), ("01", "23")
    )
    column = read_column("age", rows_of("01"), roots=[tmp_path])
    assert column.cells == ("23",)
    assert column.notes == ("participants.tsv: 1 row(s) repeat an earlier one and count once.",)


def test_two_values_of_one_participant_are_refused(tmp_path):
    write_table(
        tmp_path / "participants.tsv", ("participant_id", "age"), ("sub-01", "23"), ("01", "24")
    )
    with pytest.raises(DataError, match=r"'23' in line 2 and '24' in line 3.*session_id"):
        read_column("age", rows_of("01"), roots=[tmp_path])


def test_codes_that_the_sidecar_calls_missing_are_left_out(participants):
    (participants / "participants.json").write_text(
        json.dumps({"age": {"Units": "years", "Levels": {"40.0": "Not recorded"}}})
    )
    column = read_column("age", rows_of("01", "03"), roots=[participants])
    assert column.cells == ("23", None)
    assert column.reasons[1] == "'40' means 'Not recorded'"
    assert column.declaration.unit == "years"


@pytest.mark.parametrize("cell", ["", "NaN", "NA", "N/A"])
def test_other_spellings_of_missing_are_left_out_and_noted(tmp_path, cell):
    write_table(
        tmp_path / "participants.tsv",
        ("participant_id", "age", "sex"),
        ("01", cell, "F"),
        ("02", "3", "M"),
    )
    column = read_column("age", rows_of("01", "02"), roots=[tmp_path])
    assert column.cells == (None, "3")
    assert f"1 cell(s) {cell!r} of 'age' were read as n/a" in column.notes[0]


def test_a_level_called_na_is_a_value(tmp_path):
    write_table(tmp_path / "participants.tsv", ("participant_id", "continent"), ("01", "NA"))
    (tmp_path / "participants.json").write_text(
        json.dumps({"continent": {"Levels": {"NA": "North America"}}})
    )
    assert read_column("continent", rows_of("01"), roots=[tmp_path]).cells == ("NA",)


def test_a_phenotype_with_sessions_gives_each_session_its_value(tmp_path):
    write_table(
        tmp_path / "phenotype" / "bdi.tsv",
        ("participant_id", "session_id", "total"),
        ("sub-01", "ses-1", "10"),
        ("sub-01", "ses-2", "12"),
    )
    rows = [{"sub": "01", "ses": "2"}, {"sub": "01", "ses": "1"}, {"sub": "01", "ses": "3"}]
    column = read_column("total", rows, roots=[tmp_path])
    assert column.cells == ("12", "10", None)
    assert column.reasons[2] == "no row for the session in phenotype/bdi.tsv"
    assert column.keys[:2] == ("sub-01_ses-2", "sub-01_ses-1")
    assert column.level == "session"


def test_a_run_without_session_takes_no_side_between_sessions(tmp_path):
    write_table(
        tmp_path / "phenotype" / "bdi.tsv",
        ("participant_id", "session_id", "total", "sex"),
        ("sub-01", "ses-1", "10", "F"),
        ("sub-01", "ses-2", "12", "F"),
    )
    assert read_column("total", rows_of("01"), roots=[tmp_path]).cells == (None,)
    assert read_column("sex", rows_of("01"), roots=[tmp_path]).cells == ("F",)


def test_sessions_are_read_from_the_table_of_each_participant(tmp_path):
    for label, mood in (("01", "good"), ("02", "bad")):
        write_table(
            tmp_path / f"sub-{label}" / f"sub-{label}_sessions.tsv",
            ("session_id", "mood"),
            ("ses-1", mood),
        )
    (tmp_path / "sessions.json").write_text(json.dumps({"mood": {"Levels": {"good": "fine"}}}))
    rows = [{"sub": "02", "ses": "1"}, {"sub": "01", "ses": "1"}]
    column = read_column("mood", rows, roots=[tmp_path])
    assert column.cells == ("bad", "good")
    assert column.declaration.levels == {"good": "fine"}


def test_the_task_of_a_run_needs_no_table():
    column = read_column("task", [{"sub": "01", "task": "rest"}, {"sub": "01"}], roots=[])
    assert column.cells == ("rest", None)
    assert column.reasons == (None, "no task in the file name")
    assert column.level == "run"


def test_a_column_of_several_tables_is_named_with_its_table(participants):
    write_table(participants / "phenotype" / "iq.tsv", ("participant_id", "age"), ("01", "24"))
    with pytest.raises(UsageError, match="participants:age, phenotype/iq:age"):
        read_column("age", rows_of("01"), roots=[participants])
    for name in ("phenotype/iq:age", "phenotype/iq.tsv:age"):
        assert read_column(name, rows_of("01"), roots=[participants]).cells == ("24",)
    assert read_column("participants:age", rows_of("01"), roots=[participants]).cells == ("23",)


def test_a_colon_in_the_name_of_a_column_is_part_of_it(tmp_path):
    write_table(tmp_path / "participants.tsv", ("participant_id", "Scan: Site"), ("01", "A"))
    assert read_column("Scan: Site", rows_of("01"), roots=[tmp_path]).cells == ("A",)


def test_the_first_root_that_has_the_column_is_read(participants, tmp_path):
    other = tmp_path / "other"
    write_table(other / "participants.tsv", ("participant_id", "iq"), ("01", "100"))
    roots = [participants, other]
    assert read_column("age", rows_of("01"), roots=roots).cells == ("23",)
    assert read_column("iq", rows_of("01"), roots=roots).cells == ("100",)


def test_an_absent_column_lists_those_that_are_there(participants):
    with pytest.raises(UsageError, match=r"age \(participants\), sex.*Did you mean 'age'"):
        read_column("agee", rows_of("01"), roots=[participants])


def test_no_table_at_all_is_told_apart(tmp_path):
    with pytest.raises(UsageError, match="No table for 'age'"):
        read_column("age", rows_of("01"), roots=[tmp_path])


def test_a_table_of_other_participants_is_refused_with_a_hint(tmp_path):
    write_table(tmp_path / "participants.tsv", ("participant_id", "age"), ("1", "23"))
    with pytest.raises(DataError, match=r"None of the 1 participants.*01 and 1 are the same"):
        read_column("age", rows_of("01"), roots=[tmp_path])


def test_a_table_without_participants_is_refused(tmp_path):
    write_table(tmp_path / "participants.tsv", ("subject", "age"), ("1", "23"))
    with pytest.raises(DataError, match="Expected a column participant_id"):
        read_column("age", rows_of("01"), roots=[tmp_path])


@pytest.mark.parametrize(("units", "is_told"), [("", True), ("years", True), ("months", False)])
def test_ages_that_nobody_reaches_are_told_unless_a_unit_explains_them(units, is_told, tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t300\nsub-02\t400\n")
    if units:
        (tmp_path / "participants.json").write_text(f'{{"age": {{"Units": "{units}"}}}}')
    column = read_column("age", [{"sub": "01"}, {"sub": "02"}], roots=[tmp_path])
    assert any("(300 to 400)" in note for note in column.notes) == is_told


def test_a_code_for_a_missing_age_is_told(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t-999\nsub-02\t0\n")
    column = read_column("age", [{"sub": "01"}, {"sub": "02"}], roots=[tmp_path])
    (doubt,) = column.doubts
    assert "1 value(s) of 'age' lie outside 0 to 120 (-999)" in doubt
    assert doubt in column.notes
