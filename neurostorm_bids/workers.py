"""Processes that share the work of a call: they end with it, and log where it does."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from neurostorm_bids.ending import end_with_parent

_PACKAGE = "neurostorm_bids"
_CLEAR_LINE = "\r\x1b[K"


def open_pool(n_workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes, whose log goes to standard error as this one's does.

    They are spawned, for to fork a process that has threads, as torch's do, can lock it up. What
    they log is not sent through this process: a helper that is killed while it sends would leave
    everybody waiting.
    """
    package = logging.getLogger(_PACKAGE)
    formatter = next((handler.formatter for handler in package.handlers), None)
    level = package.level if package.handlers else None
    return ProcessPoolExecutor(
        n_workers,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(level, formatter),
    )


def _begin(level: int | None, formatter: logging.Formatter | None) -> None:
    end_with_parent()
    if level is None:
        return  # nobody has set up the log
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter)
    package = logging.getLogger(_PACKAGE)
    package.handlers[:] = [handler]
    package.setLevel(level)
    package.propagate = False


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes lines; on a terminal in place of a progress bar, which draws itself anew below."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{_CLEAR_LINE}{text}" if self.stream.isatty() else text
