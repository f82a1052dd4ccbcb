"""What strangers wrote does not steer the terminal."""

from __future__ import annotations

import logging

from neurostorm_bids.cli import main
from neurostorm_bids.printable import make_printable


def test_what_cannot_be_printed_is_escaped():
    assert make_printable("25.1.\x1b[2J\u202eä 脳\n") == "25.1.\\x1b[2J\\u202eä 脳\\n"


def test_what_is_to_be_kept_stays():
    assert make_printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_a_call_leaves_the_log_of_its_caller_alone(capsys):
    package = logging.getLogger("neurostorm_bids")
    before = package.handlers[:], package.level, package.propagate
    assert main(["no-such-folder", "out", "participant", "-v", "--dry-run"]) == 16
    assert (package.handlers, package.level, package.propagate) == before
    assert "no-such-folder" in capsys.readouterr().err
