"""Preparing a run, measured against decompressing its file on the same core.

Makes runs of realistic size and content in a temporary folder, and compares ``grid_run`` with what
no program can do without: reading the file through isal. Times alternate in one process with one
thread; memory is the peak of a process that grids the run once.

    python benchmarks/preparation.py [--out benchmarks/results/preparation.json]
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
from isal import igzip

from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec

if TYPE_CHECKING:
    from collections.abc import Callable

REPETITION_TIME_S = 2.0
N_VOLUMES = 300
N_REPEATS = 7
HEAD_RADIUS = 1.15  # of the brain's
CHUNK_BYTES = 2**20
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")
}


class Case(NamedTuple):
    """A kind of run: its voxels, how the scanner was turned, and what is around the brain."""

    shape: tuple[int, int, int]
    voxel_size_mm: float
    turned_deg: float = 0.0
    has_head: bool = True


CASES = {
    "2 mm, voxels coincide": Case((97, 115, 97), 2.0),
    "2 mm, brain extracted": Case((97, 115, 97), 2.0, has_head=False),
    "3 mm, interpolated": Case((65, 77, 65), 3.0),
    "2 mm, oblique": Case((97, 115, 97), 2.0, turned_deg=7.0),
}


def make_affine(case: Case) -> np.ndarray:
    """Return an affine whose field of view is that of MNI152NLin6Asym, about its centre."""
    angle = np.deg2rad(case.turned_deg)
    affine = np.diag([case.voxel_size_mm] * 3 + [1.0])
    affine[:2, :2] @= [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    centre_mm = np.array([0.0, -18.0, 18.0])
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(case.shape) - 1) / 2)
    return affine


def write_run(bold: Path, mask: Path, case: Case) -> None:
    """Write a run and its brain mask: a brain, and a head and noise around it or nothing."""
    affine = make_affine(case)
    voxels = np.moveaxis(np.indices(case.shape), 0, -1)
    x, y, z = np.moveaxis(voxels @ affine[:3, :3].T + affine[:3, 3], -1, 0).astype(np.float32)
    radius = np.sqrt((x / 68) ** 2 + ((y + 18) / 86) ** 2 + ((z - 8) / 68) ** 2)
    tissue = 9000 + 1500 * np.sin(x / 9) * np.cos(y / 11) + 1000 * np.sin(z / 7)
    head = radius < HEAD_RADIUS
    signal = np.where(radius < 1, tissue, np.where(head, 2500, 0)).astype(np.float32)
    noise_sd = np.where(head, 90, 12).astype(np.float32)
    if not case.has_head:
        signal[radius >= 1] = noise_sd[radius >= 1] = 0

    nib.save(nib.Nifti1Image((radius < 1).astype(np.uint8), affine), mask)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*case.shape, N_VOLUMES))
    header.set_zooms((case.voxel_size_mm,) * 3 + (REPETITION_TIME_S,))
    header.set_xyzt_units("mm", "sec")
    header.set_sform(affine, code=4)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    random = np.random.default_rng(300)
    with igzip.open(bold, "wb", compresslevel=2) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(N_VOLUMES):
            noise = noise_sd * random.standard_normal(case.shape, dtype=np.float32)
            file.write(np.abs(signal + noise).astype(np.int16).tobytes(order="F"))


def read_through(bold: Path) -> None:
    """Decompress a file and throw it away."""
    with igzip.open(bold, "rb") as file:
        while file.read(CHUNK_BYTES):
            pass


def grid_once(bold: Path, mask: Path) -> None:
    """Grid a run as the participant level does."""
    grid_run(bold, GridSpec.published(), repetition_time_s=REPETITION_TIME_S, brain_mask=mask)


def measure_seconds(call: Callable[[], None]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_times(bold: Path, mask: Path) -> dict[str, Any]:
    """Alternate between decompressing and gridding; medians, and all samples behind them."""
    grid_once(bold, mask)
    samples: dict[str, list[float]] = {"decompress_s": [], "grid_s": []}
    for _ in range(N_REPEATS):
        samples["decompress_s"].append(measure_seconds(lambda: read_through(bold)))
        samples["grid_s"].append(measure_seconds(lambda: grid_once(bold, mask)))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    ratios = [
        grid / decompress
        for grid, decompress in zip(samples["grid_s"], samples["decompress_s"], strict=True)
    ]
    return {**medians, "ratio": statistics.median(ratios), "samples": samples}


def measure_memory(bold: Path, mask: Path) -> dict[str, float]:
    """Peak resident memory of this process, before (imports only) and after gridding once."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grid_once(bold, mask)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"imports_gb": before * unit_bytes / 1e9, "peak_gb": after * unit_bytes / 1e9}


def run_child(step: str, name: str, folder: Path) -> dict[str, Any]:
    """Do one step for one case in a fresh process with one thread."""
    child = subprocess.run(
        [sys.executable, __file__, "--step", step, name, str(folder)],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(child.stdout)


def run_step(step: str, name: str, folder: Path) -> dict[str, Any]:
    """Do one step, in the child."""
    bold, mask = folder / "run_bold.nii.gz", folder / "run_mask.nii.gz"
    if step == "write":
        write_run(bold, mask, CASES[name])
        return {"file_mb": bold.stat().st_size / 1e6}
    return {"times": measure_times, "memory": measure_memory}[step](bold, mask)


def measure_case(name: str) -> dict[str, Any]:
    """Make a run and measure it."""
    measured: dict[str, Any] = {"n_volumes": N_VOLUMES, **CASES[name]._asdict()}
    with tempfile.TemporaryDirectory() as folder:
        for step in ("write", "times", "memory"):
            measured |= run_child(step, name, Path(folder))
    return measured


def main() -> None:
    """Measure every case and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "preparation.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, name, folder = arguments.step
        json.dump(run_step(step, name, Path(folder)), sys.stdout)
        return
    cases = {}
    for name in CASES:
        measured = cases[name] = measure_case(name)
        print(
            f"{name}: {measured['grid_s']:.2f} s, {measured['ratio']:.2f} times decompression, "
            f"peak {measured['peak_gb']:.2f} GB"
        )
    from machine import describe_machine  # noqa: PLC0415 - torch would count as memory above

    results = {
        "machine": describe_machine("scipy", "nibabel", "isal"),
        "threads": 1,
        "cases": cases,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
