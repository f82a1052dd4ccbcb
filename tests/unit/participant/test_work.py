"""Whatever goes wrong in a run stays in that run."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from neurostorm_bids.errors import DataError, TemporaryError
from neurostorm_bids.options import ParticipantOptions
from neurostorm_bids.participant import ahead, work
from neurostorm_bids.participant.jobs import Job
from neurostorm_bids.participant.memory import MemoryPlan


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Work on runs whose names say how they end."""
    endings = {
        "good": lambda: ("a warning",),
        "bad": lambda: throw(DataError("No volume.")),
        "large": lambda: throw(MemoryError()),
        "odd": lambda: throw(RuntimeError("a defect")),
    }

    def throw(error):
        raise error

    def predict(job, options, **_):  # noqa: ARG001
        return endings[job.run.label]()

    monkeypatch.setattr(work, "_predict_and_write", predict)
    monkeypatch.setattr(work, "plan_memory", lambda jobs, _: MemoryPlan(list(jobs), 1, []))

    def run(*names, **options):
        values = {"bids_dir": tmp_path, "output_dir": tmp_path, "device": "cpu", **options}
        jobs = [
            Job(SimpleNamespace(label=n, participant="01", path=tmp_path / n), {}, {}, {})
            for n in names
        ]
        return list(work.run_jobs(jobs, ParticipantOptions(**values)))

    return run


def test_one_bad_run_never_stops_the_others(run):
    statuses = run("odd", "bad", "large", "good")
    assert [status.state for status in statuses] == ["failed", "failed", "failed", "done"]
    odd, bad, large, good = statuses
    assert "RuntimeError: a defect" in odd.crash
    assert (bad.exit_status, bad.crash) == (DataError.exit_status, None)
    assert large.exit_status == TemporaryError.exit_status
    assert "Not enough memory for large" in large.message
    assert good.warnings == ("a warning",)


def test_the_first_failure_ends_the_call_if_that_is_asked_for(run):
    statuses = run("good", "bad", "good", stop_on_first_crash=True)
    assert [status.state for status in statuses] == ["done", "failed"]


class Scanner:
    """Runs that are read and predicted by nobody; what was read when is written down.

    Attributes
    ----------
    log : what happened, in order.
    bad : runs that cannot be read.
    seen : whether the reading of the next run had begun before a run was predicted.
    """

    def __init__(self, monkeypatch, tmp_path, *, looks_ahead):
        self.log, self.bad, self.seen = [], set(), {}
        self._begun = {name: threading.Event() for name in "123"}
        self._folder, self._looks_ahead = tmp_path, looks_ahead
        model = SimpleNamespace(grid="grid")
        monkeypatch.setattr(work, "load_models", lambda _: (model,))
        monkeypatch.setattr(ahead, "bring_run", self._read)
        monkeypatch.setattr(work, "_predict_and_write", self._predict)
        monkeypatch.setattr(
            work, "plan_memory", lambda jobs, _: MemoryPlan(list(jobs), 1, [], looks_ahead)
        )

    def _read(self, run, grid, reading):  # noqa: ARG002
        self._begun[run.label].set()
        if run.label in self.bad:
            raise DataError("No volume.")
        return run.label

    def _predict(self, job, options, *, bring, progress):  # noqa: ARG002
        assert bring(job.run, "grid") == job.run.label
        following = self._begun.get(str(int(job.run.label) + 1))
        if following is not None:
            self.seen[job.run.label] = (
                following.wait(60) if self._looks_ahead else following.is_set()
            )
        self.log.append(job.run.label)
        return ()

    def work(self, **options):
        values = {"bids_dir": self._folder, "output_dir": self._folder, "device": "cpu", **options}
        jobs = [
            Job(SimpleNamespace(label=n, participant=n, path=self._folder / n), {0: ""}, {}, {})
            for n in "123"
        ]
        return work.run_jobs(jobs, ParticipantOptions(**values))


def test_the_next_run_is_read_before_one_is_predicted(monkeypatch, tmp_path):
    scanner = Scanner(monkeypatch, tmp_path, looks_ahead=True)
    assert [(one.run, one.state) for one in scanner.work()] == [(n, "done") for n in "123"]
    assert scanner.seen == {"1": True, "2": True}
    assert scanner.log == ["1", "2", "3"]


def test_where_that_is_not_to_be_runs_are_read_in_turn(monkeypatch, tmp_path):
    scanner = Scanner(monkeypatch, tmp_path, looks_ahead=False)
    assert [(one.run, one.state) for one in scanner.work()] == [(n, "done") for n in "123"]
    assert scanner.seen == {"1": False, "2": False}


def test_a_run_that_cannot_be_read_ahead_fails_in_its_turn(monkeypatch, tmp_path):
    scanner = Scanner(monkeypatch, tmp_path, looks_ahead=True)
    scanner.bad.add("2")
    states = [(one.run, one.state, one.message) for one in scanner.work()]
    assert states == [("1", "done", None), ("2", "failed", "No volume."), ("3", "done", None)]


def test_the_first_failure_ends_the_reading_too(monkeypatch, tmp_path):
    scanner = Scanner(monkeypatch, tmp_path, looks_ahead=True)
    scanner.bad.add("1")
    statuses = scanner.work(stop_on_first_crash=True)
    assert [(one.run, one.state) for one in statuses] == [("1", "failed")]
    assert not any(one.name.startswith("look-ahead") for one in threading.enumerate())
