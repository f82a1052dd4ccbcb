"""A whole call of the participant level: where its time goes, and what overlaps.

Makes a run of realistic size and content (300 volumes of 2 mm, TR 2 s; ten minutes) and a model of
the published size with random weights, and calls the command in fresh processes: on one run and on
several, as it is and with everything in turn. Each stage is timed on the clock, in whichever thread
it runs, so that stages that overlap add up to more than the whole. All runs share one file, so that
the disk is not what is measured.

    python benchmarks/participant.py [--out benchmarks/results/participant.json]
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
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import torch
from machine import describe_machine
from preparation import CASES, N_VOLUMES, REPETITION_TIME_S, write_run

from neurostorm_bids import cli, predict
from neurostorm_bids.grid.clips import ClipReader
from neurostorm_bids.grid.read import IN_TURN
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.participant import ahead, level, work
from neurostorm_bids.pretrained import Model, Provenance, save_model
from neurostorm_bids.report import figures

if TYPE_CHECKING:
    from collections.abc import Callable

N_RUNS = (1, 3)
CASE = "2 mm, voxels coincide"
SPACE = "MNI152NLin6Asym"
WAYS = ("in turn", "overlapping")
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


class Span(NamedTuple):
    """A stage of a run: seconds since the process began, and whether the main thread did it."""

    stage: str
    begin_s: float
    end_s: float
    is_main: bool


class Recorder:
    """Writes down when each call of a function began and ended, in any thread."""

    def __init__(self, origin_s: float) -> None:
        self.spans: list[Span] = []
        self._origin_s = origin_s

    def watch(self, owner: Any, name: str, stage: str) -> None:  # noqa: ANN401 - a module or class
        """Time every call of a function of a module, or of a method of a class."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any function
            begin_s = time.time()
            try:
                return function(*args, **kwargs)
            finally:
                is_main = threading.current_thread() is threading.main_thread()
                span = Span(stage, begin_s - self._origin_s, time.time() - self._origin_s, is_main)
                self.spans.append(span)

        setattr(owner, name, timed)

    def list_spans(self, stage: str) -> list[Span]:
        """Return the calls of one stage, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.stage == stage), key=lambda s: s.begin_s)

    def sum_seconds(self, stage: str) -> float:
        """Return the seconds of all calls of a stage."""
        return sum(span.end_s - span.begin_s for span in self.list_spans(stage))


def write_dataset(folder: Path, n_runs: int) -> None:
    """Write participants with a run each: the same files under other names."""
    first: dict[str, Path] = {}
    for number in range(1, n_runs + 1):
        func = folder / f"sub-{number:02d}" / "func"
        func.mkdir(parents=True)
        stem = f"sub-{number:02d}_task-rest_space-{SPACE}_desc"
        files = {end: func / f"{stem}-{end}.nii.gz" for end in ("preproc_bold", "brain_mask")}
        if not first:
            first = files
            write_run(files["preproc_bold"], files["brain_mask"], CASES[CASE])
        else:
            for end, path in files.items():
                os.link(first[end], path)
        sidecar = {"RepetitionTime": REPETITION_TIME_S, "TaskName": "rest"}
        (func / f"{stem}-preproc_bold.json").write_text(json.dumps(sidecar), encoding="utf-8")
    about = {"Name": "Benchmark", "BIDSVersion": "1.8.0", "DatasetType": "derivative"}
    about["GeneratedBy"] = [{"Name": "fMRIPrep"}]  # type: ignore[assignment]
    (folder / "dataset_description.json").write_text(json.dumps(about), encoding="utf-8")


def write_model(folder: Path) -> None:
    """Write a model of the published size, with random weights and a head."""
    torch.manual_seed(0)
    config, head = ModelConfig.published(), HeadConfig(version="v1", n_outputs=1)
    model = Model(
        config=config,
        head_config=head,
        backbone=Backbone(config),
        head=build_head(head, config.n_features),
        grid=GridSpec.published(),
        target=TargetSpec(name="sex", kind="classification", classes=("F", "M")),
        provenance=Provenance(name="random", source="benchmark", sha256="", format="folder"),
    )
    save_model(model, folder)


def measure_call(arguments: list[str], *, way: str) -> dict[str, Any]:
    """Call the participant level in this process, and return what its stages took."""
    process = psutil.Process()
    recorder = Recorder(process.create_time())
    if way == "in turn":
        plan = work.plan_memory
        work.plan_memory = lambda *given: plan(*given)._replace(looks_ahead=False)
        work.choose_reading = lambda _: IN_TURN
        predict.count_readers = lambda _: 0
    recorder.watch(level, "load_models", "models")
    recorder.watch(level, "plan_jobs", "scan and plan")
    recorder.watch(level, "discover", "scan and plan")
    recorder.watch(ahead, "bring_run", "read and prepare")
    recorder.watch(work, "predict_series", "predict")
    recorder.watch(ClipReader, "read", "wait for clips")
    recorder.watch(figures, "write_run_figures", "figures")
    recorder.watch(work, "write_run", "write")
    recorder.watch(work, "run_job", "run")
    start_up_s = time.time() - process.create_time()
    status = cli.main(arguments)
    whole_s = time.time() - process.create_time()
    if status != 0:
        raise RuntimeError(f"The call ended with status {status}: {' '.join(arguments)}")
    return describe(recorder, start_up_s=start_up_s, whole_s=whole_s)


def describe(recorder: Recorder, *, start_up_s: float, whole_s: float) -> dict[str, Any]:
    """Sum the stages up, ready for JSON."""
    stages = {
        stage: recorder.sum_seconds(stage)
        for stage in ("models", "scan and plan", "read and prepare", "predict", "figures", "write")
    }
    runs = recorder.list_spans("run")
    in_main = [span for span in recorder.spans if span.is_main and span.stage == "read and prepare"]
    waited_s = sum(span.end_s - span.begin_s for span in in_main)
    between = [b.end_s - a.end_s for a, b in pairwise(runs)]
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF)
    measured = {
        "start-up": start_up_s,
        **stages,
        "read and prepare, nothing else meanwhile": waited_s,
        "wait for clips (part of predict)": recorder.sum_seconds("wait for clips"),
        "first run, from its begin to its result": (
            recorder.list_spans("write")[0].end_s - runs[0].begin_s
        ),
        "first run, figures too": runs[0].end_s - runs[0].begin_s,
        "each further run": statistics.mean(between) if between else None,
        "whole command": whole_s,
        "processor": used.ru_utime + used.ru_stime,
    }
    seconds = {k: None if v is None else round(v, 3) for k, v in measured.items()}
    return {"seconds": seconds, "peak_gb": round(used.ru_maxrss * unit_bytes / 1e9, 3)}


def format_table(calls: list[dict[str, Any]]) -> str:
    """Return the seconds as a table in Markdown, a column for each call."""
    heads = [f"{call['n_runs']} run(s), {call['way']}" for call in calls]
    rows = [["seconds", *heads], ["---"] * (len(calls) + 1)]
    for stage in calls[0]["seconds"]:
        values = [call["seconds"][stage] for call in calls]
        rows.append([stage, *("" if value is None else f"{value:.1f}" for value in values)])
    rows.append(["peak memory, GB", *(f"{call['peak_gb']:.2f}" for call in calls)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def run_child(step: str, *arguments: str) -> dict[str, Any]:
    """Run a step of this program in a fresh process."""
    child = subprocess.run(
        [sys.executable, __file__, "--step", step, *arguments],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(child.stderr.decode(errors="replace"))
    return json.loads(child.stdout or b"{}")


def run_step(step: str, arguments: list[str]) -> dict[str, Any]:
    """Do one step, in the child."""
    if step == "data":
        write_dataset(Path(arguments[0]), max(N_RUNS))
        return {}
    if step == "model":
        write_model(Path(arguments[0]))
        return {}
    return measure_call(arguments, way=step)


def measure_calls(folder: Path, *, n_threads: int) -> list[dict[str, Any]]:
    """Call the command on each number of runs, in each way."""
    run_child("data", str(folder / "fmriprep"))
    run_child("model", str(folder / "model"))
    calls = []
    for n_runs in N_RUNS:
        for way in WAYS:
            output = folder / f"out-{n_runs}-{way.replace(' ', '-')}"
            labels = [f"{number:02d}" for number in range(1, n_runs + 1)]
            measured = run_child(
                way,
                *(str(folder / "fmriprep"), str(output), "participant"),
                *("--model", str(folder / "model"), "--device", "cpu"),
                *("--nprocs", str(n_threads), "--participant-label", *labels),
            )
            calls.append({"n_runs": n_runs, "way": way, **measured})
            print(json.dumps(calls[-1]), flush=True)
    return calls


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "participant.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        json.dump(run_step(arguments.step[0], arguments.step[1:]), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as place:
        calls = measure_calls(Path(place), n_threads=arguments.threads)
    print(format_table(calls))
    results = {
        "machine": describe_machine("scipy", "nibabel", "isal"),
        "load_average_at_end": round(os.getloadavg()[0], 2),
        "threads": arguments.threads,
        "n_volumes": N_VOLUMES,
        "calls": calls,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
