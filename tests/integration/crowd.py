"""Calls of the participant level that begin at the same moment, one process each.

Run as ``python crowd.py BIDS_DIR OUTPUT_DIR MODEL LABEL ...``; a label may be given twice. The
calls are forked from one process that has imported everything, so that they really meet. Nothing
is drawn, for that costs most of the time; the file that tells of the figures is written.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context

import torch

import neurostorm_bids.participant  # noqa: F401 - what the calls would import late
import neurostorm_bids.report.figures as drawn
from neurostorm_bids.cli import main


def run_together(bids_dir: str, output_dir: str, model: str, labels: list[str]) -> list[int]:
    """Run one call per label at once and return their exit statuses."""
    torch.set_num_threads(1)
    drawn.Drawn.add = lambda *_: None
    fork = get_context("fork")
    gate = fork.Barrier(len(labels))

    def call(label: str) -> None:
        gate.wait()
        level = ["participant", "--device", "cpu", "--omp-nthreads", "1", "--model", model]
        os._exit(main([bids_dir, output_dir, *level, "--participant-label", label]))

    processes = [fork.Process(target=call, args=(label,)) for label in labels]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


if __name__ == "__main__":
    folders = sys.argv[1:4]
    sys.exit(any(run_together(*folders, labels=sys.argv[4:])))
