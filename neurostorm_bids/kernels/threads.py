"""Several threads at one piece of work that hands itself out in small parts.

No part waits for another and no thread spins: where a processor is busy with something else, the
others take its parts.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def share_work(work: Callable[[], int], *, n_parts: int) -> None:
    """Call `work` in as many threads as PyTorch may use, this one among them.

    Parameters
    ----------
    work : takes parts until none is left; returns 0, or another number without memory. It must let
        other threads run, as a call into a C library does.
    n_parts : how many parts there are; no more threads than these.

    Raises
    ------
    MemoryError
        When a thread found none.
    """
    n_others = min(torch.get_num_threads(), n_parts) - 1
    pool = _make_pool(os.getpid()) if n_others > 0 else None
    others = [pool.submit(work) for _ in range(n_others)] if pool else []
    statuses = [work()]
    # A thread that has not started by now finds nothing left to take.
    statuses += [other.result() for other in others if not other.cancel()]
    if any(statuses):
        raise MemoryError("No memory for the compiled kernels")


@functools.cache
def _make_pool(process: int) -> ThreadPoolExecutor:
    """Make the threads of a process; a forked child, which inherits none, makes its own."""
    del process
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="neurostorm-kernel")
