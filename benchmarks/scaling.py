"""How the cost of a forward grows with a clip's volumes, with clips at once, and with channels.

Each case is the published base model with one number changed, on the default backend. Times are
medians, the cases of a series in turn in one process, so that a busy machine slows all alike;
memory is the peak of a fresh process above weights and clips. What must be computed is counted from
the linear layers and scans; time over that count is flat where the cost grows as the work does.

    python benchmarks/scaling.py [--threads 1] [--out benchmarks/results/scaling.json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from backbone import read_status
from machine import describe_machine
from torch import Tensor, nn

from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.backends import choose_backend
from neurostorm_bids.model.config import ModelConfig

BASE = ModelConfig.published()
SPEEDS = {"gflop": 160.0, "exponentials_m": 5000.0}
"""Of a core with AVX-512, per second: they weigh products against exponentials, no more."""


class Case(NamedTuple):
    """What is changed of the base model's clip, batch and channels."""

    n_volumes: int = BASE.clip_length
    batch: int = 1
    channels: int = BASE.embed_dim

    @property
    def config(self) -> ModelConfig:
        """The network of this case."""
        img_size = (*BASE.img_size[:3], self.n_volumes)
        return replace(BASE, img_size=img_size, embed_dim=self.channels)


SERIES: dict[str, list[Case]] = {
    "volumes of a clip": [Case(n_volumes=n) for n in (8, 20, 40, 80)],
    "clips at once": [Case(batch=n) for n in (1, 2, 4)],
    "channels": [Case(channels=n) for n in (12, 24, 36, 48)],
}


def make(case: Case) -> tuple[Backbone, Tensor]:
    """Return a network with random weights, and its clips."""
    torch.manual_seed(0)
    clips = torch.randn(case.batch, case.config.in_chans, *case.config.img_size)
    return Backbone(case.config).eval(), clips


@torch.inference_mode()
def measure_seconds(backbone: Backbone, clips: Tensor) -> float:
    """Return the wall time of a forward."""
    start = time.perf_counter()
    backbone(clips)
    return time.perf_counter() - start


def count_work(case: Case) -> dict[str, float]:
    """Count what a forward cannot do without: operations of its products, and exponentials."""
    config = case.config
    backbone = Backbone(config)
    n_tokens = case.batch * math.prod(
        n // p for n, p in zip(config.img_size, config.patch_size, strict=True)
    )
    products = n_tokens * _count_weights(backbone.patch_embed)
    exponentials = 0
    channels = config.embed_dim
    for stage in backbone.layers:
        products += n_tokens * _count_weights(stage.blocks)
        exponentials += len(stage.blocks) * n_tokens * config.expand * channels * config.d_state
        if stage.downsample is not None:
            n_tokens //= 8
            products += n_tokens * _count_weights(stage.downsample)
            channels *= config.c_multiplier
    return {"gflop": 2 * products / 1e9, "exponentials_m": exponentials / 1e6}


def _count_weights(module: nn.Module) -> int:
    return sum(one.weight.numel() for one in module.modules() if isinstance(one, nn.Linear))


def measure_peak_memory(case: Case) -> float:
    """Return the MB held at the peak, above weights and clips; Linux only."""
    backbone, clips = make(case)
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # start a new peak
    for _ in range(2):
        measure_seconds(backbone, clips)
    return round(read_status("VmHWM") - before, 1)


def measure_in_child(case: Case, *, n_threads: int) -> float | None:
    """Measure memory in a fresh process; None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    words = ["--threads", str(n_threads), "--memory-of", *map(str, case)]
    child = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, check=True, env=os.environ
    )
    return json.loads(child.stdout)


def measure_times(cases: list[Case], *, n_rounds: int) -> list[list[float]]:
    """Return the seconds of every round of each case; the first forward is not counted."""
    made = [make(case) for case in cases]
    for backbone, clips in made:
        measure_seconds(backbone, clips)
    rounds = [[measure_seconds(*one) for one in made] for _ in range(n_rounds)]
    return [list(of_case) for of_case in zip(*rounds, strict=True)]


def measure_all(*, n_rounds: int, n_threads: int) -> dict[str, Any]:
    """Measure all series."""
    results: dict[str, Any] = {}
    for name, cases in SERIES.items():
        times = measure_times(cases, n_rounds=n_rounds)
        floor = [count_floor(case) for case in cases]
        per_floor = [statistics.median(t) / f for t, f in zip(times, floor, strict=True)]
        results[name] = [
            {
                **case._asdict(),
                **{key: round(value, 3) for key, value in count_work(case).items()},
                "forward_ms": round(1e3 * statistics.median(seconds), 1),
                "samples_ms": [round(1e3 * one, 1) for one in seconds],
                "time_over_work": round(ratio / per_floor[0], 3),
                "peak_mb": measure_in_child(case, n_threads=n_threads),
            }
            for case, seconds, ratio in zip(cases, times, per_floor, strict=True)
        ]
        print(json.dumps({name: results[name]}), flush=True)
    return results


def format_table(series: dict[str, list[dict[str, Any]]]) -> str:
    """Return the results as a table in Markdown."""
    columns = ("gflop", "exponentials_m", "forward_ms", "time_over_work", "peak_mb")
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    for name, cases in series.items():
        varied = {"volumes of a clip": "n_volumes", "clips at once": "batch"}.get(name, name)
        rows += [
            [
                f"{case[varied]} {name}",
                *(f"{case[column]:.4g}" if case[column] is not None else "" for column in columns),
            ]
            for case in cases
        ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def count_floor(case: Case) -> float:
    """Return the seconds that the work of a case takes at the speeds of `SPEEDS`."""
    work = count_work(case)
    return sum(work[key] / speed for key, speed in SPEEDS.items())


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "scaling.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(measure_peak_memory(Case(*arguments.memory_of)))
        return
    series = measure_all(n_rounds=arguments.rounds, n_threads=arguments.threads)
    print(format_table(series))
    results = {
        "what": "encoder of the published base model with one number changed, float32",
        "machine": describe_machine(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "backend": choose_backend(torch.device("cpu"), torch.float32, n_states=BASE.d_state),
        "series": series,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
