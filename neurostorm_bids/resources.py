"""CPU, memory and GPU memory of a call over time, as a table and a plot beside its log."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil

from neurostorm_bids.derivatives.atomic import write_files
from neurostorm_bids.derivatives.tables import Column, format_table
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

STEM = "resources"
INTERVAL_S = 0.5
MAX_SAMPLES = 2000
"""When there are so many, every two become one, and samples are taken half as often."""


class Sample(NamedTuple):
    """What this process and those it started used at a time.

    ``gpu_mb`` is what is in use on all GPUs that this process can see, by others too; None without.
    """

    seconds: float
    cpu_percent: float
    memory_mb: float
    n_processes: int
    gpu_mb: float | None


@contextmanager
def monitor_resources(
    find_folder: Callable[[], Path], *, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """Take samples while the body runs, then write ``resources.tsv``, ``.json`` and ``.svg``.

    Parameters
    ----------
    find_folder : says at the end where to write, ``logs/<run_uuid>`` in the output folder; nothing
        is written where there is no such folder.
    interval_s : between samples, at first.
    """
    samples: list[Sample] = []
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(samples, stop, interval_s), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        folder = find_folder()
        if folder.parent.parent.is_dir() and samples:
            try:
                write_resources(folder, samples)
            except OutputError as err:
                logger.warning("The table of resources could not be written: %s", err)


def write_resources(folder: Path, samples: Sequence[Sample]) -> None:
    """Write samples as a table, its sidecar and a plot."""
    columns = _tabulate(samples)
    contents: dict[Path, str | bytes] = {
        folder / f"{STEM}.tsv": format_table(columns),
        folder / f"{STEM}.json": format_json({c.name: c.declare() for c in columns}),
        folder / f"{STEM}.svg": plot_resources(samples),
    }
    write_files(contents, scratch=folder.parent)
    logger.info("Wrote logs/%s/%s.tsv", folder.name, STEM)


def plot_resources(samples: Sequence[Sample]) -> bytes:
    """Return an SVG with a panel each for CPUs, memory and, where there is one, GPU memory."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    minutes = [sample.seconds / 60 for sample in samples]
    panels = [
        ("CPUs in use", [sample.cpu_percent / 100 for sample in samples]),
        ("memory, GB", [sample.memory_mb / 1000 for sample in samples]),
    ]
    if any(sample.gpu_mb is not None for sample in samples):
        panels.append(("GPU memory, GB", [(sample.gpu_mb or 0) / 1000 for sample in samples]))
    figure = Figure(figsize=(8, 1.6 * len(panels)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, values) in zip(axes, panels, strict=True):
        ax.plot(minutes, values, color="#1f4e79", linewidth=1)
        ax.set_ylabel(name)
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes since the start")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _watch(samples: list[Sample], stop: threading.Event, interval_s: float) -> None:
    """Append samples until told to stop; keep their number within bounds."""
    started = time.monotonic()
    processes: dict[int, psutil.Process] = {}
    is_over = False
    while True:
        samples.append(_take_sample(processes, time.monotonic() - started))
        if is_over:
            return
        if len(samples) >= MAX_SAMPLES - 1:
            samples[:] = thin_out(samples)
            interval_s *= 2
        is_over = stop.wait(interval_s)


def thin_out(samples: Sequence[Sample]) -> list[Sample]:
    """Make one of every two samples: the later time, the larger of each amount."""
    return [
        Sample(
            seconds=second.seconds,
            cpu_percent=max(first.cpu_percent, second.cpu_percent),
            memory_mb=max(first.memory_mb, second.memory_mb),
            n_processes=max(first.n_processes, second.n_processes),
            gpu_mb=None if second.gpu_mb is None else max(first.gpu_mb or 0, second.gpu_mb),
        )
        for first, second in zip(samples[::2], samples[1::2], strict=False)
    ]


def _take_sample(processes: dict[int, psutil.Process], seconds: float) -> Sample:
    """Measure this process and its children; `processes` keeps what CPU time is counted from."""
    own = psutil.Process()
    found = {process.pid: process for process in (own, *own.children(recursive=True))}
    for pid in set(processes) - set(found):
        del processes[pid]
    cpu_percent = memory = 0.0
    for pid, process in found.items():
        known = processes.setdefault(pid, process)
        try:
            cpu_percent += known.cpu_percent(interval=None)
            memory += known.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            processes.pop(pid, None)
    return Sample(
        seconds=round(seconds, 1),
        cpu_percent=round(cpu_percent, 1),
        memory_mb=round(memory / 1e6, 1),
        n_processes=len(found),
        gpu_mb=_measure_gpus_mb(),
    )


def _measure_gpus_mb() -> float | None:
    """Return the memory in use on the GPUs; None before torch has opened one."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    in_use = 0
    for device in range(cuda.device_count()):
        free, total = cuda.mem_get_info(device)
        in_use += total - free
    return round(in_use / 1e6, 1)


def _tabulate(samples: Sequence[Sample]) -> list[Column]:
    about = {
        "seconds": ("Since the start of the level.", "s"),
        "cpu_percent": ("Of all processes together since the last sample; 100 is one CPU.", "%"),
        "memory_mb": ("Resident memory; what processes share counts in each.", "MB"),
        "n_processes": ("This process and those it started.", None),
        "gpu_mb": ("In use on all GPUs that are visible, by other programs too.", "MB"),
    }
    return [
        Column(
            name=name,
            cells=[getattr(sample, name) for sample in samples],
            description=description,
            unit=unit,
        )
        for name, (description, unit) in about.items()
    ]
