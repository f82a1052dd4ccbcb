"""How much faster the backbone is than the published path, on a CPU.

    python benchmarks/backbone.py [--threads 1 2] [--out benchmarks/results/backbone.json]

The published path is the same network with `operations.REFERENCE`: whole tensors, PyTorch's own
products, and `selective_scan_ref` in every block, laid out as published. Beside it stand ours:
compiled kernels where there are any, and PyTorch's operations. All run in one process and in turns,
so that a busy machine slows all. A training step is forward and backward of the whole encoder; the
published path, whose autograd takes minutes for it, is left out there. Memory is measured in a
process for each.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import describe_machine
from torch import Tensor

from neurostorm_bids.kernels.library import find_library
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.operations import COMPILED, REFERENCE, TORCH, Operations

logger = logging.getLogger(__name__)

OURS = {"compiled": COMPILED, "pytorch": TORCH}
if find_library() is None:
    del OURS["compiled"]
PATHS = {**OURS, "reference": REFERENCE}
OURS_PER_ROUND = 3
"""Forwards of our paths for each of the reference's, which takes many times as long."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="Backbone: time and memory on a CPU.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/backbone.json"))
    parser.add_argument("--training-rounds", type=int, default=3)
    parser.add_argument("--peak-memory-of", choices=PATHS, help=argparse.SUPPRESS)
    parser.add_argument("--training", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.peak_memory_of:
        print(measure_peak_memory(PATHS[options.peak_memory_of], training=options.training))
        return
    backbone, clip = make_model()
    results = {
        "what": "encoder of the published base model, one clip of 96 x 96 x 96 x 20, float32",
        "machine": describe_machine(),
        "peak_memory_mb_above_weights_and_clip": {
            "forward": {name: start_peak_memory(name) for name in PATHS},
            "training step": {name: start_peak_memory(name, "--training") for name in OURS},
        },
        "relative_error_against_float64": measure_errors(backbone, clip),
        "times": [
            measure_times(backbone, clip, threads=threads, rounds=options.rounds)
            for threads in options.threads
        ],
        "training_steps": [
            measure_training(backbone, clip, threads=threads, rounds=options.training_rounds)
            for threads in options.threads
        ],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    logger.info("%s\nWritten to %s", json.dumps(results, indent=2), options.out)


def make_model() -> tuple[Backbone, Tensor]:
    """Return the published base model with random weights, and a random clip."""
    torch.manual_seed(0)
    config = ModelConfig.published()
    return Backbone(config).eval(), torch.randn(1, config.in_chans, *config.img_size)


def measure_times(
    backbone: Backbone, clip: Tensor, *, threads: int, rounds: int
) -> dict[str, float]:
    """Return milliseconds of a forward on each path, and how many times as fast ours are."""
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in PATHS}
    for ops in PATHS.values():  # once unmeasured: the first forward finds kernels and memory
        measure_forward(backbone, clip, ops)
    for _ in range(rounds):
        times["reference"].append(measure_forward(backbone, clip, REFERENCE))
        for _ in range(OURS_PER_ROUND):
            for name, ops in OURS.items():
                times[name].append(measure_forward(backbone, clip, ops))
    return {"threads": threads} | summarise(times, against="reference")


def measure_training(
    backbone: Backbone, clip: Tensor, *, threads: int, rounds: int
) -> dict[str, float]:
    """Return milliseconds of a forward with its backward on each of our paths."""
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in OURS}
    for _ in range(rounds):
        for name, ops in OURS.items():
            times[name].append(measure_step(backbone, clip, ops))
    return {"threads": threads} | summarise(times, against="pytorch")


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


def measure_step(backbone: Backbone, clip: Tensor, ops: Operations) -> float:
    """Return the milliseconds of one forward and backward."""
    start = time.perf_counter()
    backbone(clip, ops=ops).square().mean().backward()
    elapsed = (time.perf_counter() - start) * 1e3
    backbone.zero_grad()
    return elapsed


def measure_forward(backbone: Backbone, clip: Tensor, ops: Operations) -> float:
    """Return the milliseconds of one forward."""
    with torch.inference_mode():
        start = time.perf_counter()
        backbone(clip, ops=ops)
        return (time.perf_counter() - start) * 1e3


def measure_errors(backbone: Backbone, clip: Tensor) -> dict[str, float]:
    """Return each path's largest difference to float64, as a share of the largest output."""
    with torch.inference_mode():
        found = {name: backbone(clip, ops=ops) for name, ops in PATHS.items()}
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


def measure_peak_memory(ops: Operations, *, training: bool) -> float:
    """Return the MB held at the peak, above weights and clip, by one thread; Linux only."""
    torch.set_num_threads(1)
    backbone, clip = make_model()
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # start a new peak
    for _ in range(3):
        (measure_step if training else measure_forward)(backbone, clip, ops)
    return round(read_status("VmHWM") - before, 1)


def read_status(field: str) -> float:
    """Return one of the kernel's memory counts of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
