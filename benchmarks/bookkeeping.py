"""What a call over many participants costs beside the work itself: start-up, scan, files, memory.

Writes a few small runs and gives every participant one of them under a name of their own (hard
links where the disk knows them), then runs the participant level in fresh processes, with 25 to
200 participants. Each part of a call is timed without the parts that it calls, so that they add up
to the wall time; memory is looked at after every run. Then the same call again, with nothing left
to do, and the group level; last the scan alone with ten times as many.

    python benchmarks/bookkeeping.py [--out benchmarks/results/bookkeeping.json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

N_PARTICIPANTS = (25, 50, 100, 200)
N_SCANNED = 2000
N_WRITTEN = 5
N_VOLUMES = 60
SETTLED = 0.2
"""Of the runs, after which memory is expected to grow no more."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Meter:
    """Seconds of each part of a call, without the parts that it calls itself.

    Attributes
    ----------
    seconds : by part.
    memory_mb : resident, after each run.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory_mb: list[float] = []
        self._inner = [0.0]

    def watch(self, module: ModuleType, name: str, part: str, *, ends_run: bool = False) -> None:
        """Time every call of a module's function, and look at the memory after it if asked to."""
        function: Callable[..., Any] = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any function
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                own = whole - self._inner.pop()
                self._inner[-1] += whole
                self.seconds[part] = self.seconds.get(part, 0.0) + own
                if ends_run:
                    self.memory_mb.append(psutil.Process().memory_info().rss / 1e6)

        setattr(module, name, timed)


def write_dataset(folder: Path, n_participants: int) -> None:
    """Write a few participants, and as many others as it takes that share their images."""
    from neurostorm_bids.demo_data import write_cohort

    written = folder / "written"
    if not written.exists():
        write_cohort(written, n_people=N_WRITTEN, n_volumes=N_VOLUMES)
    dataset = folder / "fmriprep"
    shutil.rmtree(dataset, ignore_errors=True)
    dataset.mkdir()
    shutil.copy(written / "dataset_description.json", dataset)
    rows = ["participant_id\tage"]
    for number in range(n_participants):
        label, model = f"sub-{number:05d}", f"sub-{number % N_WRITTEN + 1:02d}"
        func = dataset / label / "func"
        func.mkdir(parents=True)
        rows.append(f"{label}\t{20 + number % 60}")
        for path in (written / model / "func").iterdir():
            link_or_copy(path, func / path.name.replace(model, label))
    (dataset / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def link_or_copy(path: Path, other: Path) -> None:
    """Give a file a second name, or make a copy where the disk has no second names."""
    with suppress(OSError):
        os.link(path, other)
        return
    shutil.copy(path, other)


def measure_call(arguments: list[str]) -> dict[str, Any]:
    """Run the participant level in this process, and return what its parts cost."""
    from neurostorm_bids.cli import main
    from neurostorm_bids.participant import level, work

    meter = Meter()
    meter.watch(level, "load_models", "models")
    meter.watch(level, "discover", "scan")
    meter.watch(level, "plan_jobs", "plan")
    meter.watch(level, "write_dataset_files", "dataset files")
    meter.watch(level, "write_status", "status files")
    meter.watch(work, "write_run", "results")
    meter.watch(work, "run_job", "work", ends_run=True)
    start_up = time.time() - psutil.Process().create_time()
    start = time.perf_counter()
    status = main(arguments)
    whole = time.perf_counter() - start
    if status != 0:
        raise RuntimeError(f"The call ended with status {status}: {' '.join(arguments)}")
    parts = {"start-up": start_up, **meter.seconds}
    parts["rest"] = whole - sum(meter.seconds.values())
    measured: dict[str, Any] = {"seconds": {name: round(own, 4) for name, own in parts.items()}}
    if memory := meter.memory_mb:
        settled = memory[int(SETTLED * len(memory)) :]
        measured |= {
            "memory_settled_mb": round(settled[0], 1),
            "memory_end_mb": round(settled[-1], 1),
            "memory_peak_mb": round(max(memory), 1),
        }
    return measured


def run_child(step: str, *arguments: str) -> dict[str, Any]:
    """Run a step of this program in a fresh process."""
    start = time.perf_counter()
    child = subprocess.run(
        [sys.executable, __file__, "--step", step, *arguments],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(child.stderr.decode(errors="replace"))
    return {**json.loads(child.stdout or b"{}"), "wall_s": round(time.perf_counter() - start, 3)}


def run_step(step: str, arguments: list[str]) -> dict[str, Any]:
    """Do one step, in the child."""
    if step == "participant":
        return measure_call(arguments)
    if step == "models":
        from neurostorm_bids.demo_data import write_models

        return {"model": str(write_models(Path(arguments[0]))[1])}
    from neurostorm_bids.cli import main

    stdout = os.dup(1)
    os.dup2(2, 1)
    status = main(arguments)
    os.dup2(stdout, 1)
    return {"status": status}


def measure(n_participants: int, folder: Path, model: str) -> dict[str, Any]:
    """Measure a first call, a second with nothing to do, and the group level."""
    write_dataset(folder, n_participants)
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    places = [str(folder / "fmriprep"), str(output)]
    call = [*places, "participant", "--model", model, "--device", "cpu"]
    first = run_child("participant", *call)
    again = run_child("participant", *call)
    group = run_child("other", *places, "group")
    seconds = first["seconds"]
    work = seconds["work"] + seconds["results"]
    beside = {name: own for name, own in seconds.items() if name not in {"work", "results"}}
    return {
        "n_participants": n_participants,
        "first": first,
        "again": again,
        "group": group,
        "work_per_run_s": round(work / n_participants, 4),
        "share_beside_work": round(sum(beside.values()) / work, 5),
        "share_beside_work_without_start_up": round(
            sum(own for name, own in beside.items() if name not in {"start-up", "models"}) / work, 5
        ),
    }


def main() -> None:
    """Measure each number of participants and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "bookkeeping.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--participants", type=int, nargs="+", default=list(N_PARTICIPANTS))
    parser.add_argument("--step", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        json.dump(run_step(arguments.step[0], arguments.step[1:]), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = run_child("models", str(folder / "models"))["model"]
        calls = []
        for n_participants in arguments.participants:
            calls.append(measure(n_participants, folder, model))
            print(json.dumps(calls[-1]))
        write_dataset(folder, N_SCANNED)
        places = [str(folder / "fmriprep"), str(folder / "dry")]
        call = ["participant", "--model", model, "--device", "cpu", "--dry-run"]
        scan = run_child("other", *places, *call)
    from machine import describe_machine

    results = {
        "machine": describe_machine(),
        "threads": 1,
        "n_volumes": N_VOLUMES,
        "calls": calls,
        "dry_run": {"n_participants": N_SCANNED, **scan},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
