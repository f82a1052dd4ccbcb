"""The next run is read and prepared while the one before it is predicted."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

from neurostorm_bids.errors import TemporaryError
from neurostorm_bids.grid.bring import bring_run
from neurostorm_bids.grid.read import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.inputs import BoldRun

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """A run, and a grid to bring it to."""

    run: BoldRun
    grid: GridSpec


class EndedError(Exception):
    """Nobody waits for what is being read."""


class LookAhead:
    """Brings runs to grids, one of them ahead in a thread.

    As soon as a step is asked for and done, the next one begins, so that two series are held at
    most: the one that is worked on, and the next. To be used in a ``with`` statement; at its end,
    whatever ends it, what is being read is given up.

    Parameters
    ----------
    steps : in the order in which they will be asked for; some may be passed over.
    reading : how a file is read that was not read ahead.
    """

    def __init__(self, steps: Iterable[Step], *, reading: Reading) -> None:
        self._steps, self._reading = deque(steps), reading
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="look-ahead")
        self._ahead: Future[Series] | None = None  # of the first of the steps
        self._end = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._give_up()
        self._pool.shutdown()

    def bring(self, run: BoldRun, grid: GridSpec) -> Series:
        """Return a run on a grid, and begin with the next step.

        What went wrong ahead is raised here, except for a want of memory: another run was held
        then, and it is tried again. Errors are those of `bring_run`.
        """
        wanted = Step(run, grid)
        while self._steps and self._steps[0] != wanted:
            self._give_up()
            self._steps.popleft()
        series = self._take()
        if series is None:
            series = bring_run(run, grid, self._reading)
        if self._steps:
            self._steps.popleft()
        self._begin()
        return series

    def _begin(self) -> None:
        if self._steps:
            self._end = threading.Event()
            reading = Reading(check=partial(_check, self._end))
            self._ahead = self._pool.submit(bring_run, *self._steps[0], reading)

    def _take(self) -> Series | None:
        """Return what was brought ahead, and keep no hold of it; None if there is nothing."""
        ahead, self._ahead = self._ahead, None
        try:
            return None if ahead is None else ahead.result()
        except (MemoryError, TemporaryError):
            logger.debug("No memory to read a run ahead", exc_info=True)
            return None

    def _give_up(self) -> None:
        self._end.set()
        if self._ahead is not None:
            self._ahead.cancel()
        self._ahead = None


def _check(end: threading.Event) -> None:
    if end.is_set():
        raise EndedError
