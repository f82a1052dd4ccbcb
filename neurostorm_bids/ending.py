"""How the command ends when it is told to, and how its helpers end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ToldToEnd(BaseException):
    """A signal asked the process to end; nothing that handles errors may take it for one.

    Attributes
    ----------
    exit_status : 130 for Ctrl-C, 143 for SIGTERM, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


@contextmanager
def end_when_told() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise `ToldToEnd`, once the processes that this one began are told.

    Without that a call would wait until its helpers have finished their runs. SIGTERM would end it
    on the spot, and as the first process of a container it would not even notice. Only the main
    thread can listen to signals; elsewhere they do what they did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise ToldToEnd(number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def end_with_parent() -> None:
    """End this helper as soon as the process that began it is gone, however that ended.

    A pool's helpers would wait for work forever. To be called in a helper when it begins.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
