from __future__ import annotations

import errno
import fcntl
import os

import pytest
from filelock import FileLock, Timeout

from neurostorm_bids.derivatives.locks import hold_lock


def test_a_lock_keeps_others_out_while_it_is_held(tmp_path):
    with hold_lock(tmp_path / "lock"), pytest.raises(Timeout):
        FileLock(tmp_path / "lock", timeout=0, is_singleton=False).acquire()
    with hold_lock(tmp_path / "lock", timeout_s=0):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with caplog.at_level("WARNING", logger="neurostorm_bids"), hold_lock(tmp_path / "lock"):
        pass
    assert "has no locks" in caplog.text


def test_another_error_is_not_taken_for_it(tmp_path):
    with pytest.raises(OSError, match="Is a directory"), hold_lock(tmp_path):
        pass
