"""When reports are written: for each participant as their last run ends, and again on request."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives import check_output_dir, write_status
from neurostorm_bids.derivatives.dataset import read_dataset_description
from neurostorm_bids.derivatives.status import CALL_STATUS
from neurostorm_bids.errors import SelectionError, UserError
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.inputs.scan import list_participants
from neurostorm_bids.inputs.selection import choose_participants
from neurostorm_bids.report.boilerplate import write_boilerplate
from neurostorm_bids.report.participant import write_participant_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives import RunStatus
    from neurostorm_bids.inputs import SourceDataset
    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.participant.jobs import Job

logger = logging.getLogger(__name__)


class Reporter:
    """Writes what became of the runs of a call, and a participant's report when they are done.

    Parameters
    ----------
    jobs : what is to be done.
    settled : what is known of other runs.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        settled: Sequence[RunStatus],
        options: ParticipantOptions,
        datasets: Sequence[SourceDataset],
    ) -> None:
        self.statuses = list(settled)
        self._options = options
        self._datasets = datasets
        self._n_left = Counter(job.run.participant for job in jobs)
        self._own: dict[str, list[RunStatus]] = {}
        for status in settled:
            self._own.setdefault(status.participant, []).append(status)
        self._reported: set[str] = set()

    def add(self, status: RunStatus) -> None:
        """Take note of a run that ended; report on its participant if it was their last."""
        self.statuses.append(status)
        participant = status.participant
        self._own.setdefault(participant, []).append(status)
        self._n_left[participant] -= 1
        if self._n_left[participant] <= 0:
            self._write_status(self._own[participant], is_whole=False)
            self._report(participant)

    def close(self) -> None:
        """Write the reports that are missing, the methods text, and last the call's status."""
        left = [participant for participant in self._own if participant not in self._reported]
        for participant in left:
            self._write_status(self._own[participant], is_whole=False)
            self._report(participant)
        _tell_methods(self._options.output_dir, self._own)
        self._write_status(self.statuses, is_whole=True)

    def _write_status(self, statuses: Sequence[RunStatus], *, is_whole: bool) -> None:
        options = self._options
        write_status(
            options.output_dir,
            statuses,
            call=options.call,
            bids_dir=options.bids_dir,
            datasets=self._datasets,
            debug=options.debug,
            is_whole=is_whole,
        )

    def _report(self, participant: str) -> None:
        self._reported.add(participant)
        report(self._options.output_dir, participant)


def report(output_dir: Path, participant: str) -> bool:
    """Write a participant's report; whatever goes wrong is logged. Return whether it is there."""
    try:
        write_participant_report(output_dir, participant)
    except Exception as err:
        logger.warning("The report of sub-%s could not be written: %s", participant, err)
        logger.debug("The failure", exc_info=True)
        return False
    return True


def _tell_methods(output_dir: Path, participants: Iterable[str]) -> None:
    """Write the methods text; whatever goes wrong is logged, for the results are there."""
    try:
        write_boilerplate(output_dir, participants)
    except SelectionError as err:
        logger.debug("No methods text: %s", err)
    except Exception as err:  # noqa: BLE001 - as above
        logger.warning("The methods text could not be written: %s", err)


def report_again(output_dir: Path, run_uuid: str) -> None:
    """Write the reports of the participants that a call worked on."""
    for logs in sorted(output_dir.glob(f"sub-*/log/{run_uuid}")):
        report(output_dir, logs.parts[-3].removeprefix("sub-"))


def tell_settled(
    options: ParticipantOptions,
    statuses: Sequence[RunStatus],
    datasets: Sequence[SourceDataset],
) -> None:
    """Write the status files and reports of runs that nothing is to be done for.

    Those are runs that cannot be read, and of finished ones what a call that was killed did not
    come to, the methods text among it. Who was told of as finished before is passed over, unless a
    run failed: then the status of the whole call is written, as where there is something to do.
    """
    settled: dict[str, list[RunStatus]] = {}
    for status in statuses:
        settled.setdefault(status.participant, []).append(status)
    news = {
        participant
        for participant, own in settled.items()
        if not _list_told(options.output_dir, participant) >= {status.run for status in own}
    }
    has_failed = any(status.state == "failed" for status in statuses)
    told = [one for one in statuses if has_failed or one.participant in news]
    write = partial(
        write_status,
        options.output_dir,
        told,
        call=options.call,
        bids_dir=options.bids_dir,
        datasets=datasets,
        debug=options.debug,
    )
    if told:
        write(is_whole=False)
    for participant, own in settled.items():
        is_new = participant in news or any(status.state == "failed" for status in own)
        if is_new or not (options.output_dir / f"sub-{participant}.html").exists():
            report(options.output_dir, participant)
    if told:
        _tell_methods(options.output_dir, news)
        write(is_whole=True)


def _list_told(output_dir: Path, participant: str) -> set[str]:
    """Return the runs that a participant's latest status file says are finished.

    That of a call which did not come to its own status, the last that it writes, says nothing.
    """
    paths = sorted((output_dir / f"sub-{participant}" / "log").glob("*/status.json"))
    if not paths or not (output_dir / "logs" / paths[-1].parent.name / CALL_STATUS).exists():
        return set()
    try:
        runs = read_json_object(paths[-1]).get("Runs")
    except UserError:
        return set()
    told = [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    return {str(run.get("Run")) for run in told if run.get("State") != "failed"}


def rebuild_reports(options: ParticipantOptions) -> int:
    """Write reports or the methods text from what is on the disk; return the exit status.

    Raises
    ------
    SelectionError
        If there are no results, or the filters leave nobody.
    """
    output_dir = options.output_dir
    check_output_dir(output_dir, bids_dir=options.bids_dir)
    if not (output_dir.is_dir() and read_dataset_description(output_dir)):
        raise SelectionError(
            f"There are no results in {output_dir} to report on. Run the participant level first."
        )
    failed = 0
    if options.reports_only:
        labels = choose_participants(list_participants(output_dir), options.selection)
        for label in labels:
            failed += not report(output_dir, label)
        logger.info("%d report(s) written, %d failed", len(labels) - failed, failed)
    if options.boilerplate_only:
        write_boilerplate(output_dir)
    return int(failed > 0) * UserError.exit_status
