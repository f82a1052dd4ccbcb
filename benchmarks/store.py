"""The store: what a run costs to write, on the disk and to read, and what of its signal is kept.

Grids a run of realistic size, lets every brain voxel fluctuate by 0.5 % of its mean, stores it in 8
and in 16 bits and reads clips back. Reading is compared with copying a clip from memory to memory,
which no reader can beat. Memory is the peak of a process that grids and stores the run once.

    python benchmarks/store.py [--out benchmarks/results/store.json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine
from preparation import CASES, N_VOLUMES, ONE_THREAD, REPETITION_TIME_S
from preparation import write_run as write_bold

from neurostorm_bids.grid.normalise import find_statistics
from neurostorm_bids.grid.series import Series, grid_run
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.store import StoredRun, StoreSettings, write_run
from neurostorm_bids.train.clips import ClipDataset

if TYPE_CHECKING:
    from collections.abc import Callable

CASE = "2 mm, voxels coincide"
CLIP_LENGTH = 20
FLUCTUATION = 0.005
N_REPEATS = 15
N_LOADED = 64
N_THREADS = (1, 2, 8)


def measure_seconds(call: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def add_fluctuation(series: Series) -> Series:
    """Replace a run's values by its mean over time and a fluctuation of known size."""
    random = np.random.default_rng(5)
    mean = series.frames.mean(axis=0)
    noise = random.standard_normal(series.frames.shape, dtype=np.float32)
    frames = mean * (1 + np.float32(FLUCTUATION) * noise)
    found = find_statistics(frames, series.clock, clip_negatives=False, name="the run")
    return replace(series, frames=frames, statistics=found)


def correlate(frames: np.ndarray, series: Series) -> dict[str, float]:
    """Correlate every voxel with itself before it was stored; the median and the worst."""
    a = frames - frames.mean(axis=0, dtype=np.float64)
    b = series.frames - series.frames.mean(axis=0, dtype=np.float64)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    r = np.divide((a * b).sum(axis=0), norm, out=np.zeros(norm.shape), where=norm > 0)
    return {"median": float(np.median(r)), "minimum": float(r.min())}


def measure_file(series: Series, path: Path, *, n_bits: int) -> dict[str, Any]:
    """Write a run; its seconds, bytes and correlation."""
    settings = StoreSettings(n_bits=n_bits)
    seconds = [measure_seconds(lambda: write_run(series, path, settings=settings)) for _ in "123"]
    content = path.read_bytes()
    return {
        "write_s": statistics.median(seconds),
        "kb_per_volume": len(content) / len(series.frames) / 1e3,
        "zlib_ratio": len(zlib.compress(content, level=1)) / len(content),
        "correlation": correlate(StoredRun.open(path).load().frames, series),
    }


def measure_reading(series: Series, path: Path) -> dict[str, Any]:
    """Alternate between copying a clip, reading it from memory, and reading it from the store."""
    stored = StoredRun.open(path)
    clip = series.read_clip(0, CLIP_LENGTH)
    starts = np.random.default_rng(6).integers(0, series.n_volumes - CLIP_LENGTH, N_REPEATS)
    samples: dict[str, list[float]] = {"copy_ms": [], "series_ms": [], "store_ms": []}
    for start in starts.tolist():
        for name, call in {
            "copy_ms": clip.copy,
            "series_ms": lambda: series.read_clip(start, CLIP_LENGTH),  # noqa: B023 - called here
            "store_ms": lambda: stored.read_clip(start, CLIP_LENGTH),  # noqa: B023
        }.items():
            samples[name].append(1e3 * measure_seconds(call))
    opening = [1e3 * measure_seconds(lambda: StoredRun.open(path)) for _ in range(N_REPEATS)]
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        "clip_mb": clip.nbytes / 1e6,
        "open_ms": statistics.median(opening),
        **medians,
        "store_over_copy": medians["store_ms"] / medians["copy_ms"],
        "store_over_series": medians["store_ms"] / medians["series_ms"],
    }


def measure_loader(path: Path, n_volumes: int) -> dict[str, dict[str, float]]:
    """Return the clips per second that trainings are fed, by the threads that read them."""
    starts = np.random.default_rng(7).integers(0, n_volumes - CLIP_LENGTH, N_LOADED).tolist()
    order: Any = [SimpleNamespace(run=SimpleNamespace(path=path), starts=(at,)) for at in starts]
    dataset = ClipDataset(order, clip_length=CLIP_LENGTH, open_run=StoredRun.open)

    def load(n_threads: int, *, as_stored: bool) -> None:
        for _ in dataset.stream(range(N_LOADED), workers=n_threads, as_stored=as_stored):
            pass

    rates: dict[str, dict[str, float]] = {}
    for name, as_stored in {"whole, for a CPU": False, "as stored, for a GPU": True}.items():
        rates[name] = {}
        for n_threads in N_THREADS:
            seconds = measure_seconds(partial(load, n_threads, as_stored=as_stored))
            rates[name][f"{n_threads} threads"] = round(N_LOADED / seconds, 1)
    stored = StoredRun.open(path)
    clip = stored.read_stored_clip(0, CLIP_LENGTH)
    sent = (clip.codes, *clip.quantisation[:2], clip.mask_bits)
    rates["MB sent to a GPU"] = {"a clip": round(sum(one.nbytes for one in sent) / 1e6, 2)}
    return rates


def measure_run(bold: Path, mask: Path) -> dict[str, Any]:
    """Grid, store and read a run."""
    start = time.perf_counter()
    gridded = grid(bold, mask)
    grid_s = time.perf_counter() - start
    series = add_fluctuation(gridded)
    paths = {n_bits: bold.with_name(f"{n_bits}.safetensors") for n_bits in (16, 8)}
    files = {
        f"{n_bits} bits": measure_file(series, path, n_bits=n_bits)
        for n_bits, path in paths.items()
    }
    return {
        "grid": list(series.spec.shape),
        "n_source_volumes": N_VOLUMES,
        "n_brain": series.frames.shape[1],
        "source_mb": bold.stat().st_size / 1e6,
        "grid_s": grid_s,
        "files": files,
        "reading": measure_reading(series, paths[8]),
        "clips_per_second": measure_loader(paths[8], series.n_volumes),
    }


def measure_memory(bold: Path, mask: Path) -> dict[str, float]:
    """Peak resident memory of this process after gridding and storing a run once."""
    write_run(grid(bold, mask), bold.with_name("run.safetensors"))
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"prepare_peak_gb": peak * unit_bytes / 1e9}


def grid(bold: Path, mask: Path) -> Series:
    """Grid a run as preparation does."""
    return grid_run(
        bold, GridSpec.published(), repetition_time_s=REPETITION_TIME_S, brain_mask=mask
    )


def measure_in_child(what: str, bold: Path, mask: Path) -> dict[str, Any]:
    """Measure in a fresh process with one thread."""
    child = subprocess.run(
        [sys.executable, __file__, "--measure", what, str(bold), str(mask)],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(child.stdout)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/store.json")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, bold, mask = arguments.measure
        measure = {"run": measure_run, "memory": measure_memory}[what]
        json.dump(measure(Path(bold), Path(mask)), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run_bold.nii.gz", Path(folder) / "run_mask.nii.gz"
        write_bold(*run, CASES[CASE])
        results = {
            "machine": describe_machine("safetensors"),
            "threads": 1,
            **measure_in_child("run", *run),
            **measure_in_child("memory", *run),
        }
    for name, file in results["files"].items():
        print(
            f"{name}: {file['kb_per_volume']:.0f} kB per volume, written in {file['write_s']:.2f} "
            f"s, correlation at least {file['correlation']['minimum']:.5f}"
        )
    reading = results["reading"]
    print(
        f"A clip of {reading['clip_mb']:.0f} MB: {reading['store_ms']:.1f} ms from the store, "
        f"{reading['series_ms']:.1f} from memory, {reading['copy_ms']:.1f} to copy it"
    )
    print(json.dumps(results["clips_per_second"]))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
