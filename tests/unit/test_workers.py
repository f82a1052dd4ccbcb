"""What helpers log is seen where the call's own log is."""

from __future__ import annotations

import logging
import sys

import pytest

from neurostorm_bids import workers

LOGGER = logging.getLogger("neurostorm_bids.anywhere")


@pytest.fixture
def package(monkeypatch):
    package = logging.getLogger("neurostorm_bids")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    monkeypatch.setattr(package, "handlers", [handler])
    before = package.level
    yield package
    package.setLevel(before)


@pytest.mark.parametrize(
    ("level", "told"),
    [(logging.INFO, ["INFO: written", "WARNING: odd"]), (logging.WARNING, ["WARNING: odd"])],
)
def test_a_helper_tells_what_the_call_would_tell(package, capfd, level, told):
    package.setLevel(level)
    with workers.open_pool(1) as pool:
        for call in (LOGGER.debug, LOGGER.info, LOGGER.warning):
            word = {"debug": "details", "info": "written", "warning": "odd"}[call.__name__]
            pool.submit(call, word).result()
    assert capfd.readouterr().err.splitlines() == told


def test_without_a_log_there_is_none(monkeypatch, capfd):
    monkeypatch.setattr(logging.getLogger("neurostorm_bids"), "handlers", [])
    with workers.open_pool(1) as pool:
        pool.submit(LOGGER.info, "written").result()
    assert capfd.readouterr().err == ""


def test_a_line_takes_the_place_of_a_bar_on_a_terminal():
    class Terminal:
        text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    handler = workers._Handler(terminal)
    handler.handle(logging.makeLogRecord({"msg": "written"}))
    assert terminal.text == "\r\x1b[Kwritten\n"
