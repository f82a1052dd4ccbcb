"""Whatever goes wrong in a run stays in that run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurostorm_bids.errors import DataError, TemporaryError
from neurostorm_bids.options import ParticipantOptions
from neurostorm_bids.participant import work
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

    def predict(job, options, *, progress):  # noqa: ARG001
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
