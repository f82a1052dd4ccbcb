"""What a processor that is busy with something else costs; Linux only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def compare_with_neighbour(
    measure: Callable[[], float], *, threads: int, rounds: int = 12
) -> dict[str, float]:
    """Return median times with and without a process that never rests on one core.

    Parameters
    ----------
    measure : runs what is measured once, and returns the milliseconds.
    threads : how many threads it may use.
    rounds : measurements of each, in turns.
    """
    torch.set_num_threads(threads)
    neighbour = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    neighbour.start()
    pid = neighbour.pid
    if pid is None:
        raise RuntimeError("Expected the neighbour to run, found that it did not start")
    times: dict[int, list[float]] = {signal.SIGSTOP: [], signal.SIGCONT: []}
    try:
        measure()
        for _ in range(rounds):
            for state, values in times.items():
                os.kill(pid, state)
                values.append(measure())
    finally:
        neighbour.kill()
        neighbour.join()
    alone, beside = (statistics.median(values) for values in times.values())
    return {
        "threads": threads,
        "busy_over_quiet": round(beside / alone, 2),
        "quiet_median_ms": round(alone, 1),
        "busy_median_ms": round(beside, 1),
    }


def _spin() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass
