"""How much faster the backbone is than the published path, on a CPU.

    python benchmarks/backbone.py [--threads 1 2] [--clock wall|processor]

The published path is the same network with `operations.REFERENCE`: whole tensors, PyTorch's own
products, and `selective_scan_ref` in every block, laid out as published. Beside it stand ours:
compiled kernels with each instruction set that the processor has, and PyTorch's operations. All run
in one process and in turns, so that a busy machine slows all. A training step is forward and
backward of the whole encoder; the published path, whose autograd takes minutes for it, is measured
on some windows of one block instead. Memory is measured in a process for each. Where the machine is
busy with much else, `--clock processor` measures the time that the processor spent on it, which is
steadier; it says nothing of several threads, so one is used.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from machine import describe_machine
from neighbour import compare_with_neighbour
from torch import Tensor, nn

from neurostorm_bids.kernels.library import LEVEL_VARIABLE, LEVELS, find_library
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.operations import COMPILED, REFERENCE, TORCH, Operations

logger = logging.getLogger(__name__)

OURS_PER_ROUND = 3
"""Forwards of our paths for each of the reference's, which takes many times as long."""
PRODUCTS = 17.53e9
EXPONENTIALS = 274e6
"""What one clip's forward cannot do without: floating-point operations, and exponentials."""
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
BLOCK_GRID = (8, 8, 8, 8)
"""Tokens of the first stage on which the published path's training is measured: 16 windows."""


class Way(NamedTuple):
    """A set of operations and, for compiled kernels, the instruction set."""

    ops: Operations
    level: str = ""

    def start(self) -> None:
        """Let what is computed next be computed in this way."""
        os.environ[LEVEL_VARIABLE] = self.level


class Stopwatch:
    """Measures milliseconds by one of `CLOCKS`."""

    def __init__(self, clock: str) -> None:
        self._read = CLOCKS[clock]

    def __enter__(self) -> Self:
        self._start = self._read()
        return self

    def __exit__(self, *_error: object) -> None:
        self.ms = (self._read() - self._start) * 1e3


def find_ways() -> dict[str, Way]:
    """Return our ways by name, the best first."""
    library = find_library()
    levels = LEVELS[: LEVELS.index(library.best_level) + 1] if library else ()
    compiled = {f"compiled_{level}": Way(COMPILED, level) for level in reversed(levels)}
    return compiled | {"pytorch": Way(TORCH)}


OURS = find_ways()
WAYS = {**OURS, "reference": Way(REFERENCE)}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="Backbone: time and memory on a CPU.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/backbone.json"))
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--training-rounds", type=int, default=3)
    parser.add_argument("--peak-memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--training", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.peak_memory_of:
        print(measure_peak_memory(WAYS[options.peak_memory_of], training=options.training))
        return
    if options.clock == "processor":
        options.threads = [1]
    results = measure_all(options, Stopwatch(options.clock))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    logger.info("%s\nWritten to %s", json.dumps(results, indent=2), options.out)


def measure_all(options: argparse.Namespace, watch: Stopwatch) -> dict[str, Any]:
    """Measure times, memory and errors."""
    backbone, clip = make_model()
    best = next(iter(OURS.values()))
    return {
        "rounds": {"forward": options.rounds, "training": options.training_rounds},
        "what": "encoder of the published base model, one clip of 96 x 96 x 96 x 20, float32",
        "machine": describe_machine(),
        "clock": options.clock,
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "peak_memory_mb_above_weights_and_clip": {
            "forward": {name: start_peak_memory(name) for name in WAYS},
            "training step": {name: start_peak_memory(name, "--training") for name in OURS},
        },
        "relative_error_against_float64": measure_errors(backbone, clip),
        "times": [
            measure_times(backbone, clip, watch, threads=threads, rounds=options.rounds)
            for threads in options.threads
        ],
        "training_steps": [
            measure_training(backbone, clip, watch, threads=threads, rounds=options.training_rounds)
            for threads in options.threads
        ],
        "training_steps_of_16_windows_of_a_block": measure_block_training(backbone, watch),
        "with_one_core_busy": compare_with_neighbour(
            lambda: measure_forward(backbone, clip, best, Stopwatch("wall")), threads=2
        ),
    }


def make_model() -> tuple[Backbone, Tensor]:
    """Return the published base model with random weights, and a random clip."""
    torch.manual_seed(0)
    config = ModelConfig.published()
    return Backbone(config).eval(), torch.randn(1, config.in_chans, *config.img_size)


def measure_times(
    backbone: Backbone, clip: Tensor, watch: Stopwatch, *, threads: int, rounds: int
) -> dict[str, Any]:
    """Return milliseconds of a forward on each path, and how many times as fast ours are."""
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in (*WAYS, "floor")}
    for way in WAYS.values():  # once unmeasured: the first forward finds kernels and memory
        measure_forward(backbone, clip, way, watch)
    for _ in range(rounds):
        times["reference"].append(measure_forward(backbone, clip, WAYS["reference"], watch))
        for _ in range(OURS_PER_ROUND):
            times["floor"].append(measure_floor(threads, watch))
            for name, way in OURS.items():
                times[name].append(measure_forward(backbone, clip, way, watch))
    return {"threads": threads} | summarise(times, against="reference")


def measure_training(
    backbone: Backbone, clip: Tensor, watch: Stopwatch, *, threads: int, rounds: int
) -> dict[str, Any]:
    """Return milliseconds of a forward with its backward on each of our paths."""
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in OURS}
    for _ in range(rounds):
        for name, way in OURS.items():
            times[name].append(measure_step(backbone, clip, way, watch))
    return {"threads": threads} | summarise(times, against="pytorch")


def measure_block_training(
    backbone: Backbone, watch: Stopwatch, *, rounds: int = 3
) -> dict[str, Any]:
    """Return milliseconds of forward and backward of a block, the published path's too."""
    torch.set_num_threads(1)
    block = backbone.layers[0].blocks[0]
    tokens = torch.randn(1, *BLOCK_GRID, backbone.config.embed_dim)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            times[name].append(measure_step(block, tokens, way, watch))
    return {"threads": 1} | summarise(times, against="reference")


def summarise(times: dict[str, list[float]], *, against: str) -> dict[str, float]:
    """Return median and least of each path, and the ratio of medians to one of them."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        f"{against}_over_{name}": round(medians[against] / median, 2)
        for name, median in medians.items()
        if name != against
    }
    return (
        ratios
        | {f"{name}_median_ms": round(median, 1) for name, median in medians.items()}
        | {f"{name}_least_ms": round(min(values), 1) for name, values in times.items()}
    )


def measure_step(module: nn.Module, x: Tensor, way: Way, watch: Stopwatch) -> float:
    """Return the milliseconds of one forward and backward."""
    way.start()
    with watch:
        module(x, ops=way.ops).square().mean().backward()
    module.zero_grad()
    return watch.ms


def measure_forward(backbone: Backbone, clip: Tensor, way: Way, watch: Stopwatch) -> float:
    """Return the milliseconds of one forward."""
    way.start()
    with torch.inference_mode(), watch:
        backbone(clip, ops=way.ops)
    return watch.ms


def measure_floor(threads: int, watch: Stopwatch, *, side: int = 384, repeats: int = 40) -> float:
    """Return the milliseconds of a forward's products and exponentials at this machine's speed.

    The speed is that of one thread on numbers in the cache, times the number of threads.
    """
    square = torch.randn(side, side)
    to = torch.empty_like(square)
    torch.set_num_threads(1)
    with watch:
        for _ in range(repeats):
            torch.mm(square, square, out=to)
    products = watch.ms * PRODUCTS / (repeats * 2 * side**3)
    with watch:
        for _ in range(repeats):
            torch.exp2(square, out=to)
    exponentials = watch.ms * EXPONENTIALS / (repeats * side**2)
    torch.set_num_threads(threads)
    return (products + exponentials) / threads


def measure_errors(backbone: Backbone, clip: Tensor) -> dict[str, float]:
    """Return each path's largest difference to float64, as a share of the largest output."""
    found = {}
    with torch.no_grad():  # inference mode would leave weights behind that cannot be trained
        for name, way in WAYS.items():
            way.start()
            found[name] = backbone(clip, ops=way.ops)
        exact = backbone.double()(clip.double())
        backbone.float()
    return {
        name: float(f"{((out - exact).abs().max() / exact.abs().max()).item():.2g}")
        for name, out in found.items()
    }


def start_peak_memory(name: str, *options: str) -> float:
    """Measure one path's peak memory in a process of its own."""
    command = [sys.executable, __file__, "--peak-memory-of", name, *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak_memory(way: Way, *, training: bool) -> float:
    """Return the MB held at the peak, above weights and clip, by one thread; Linux only."""
    torch.set_num_threads(1)
    backbone, clip = make_model()
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # start a new peak
    for _ in range(2):
        (measure_step if training else measure_forward)(backbone, clip, way, Stopwatch("wall"))
    return round(read_status("VmHWM") - before, 1)


def read_status(field: str) -> float:
    """Return one of the kernel's memory counts of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
