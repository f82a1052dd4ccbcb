from __future__ import annotations

import pytest

from neurostorm_bids.errors import DataError, MissingFileError
from neurostorm_bids.inputs import tsv
from neurostorm_bids.inputs.tsv import read_header, read_tsv

PLAIN = "participant_id\tage\nsub-01\t23\nsub-02\tn/a\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "participants.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        PLAIN + "\n\n",
        PLAIN.replace("23", '"23"'),
    ],
    ids=["plain", "byte order mark", "CRLF", "CR", "no last line end", "empty lines", "quoted"],
)
def test_a_table_reads_the_same_however_it_was_saved(write, content):
    table = read_tsv(write(content))
    assert dict(table.columns) == {"participant_id": ["sub-01", "sub-02"], "age": ["23", "n/a"]}
    assert table.lines == [2, 3]
    assert table.notes == ()


def test_only_the_columns_asked_for_are_kept(write):
    table = read_tsv(write(PLAIN), columns={"age", "absent"})
    assert dict(table.columns) == {"age": ["23", "n/a"]}


def test_the_header_alone_is_read_without_looking_at_the_rows(write):
    assert read_header(write(PLAIN + "ragged\n")) == ["participant_id", "age"]


def test_blanks_at_the_ends_of_cells_are_removed_and_noted(write):
    table = read_tsv(write("participant_id\tgroup\nsub-01\tpatient \nsub-02\t patient\n"))
    assert table.columns["group"] == ["patient", "patient"]
    assert table.notes == (
        "participants.tsv: removed blanks at the ends of 2 cell(s) of column 'group'.",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\tb\n1\t2\n1\n", "Expected 2 cells in every row.*found 1 in line 3"),
        ("a\tb\n1\t2\t3\n", "found 3 in line 2"),
        ("", "empty file"),
        ("\n\n", "empty file"),
        ("a\t\n1\t2\n", "none for column 2"),
        ("a\ta\n1\t2\n", r"\['a'\] twice"),
        (b"a\n\xe4\n", "Expected UTF-8"),
        ("a\tb\n".encode("utf-16"), "Expected UTF-8"),
        ('a\tb\n1\t"2\n', "not a table of tab-separated values"),
        ("a\n" + "x" * 200_000 + "\n", "not a table of tab-separated values"),
    ],
)
def test_a_broken_table_is_refused(write, content, words):
    with pytest.raises(DataError, match=words):
        read_tsv(write(content))


def test_a_table_that_is_too_long_is_refused_before_it_is_read(write, monkeypatch):
    monkeypatch.setattr(tsv, "MAX_TSV_BYTES", 10)
    with pytest.raises(DataError, match=f"at most 10 bytes, found {len(PLAIN)}"):
        read_tsv(write(PLAIN))


def test_a_link_that_was_not_fetched_names_the_command(tmp_path):
    path = tmp_path / "participants.tsv"
    path.symlink_to(tmp_path / ".git" / "annex" / "objects" / "absent")
    with pytest.raises(MissingFileError, match="datalad get"):
        read_tsv(path, dataset_root=tmp_path)
