"""Small files of other people: every defect is an error that a user can read."""

from __future__ import annotations

import json
import os

import pytest

from neurostorm_bids.errors import DataError, DatasetError, MissingFileError, ReadError
from neurostorm_bids.inputs import files
from neurostorm_bids.inputs.files import check_readable, list_names, read_json_object


def test_an_object_is_read_with_and_without_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    for prefix in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(prefix + '{"task": "Übung"}'.encode())
        assert read_json_object(path) == {"task": "Übung"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Expected JSON"),
        (b"", "Expected JSON"),
        (b"\xff\xfe\x00", "Expected JSON"),
        (b"[" * 200_000, "Expected JSON"),
        (b'{"a":' * 200_000, "Expected JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Expected JSON"),
        (b"[1]", "found list"),
        (b"null", "found NoneType"),
    ],
)
def test_what_is_not_an_object_is_the_error_asked_for(content, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_json_object(path, error=DatasetError)


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json_object(path) == {"a": 1}
    path.write_text(json.dumps({"a": 1234567890}))
    with pytest.raises(DataError, match="at most 10 bytes, found 17"):
        read_json_object(path)


def test_a_pipe_is_refused_and_does_not_wait_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="Expected a file"):
        read_json_object(tmp_path / "a.json")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="Expected a file"):
        check_readable(tmp_path)


def test_a_link_to_nothing_names_the_command_that_fetches_it(tmp_path):
    link = tmp_path / "a b.nii.gz"
    link.symlink_to(".git/annex/objects/xx/yy/MD5E-s1--0.nii.gz")
    with pytest.raises(MissingFileError, match=f"datalad get -d {tmp_path} '{link}'"):
        check_readable(link, dataset_root=tmp_path)


def test_a_file_that_is_absent_is_said_to_be_absent(tmp_path):
    with pytest.raises(MissingFileError, match=r"Expected .*absent\.json, found nothing"):
        read_json_object(tmp_path / "absent.json")


def test_a_link_that_runs_in_a_circle_is_a_read_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ReadError, match="cannot be read"):
        check_readable(tmp_path / "a")


def test_names_are_listed_in_natural_order_and_a_file_has_none(tmp_path):
    for name in ("sub-10", "sub-9", "sub-1"):
        (tmp_path / name).touch()
    assert list_names(tmp_path) == ["sub-1", "sub-9", "sub-10"]
    assert list_names(tmp_path / "sub-1") == []


def test_a_folder_that_the_file_system_refuses_is_a_read_error(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(ReadError, match="Permission denied"):
        list_names(tmp_path)
