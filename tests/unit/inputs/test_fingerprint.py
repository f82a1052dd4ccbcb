"""A fingerprint follows contents, not names or dates."""

from __future__ import annotations

import gzip
import os

import pytest

from neurostorm_bids.errors import ReadError
from neurostorm_bids.inputs.fingerprint import fingerprint_file


def write_gzip(path, content):
    path.write_bytes(gzip.compress(content, compresslevel=0, mtime=0))
    return path


def test_a_copy_with_another_name_and_date_has_the_same_fingerprint(tmp_path):
    one = write_gzip(tmp_path / "one.nii.gz", b"brain" * 1000)
    other = write_gzip(tmp_path / "other.nii.gz", b"brain" * 1000)
    os.utime(other, (1, 1))
    assert fingerprint_file(one) == fingerprint_file(other)


@pytest.mark.parametrize("write", [write_gzip, lambda p, c: (p.write_bytes(c), p)[1]])
def test_one_changed_byte_in_the_middle_changes_the_fingerprint(write, tmp_path):
    content = bytearray(500_000)
    suffix = ".nii.gz" if write is write_gzip else ".nii"
    before = fingerprint_file(write(tmp_path / f"a{suffix}", bytes(content)))
    content[250_000] = 1
    assert fingerprint_file(write(tmp_path / f"b{suffix}", bytes(content))) != before


def test_a_missing_file_is_a_read_error(tmp_path):
    with pytest.raises(ReadError, match=r"absent\.nii"):
        fingerprint_file(tmp_path / "absent.nii")
