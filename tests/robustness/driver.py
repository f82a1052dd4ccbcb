"""What the programs of this folder share: small data, calls of the command, a look at the tree."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet
import torch
from safetensors import safe_open

from neurostorm_bids.demo_data import write_cohort, write_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
FEW_CPUS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "agg"}
MACHINE = ["--device", "cpu", "--nprocs", "1"]
N_PEOPLE = 6
HOST, USER = "ward-seven-console", "drjanefoundling"
"""Of the machine and the person, as calls see them; neither may stand in what they write."""


counts: Counter[str] = Counter()
"""What was tried how often; told at the end of a session."""


def count(what: str) -> None:
    counts[what] += 1


class Ground(NamedTuple):
    """Six people of 16 volumes at 8 mm, an atlas, and a model without a head."""

    bids: Path
    atlas: Path
    encoder: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        atlas = write_cohort(folder / "cohort", n_people=N_PEOPLE, n_volumes=16)
        return cls(folder / "cohort", atlas, write_encoder(folder / "models"))

    def words(self, level: str, output: Path, *more: str) -> list[str]:
        """Return the arguments of a call of a level, as short as it can be."""
        model = ["--model", str(self.encoder)]
        two = ["--participant-label", "01", "02"]
        own = {
            "participant": [
                *(*model, "--connectivity", str(self.atlas), "--write-resampled"),
                *(*MACHINE, *two),
            ],
            "group": [],
            "pretrain": [
                *("--preset", "tiny", "--max-steps", "2", "--batch-size", "1", *MACHINE),
                *("--evaluate-every", "1", "--checkpoint-every", "1", *two),
            ],
            "finetune": [
                *("--target", "age", *model, "--adapt", "linear", *MACHINE),
                *("--splits", "held-out", "--held-out-share", "0.34", "--atlas", str(self.atlas)),
            ],
        }
        return [str(self.bids), str(output), level, *own[level], *more]


class Nursery:
    """Calls of the command, one after the other, in processes that need not import first."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **FEW_CPUS, "PYTHONPATH": str(REPOSITORY)},
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        return self._process.stdout.readline().decode().strip()

    def start(
        self,
        words: list[str],
        *,
        log: Path,
        kill_at: int | None = None,
        number: int = signal.SIGKILL,
        steps: Path | None = None,
        below: Path | None = None,
        host: str | None = None,
        flock: str | None = None,
        **env: str,
    ) -> int:
        """Start a call and return its process.

        Parameters
        ----------
        log : what it prints.
        kill_at : the step at which it sends itself a signal.
        number : that signal.
        steps : where its steps are written down, one per line.
        below : only steps in this folder count.
        host : the name of the machine, as the call sees it.
        flock : ``nothing`` for locks that hold nobody off, or the name of the error that they give.
        """
        call = {
            "argv": words,
            "log": str(log),
            "env": env,
            "steps": None if kill_at is None and steps is None else str(steps or ""),
            "kill_at": kill_at,
            "signal": number,
            "below": str(below or ""),
            "host": host,
            "flock": flock,
        }
        return self._ask(call)["pid"]

    def _ask(self, question: dict) -> dict:
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def wait(self, pid: int) -> int:
        """Return the status of a call that was started; minus the signal that ended it."""
        return self._ask({"wait": pid})["status"]

    def run(self, words: list[str], *, log: Path, **given) -> int:
        return self.wait(self.start(words, log=log, **given))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def wait_for(is_so: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Look again and again; what is waited for depends on no clock, only giving up does."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def call(words: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Call the command as users do, in a process of its own."""
    return subprocess.run(
        command(words), env=environment(**env), capture_output=True, text=True, check=False
    )


def command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "neurostorm_bids", *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **FEW_CPUS, "PYTHONPATH": str(REPOSITORY), **more}


def check_whole(folder: Path) -> int:
    """Check that no file is half written under its final name; return how many were looked at."""
    n_files = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_leftover(path) and "tensorboard" not in path.parts:
            read = _READERS.get("".join(path.suffixes[-2:])) or _READERS.get(path.suffix)
            if read is not None:
                try:
                    read(path)
                except Exception as err:
                    raise AssertionError(f"{path.relative_to(folder)} is half written") from err
                n_files += 1
    return n_files


def is_leftover(path: Path) -> bool:
    """Whether any part of a path is the name of something temporary."""
    return any(re.fullmatch(r"\..*\.(tmp|partial|old)", part) for part in path.parts)


def list_leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if is_leftover(path))


NOT_COMPARED = {
    r"(.*/)?logs?/\d{8}-.*": "a call's name, its date, and seconds",
    r".*\.lock": "empty",
    r"\.work/training/.*/tensorboard/.*": "wall times",
    r"\.work/training/.*\.ckpt": "zip files of torch, compared by their weights",
    r"(.*/)?CHANGES": "a date",
}
"""What two undisturbed calls do not write alike, and why; everything else is compared."""

_CALL = re.compile(rb"\d{8}-\d{6}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def read_results(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all results, but for those of `NOT_COMPARED` and the names of calls."""
    results = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_file()
            and not is_leftover(path)
            and not any(re.fullmatch(one, name) for one in NOT_COMPARED)
        ):
            results[name] = _CALL.sub(b"<call>", path.read_bytes())
    return results


def _read_html(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def _read_table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv" and not text:
        return  # a training's table before its first row, by which it grows
    assert text.endswith("\n")
    widths = {line.count("\t" if path.suffix == ".tsv" else ",") for line in text.splitlines()}
    assert len(widths) == 1


def _read_tensors(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        for key in file.keys():  # noqa: SIM118
            file.get_tensor(key)


def _read_arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            assert file[name] is not None


_READERS = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".html": _read_html,
    ".svg": lambda path: path.read_text(encoding="utf-8").rstrip().index("</svg>"),
    ".tsv": _read_table,
    ".csv": _read_table,
    ".parquet": pyarrow.parquet.read_table,
    ".nii.gz": lambda path: gzip.decompress(path.read_bytes()),
    ".safetensors": _read_tensors,
    ".npz": _read_arrays,
    ".ckpt": lambda path: torch.load(path, weights_only=True),
}


def validate(folder: Path) -> list[tuple[str, str]]:
    """Return what the BIDS validator says of a folder: files and codes."""
    program = "from bids_validator_deno import cli; cli()"
    report = subprocess.run(
        [sys.executable, "-c", program, "--format", "json", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    ).stdout
    issues = json.loads(report)["issues"]["issues"]
    return [(issue.get("location", ""), issue["code"]) for issue in issues]


def count_participants(folder: Path) -> int:
    return len(pd.read_csv(folder / "participants.tsv", sep="\t"))
