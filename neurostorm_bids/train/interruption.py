"""Requests to end: SIGTERM, and the SIGUSR1 that Slurm can send some time before."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass
class EndRequest:
    """Whether a signal asked this process to end."""

    is_made: bool = False


@contextmanager
def watch_signals() -> Iterator[EndRequest]:
    """Note signals that ask the process to end, in place of ending at once.

    Only the main thread can; elsewhere signals do what they did before.
    """
    request = EndRequest()

    def note(*_: object) -> None:
        request.is_made = True

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
