from __future__ import annotations

import os
import signal
import threading

import pytest

from neurostorm_bids.train.interruption import SIGNALS, watch_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_its_old_handler_comes_back(number):
    before = signal.getsignal(number)
    with watch_signals() as end:
        assert not end.is_made
        os.kill(os.getpid(), number)
        assert end.is_made
    assert signal.getsignal(number) is before


def test_outside_the_main_thread_signals_are_left_alone():
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def watch():
        with watch_signals() as end:
            seen.append((end.is_made, [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
