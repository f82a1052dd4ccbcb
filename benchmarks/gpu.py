"""How fast the backbone is on a GPU, beside the same network with another scan.

    python benchmarks/gpu.py [--batches 1 8 16 32] [--rounds 20]

Ours is the network with whole blocks in Triton, and the same in a CUDA graph. Beside it stands
PyTorch's eager code around mamba-ssm's scan where that is installed, and around our Triton scan
otherwise. All run in one process and in turns; medians are told. Without a CUDA device there is
nothing to measure, and the exit status is 1; `--toy` goes through the same steps on a CPU, in
Triton's interpreter (TRITON_INTERPRET=1) and with a tiny network, and its times mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from machine import describe_machine
from torch import Tensor
from torch.nn import functional

from neurostorm_bids.errors import MissingFileError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.backends import find_scan
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.operations import Operations, find_triton_operations

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

FLOOR_MS = 0.066
"""One clip's exponentials on the special-function units of an H200: nothing is faster there."""
TOY = {"img_size": (8, 8, 8, 3), "patch_size": (2, 2, 2, 1), "embed_dim": 8, "depths": (1, 1)}
WARM_UP = 3


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="Backbone: time and memory on a GPU.")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--training-batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--toy", action="store_true", help="a tiny network on the CPU")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not (options.toy or torch.cuda.is_available()):
        sys.exit(
            "Expected a CUDA device to measure on, found none. (--toy runs without, for show.)"
        )
    results = measure_all(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    logger.info("%s\nWritten to %s", json.dumps(results, indent=2), options.out)


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure times and memory of all batches."""
    device = torch.device("cpu" if options.toy else "cuda")
    config = ModelConfig.published()
    if options.toy:
        config = dataclasses.replace(config, **TOY)
    backbone, ways = Backbone(config).to(device).eval(), find_ways()
    results: dict[str, Any] = {
        "what": f"encoder of {'a toy' if options.toy else 'the published base model'}, bfloat16",
        "machine": describe_machine("triton"),
        "gpu": None if options.toy else torch.cuda.get_device_name(device),
        "rounds": options.rounds,
        "forward": [],
        "training_step": [],
    }
    for batch in options.batches:
        clips = torch.randn(batch, config.in_chans, *config.img_size, device=device)
        runs = {name: bind_forward(backbone, clips, ops) for name, ops in ways.items()}
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
            if not options.toy:
                runs["triton_graph"] = capture(runs["triton"])
            found = measure(runs, clips, options.rounds)
        found["best_over_floor"] = round(found["best_of_triton_ms"] / batch / FLOOR_MS, 2)
        results["forward"].append(found)
    for batch in options.training_batches:
        clips = torch.randn(batch, config.in_chans, *config.img_size, device=device)
        runs = {name: bind_step(backbone, clips, ops) for name, ops in ways.items()}
        results["training_step"].append(measure(runs, clips, options.rounds))
    return results


def find_ways() -> dict[str, Operations]:
    """Return ours, and what it is compared with."""
    triton = find_triton_operations()
    try:
        return {
            "triton": triton,
            "mamba_ssm": Operations(functional.linear, find_scan("mamba-ssm")),
        }
    except MissingFileError as err:
        logger.info("Compared with eager code around our own scan: %s", err)
        return {"triton": triton, "eager_around_scan": Operations(functional.linear, triton.scan)}


def bind_forward(backbone: Backbone, clips: Tensor, ops: Operations) -> Callable[[], object]:
    """Return a forward without arguments."""
    return lambda: backbone(clips, ops=ops)


def bind_step(backbone: Backbone, clips: Tensor, ops: Operations) -> Callable[[], object]:
    """Return a forward and backward without arguments."""

    def step() -> None:
        with torch.autocast(clips.device.type, dtype=torch.bfloat16):
            found = backbone(clips, ops=ops)
        found.float().square().mean().backward()
        backbone.zero_grad()

    return step


def capture(run: Callable[[], object]) -> Callable[[], object]:
    """Return a run that is recorded once, and repeated without its launches."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def measure(runs: dict[str, Callable[[], object]], clips: Tensor, rounds: int) -> dict[str, Any]:
    """Return the median milliseconds of each, ratios to ours, and the peak memory."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(WARM_UP if clips.is_cuda else 1):
            run()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(measure_once(run, clips.device))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min(value for name, value in medians.items() if name.startswith("triton"))
    (other,) = (value for name, value in medians.items() if not name.startswith("triton"))
    return {
        "batch": len(clips),
        **{f"{name}_median_ms": round(value, 3) for name, value in medians.items()},
        "best_of_triton_ms": round(best, 3),
        "other_over_best_of_triton": round(other / best, 2),
        "peak_memory_mb": {name: measure_peak(run, clips.device) for name, run in runs.items()},
    }


def measure_once(run: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds of one run, by the GPU's own clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last))


def measure_peak(run: Callable[[], object], device: torch.device) -> float | None:
    """Return the MB that PyTorch held at the peak of one run, weights and clips included."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)


if __name__ == "__main__":
    main()
