"""The next run is read while the one before it is worked on, and whatever happens stays its own."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from neurostorm_bids.errors import DataError, TemporaryError
from neurostorm_bids.grid.read import Reading
from neurostorm_bids.participant import ahead
from neurostorm_bids.participant.ahead import LookAhead, Step

IN_TURN = Reading(in_thread=True)  # as told; nothing is read here
PATIENCE_S = 60
"""After which a test gives up; none waits for it where all is well."""


class Series:
    """What comes of a run."""

    def __init__(self, run):
        self.run = run


class Reader:
    """Stands in for reading: knows what was begun, where, and what is still held.

    Attributes
    ----------
    errors : what reading a run raises the first time.
    blocked : runs whose reading ends only when it is told to.
    """

    def __init__(self):
        self.calls, self.errors, self.blocked = [], {}, set()
        self.begun = {name: threading.Event() for name in "abc"}
        self.held = weakref.WeakSet()

    def __call__(self, run, grid, reading):
        self.calls.append((run, grid, threading.current_thread().name.startswith("look-ahead")))
        self.begun[run].set()
        while run in self.blocked:
            reading.check()
        if run in self.errors:
            raise self.errors.pop(run)
        series = Series(run)
        self.held.add(series)
        return series


@pytest.fixture
def reader(monkeypatch):
    reader = Reader()
    monkeypatch.setattr(ahead, "bring_run", reader)
    return reader


def look(names):
    return LookAhead([Step(name, 1) for name in names], reading=IN_TURN)


def test_the_next_run_is_read_while_one_is_worked_on(reader):
    with look("abc") as looking:
        for name, following in zip("ab", "bc", strict=True):
            assert looking.bring(name, 1).run == name
            assert reader.begun[following].wait(PATIENCE_S)
        assert looking.bring("c", 1).run == "c"
    assert reader.calls == [("a", 1, False), ("b", 1, True), ("c", 1, True)]


def test_the_run_after_the_next_is_not_read_yet(reader):
    with look("abc") as looking:
        looking.bring("a", 1)
        assert reader.begun["b"].wait(PATIENCE_S)
    assert not reader.begun["c"].is_set()


def test_a_series_that_was_handed_over_is_not_held(reader):
    with look("abc") as looking:
        for name in "abc":
            looking.bring(name, 1)
    gc.collect()
    assert len(reader.held) == 0


def test_without_steps_nothing_is_read_ahead(reader):
    with LookAhead((), reading=IN_TURN) as looking:
        for name in "abc":
            assert looking.bring(name, 1).run == name
    assert [call[2] for call in reader.calls] == [False] * 3


def test_what_goes_wrong_ahead_is_that_runs_alone(reader):
    reader.errors["b"] = DataError("No volume.")
    with look("abc") as looking:
        looking.bring("a", 1)
        assert reader.begun["b"].wait(PATIENCE_S)
        with pytest.raises(DataError, match="No volume"):
            looking.bring("b", 1)
        assert looking.bring("c", 1).run == "c"


@pytest.mark.parametrize("error", [MemoryError(), TemporaryError("No memory.")])
def test_a_run_that_found_no_memory_beside_another_is_tried_again_alone(reader, error):
    reader.errors["b"] = error
    with look("abc") as looking:
        looking.bring("a", 1)
        assert looking.bring("b", 1).run == "b"
        assert looking.bring("c", 1).run == "c"
    assert [call for call in reader.calls if call[0] == "b"] == [("b", 1, True), ("b", 1, False)]


def test_a_step_that_nobody_asks_for_is_given_up(reader):
    """As the second grid of a run that failed on the first."""
    reader.blocked.add("b")
    with look("abc") as looking:
        looking.bring("a", 1)
        assert reader.begun["b"].wait(PATIENCE_S)
        assert looking.bring("c", 1).run == "c"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_what_is_being_read_ends_with_the_work_whatever_ends_that(reader, error):
    reader.blocked.add("b")
    before = set(threading.enumerate())

    def work():
        with look("abc") as looking:
            looking.bring("a", 1)
            assert reader.begun["b"].wait(PATIENCE_S)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    assert set(threading.enumerate()) <= before
    assert len(reader.calls) == 2


def test_grids_of_one_run_are_steps_too(reader):
    steps = [Step("a", 1), Step("a", 2), Step("b", 1)]
    with LookAhead(steps, reading=IN_TURN) as looking:
        assert [looking.bring(*step).run for step in steps] == ["a", "a", "b"]
    assert [call[2] for call in reader.calls] == [False, True, True]
