"""What is known of runs before any work."""

from __future__ import annotations

from neurostorm_bids.participant.jobs import plan_jobs
from neurostorm_bids.participant.level import discover

from .conftest import STEM


def plan(options):
    jobs, settled = plan_jobs(discover(options), options)
    assert not jobs
    return {status.run: status.state for status in settled}


def test_a_run_that_cannot_be_used_and_the_same_run_mended_have_one_name(ask, source):
    source.set_time("01", 2000.0)
    before = plan(ask())
    source.set_time("01", 2.0)
    after = plan(ask())
    one, two = (STEM.format(label) for label in ("01", "02"))
    assert before == {one: "failed", two: "skipped"}
    assert after == {one: "skipped", two: "skipped"}


def test_a_folder_that_cannot_be_searched_is_told_by_its_name(ask, source):
    func = source.folder / "sub-01" / "func"
    func.rename(source.folder / "elsewhere")
    func.symlink_to("nowhere")
    assert plan(ask()) == {"sub-01": "failed", STEM.format("02"): "skipped"}
