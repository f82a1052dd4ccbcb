"""When the status and the report of a participant are written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurostorm_bids.audit import audit
from neurostorm_bids.derivatives import RunStatus
from neurostorm_bids.participant import reports
from neurostorm_bids.participant.reports import Reporter

from .conftest import STEM


@pytest.fixture
def reported(monkeypatch):
    """List the participants reported on, in order."""
    found = []
    monkeypatch.setattr(reports, "report", lambda _, participant: found.append(participant))
    return found


def make_job(participant):
    return SimpleNamespace(run=SimpleNamespace(participant=participant))


def tell(participant, state="done", task="rest"):
    run = STEM.format(participant).replace("rest", task)
    return RunStatus(run=run, participant=participant, state=state)


def test_a_participant_is_reported_on_as_their_last_run_ends(ask, reported):
    options = ask()
    jobs = [make_job(participant) for participant in ("01", "02", "01")]
    reporter = Reporter(jobs, [tell("03", "skipped")], options, [])
    status = options.output_dir / "sub-01" / "log" / options.call.run_uuid / "status.json"
    reporter.add(tell("01"))
    assert not reported
    assert not status.exists()
    reporter.add(tell("01", task="nback"))
    assert reported == ["01"]
    assert status.exists()
    reporter.close()
    assert reported == ["01", "03"], "the call ended before the run of 02"
    states = {entry.participant: entry.state for entry in audit(options.output_dir)}
    assert states == {"01": "done", "03": "done"}


def test_what_is_known_beforehand_is_in_the_status_of_whoever_has_runs(ask, reported):
    options = ask()
    reporter = Reporter([make_job("01")], [tell("01", "failed", task="nback")], options, [])
    reporter.add(tell("01"))
    (entry,) = audit(options.output_dir)
    assert (entry.n_done, entry.n_failed) == (1, 1)
    assert reported == ["01"]
