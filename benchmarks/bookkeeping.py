"""What a call over many participants costs beside the work itself: start-up, scan, files, memory.

Writes a few small runs and gives every participant one of them under a name of their own (hard
links where the disk knows them), then runs the participant level in a fresh process. Each part of a
call is timed without the parts that it calls, so that they add up to the whole; memory is looked
at after every run. Then the same call again, with nothing left to do, and the group level; last the
scan alone of many more.

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
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

N_PARTICIPANTS = (25, 200)
N_SCANNED = 2000
N_WRITTEN = 5
N_VOLUMES = 60
MEMORY_AFTER = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the runs after which memory is told."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Spent(NamedTuple):
    """Seconds on the clock, and of the processor."""

    wall_s: float
    cpu_s: float

    def __add__(self, other: Spent) -> Spent:  # type: ignore[override]
        """Return the sum of both."""
        return Spent(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: Spent) -> Spent:
        """Return the difference of both."""
        return Spent(*(a - b for a, b in zip(self, other, strict=True)))


NOTHING = Spent(0.0, 0.0)


def look_at_clocks() -> Spent:
    """Return the time now; the processor's is that of all threads of this process."""
    return Spent(time.perf_counter(), time.process_time())


class Meter:
    """What each part of a call takes, without the parts that it calls itself.

    Attributes
    ----------
    spent : by part.
    memory_mb : resident, after each run.
    """

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}
        self.memory_mb: list[float] = []
        self._inner = [NOTHING]

    def watch(self, module: ModuleType, name: str, part: str, *, ends_run: bool = False) -> None:
        """Time every call of a module's function, and look at the memory after it if asked to."""
        function: Callable[..., Any] = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any function
            self._inner.append(NOTHING)
            start = look_at_clocks()
            try:
                return function(*args, **kwargs)
            finally:
                whole = look_at_clocks() - start
                own = whole - self._inner.pop()
                self._inner[-1] += whole
                self.spent[part] = self.spent.get(part, NOTHING) + own
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
    from neurostorm_bids.participant import level, reports, work

    meter = Meter()
    meter.watch(level, "load_models", "models")
    meter.watch(level, "discover", "scan")
    meter.watch(level, "plan_jobs", "plan")
    meter.watch(level, "write_dataset_files", "dataset files")
    meter.watch(reports, "write_status", "status files")
    meter.watch(work, "write_run", "results")
    meter.watch(work, "run_job", "work", ends_run=True)
    process = psutil.Process()
    start_up = Spent(time.time() - process.create_time(), time.process_time())
    start = look_at_clocks()
    status = main(arguments)
    whole = look_at_clocks() - start
    if status != 0:
        raise RuntimeError(f"The call ended with status {status}: {' '.join(arguments)}")
    parts = {"start-up": start_up, **meter.spent}
    parts["rest"] = whole - sum(meter.spent.values(), NOTHING)
    measured: dict[str, Any] = {
        clock: {name: round(getattr(one, clock), 4) for name, one in parts.items()}
        for clock in Spent._fields
    }
    if memory := meter.memory_mb:
        places = {f"{share:.0%}": int(share * (len(memory) - 1)) for share in MEMORY_AFTER}
        measured["memory_mb"] = {name: round(memory[at], 1) for name, at in places.items()}
        measured["memory_mb"]["peak"] = round(max(memory), 1)
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
    return {**json.loads(child.stdout or b"{}"), "process_s": round(time.perf_counter() - start, 3)}


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
    shares = {clock: share_beside_work(first[clock]) for clock in Spent._fields}
    return {
        "n_participants": n_participants,
        "first": first,
        "again": again,
        "group": group,
        "share_beside_work": shares,
    }


def share_beside_work(seconds: dict[str, float]) -> dict[str, float]:
    """Return what all but the work adds to it, as a share: at all, and for each further run."""
    work = seconds["work"] + seconds["results"]
    beside = {name: own for name, own in seconds.items() if name not in {"work", "results"}}
    once = beside["start-up"] + beside["models"]
    return {
        "all": round(sum(beside.values()) / work, 5),
        "without start-up and models": round((sum(beside.values()) - once) / work, 5),
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
