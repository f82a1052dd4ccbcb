"""The participant and group levels, and a training, as jobs of a real Slurm.

Not in the default run, which has no Slurm: see `make slurm-test`.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

import neurostorm_bids
from neurostorm_bids import audit
from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder
from neurostorm_bids.executor import slurm

pytestmark = pytest.mark.slurm
N_PEOPLE = 16
PAGE = Path(neurostorm_bids.__file__).parent.parent / "docs" / "hpc.md"
QUICK_TRAINING = (
    *("--preset", "tiny", "--max-steps", "8", "--batch-size", "2", "--evaluate-every", "8"),
    *("--checkpoint-every", "1", "--validation-share", "0.2", "--device", "cpu", "--nprocs", "1"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write sixteen people and a model."""
    folder = tmp_path_factory.mktemp("data")
    write_cohort(folder / "fmriprep", n_people=N_PEOPLE, n_volumes=12)
    write_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def plain(data):
    """Return the results of the same levels without jobs."""
    assert call(data, data / "plain", "--nprocs", "1", levels=("participant", "group")) == 0
    return data / "plain"


@pytest.fixture(autouse=True)
def _ask_often(monkeypatch):
    monkeypatch.setattr(slurm, "POLL_S", 1.0)


def call(data: Path, out: Path, *words: str, levels=("participant",), bids_dir=None) -> int:
    model = f"--model={data / 'demo-encoder'}"
    return main([str(bids_dir or data / "fmriprep"), str(out), *levels, model, *words])


def submit(data: Path, out: Path, *words: str, **kwargs) -> int:
    limits = ("--slurm-time", "10", "--participants-per-task", "1")
    return call(data, out, "--executor", "slurm", *limits, *words, **kwargs)


def read_results(out: Path, pattern: str = "**/*") -> dict[Path, bytes]:
    """Return what a call wrote, byte for byte, without what tells of the call itself."""
    return {
        path.relative_to(out): path.read_bytes()
        for path in sorted(out.glob(pattern))
        if path.is_file()
        and not {"log", "logs", ".work", ".neurostorm.lock"} & set(path.relative_to(out).parts)
    }


def states(out: Path) -> dict[str, str]:
    return {entry.participant: entry.state for entry in audit.audit(out)}


@pytest.mark.usefixtures("cluster")
def test_one_fails_the_group_follows_and_the_next_call_submits_what_is_missing(
    data, plain, tmp_path, capsys
):
    bids_dir, out = tmp_path / "fmriprep", tmp_path / "out"
    for label in ("sub-01", "sub-02", "sub-03"):
        shutil.copytree(data / "fmriprep" / label, bids_dir / label)
    for name in ("dataset_description.json", "participants.tsv"):
        shutil.copy(data / "fmriprep" / name, bids_dir)
    (bold,) = bids_dir.glob("sub-02/func/*_bold.nii.gz")
    whole = bold.read_bytes()
    bold.write_bytes(whole[: len(whole) // 2])

    given = {"levels": ("participant", "group"), "bids_dir": bids_dir}
    assert submit(data, out, "--wait", **given) == 1
    log = capsys.readouterr().err
    assert "Submitted 3 participant(s) in 3 task(s)" in log
    assert re.search(r"sub-02 failed: .*bold", log)
    assert states(out) == {"01": "done", "02": "failed", "03": "done"}
    runs = (out / "group" / "runs.tsv").read_text()
    assert "sub-01" in runs
    assert "sub-02" not in runs

    before = {path: path.stat().st_mtime_ns for path in out.glob("sub-0[13]/func/*")}
    assert before
    bold.write_bytes(whole)
    assert submit(data, out, "--wait", **given) == 0
    log = capsys.readouterr().err
    assert "Submitted 1 participant(s) in 1 task(s)" in log
    assert "sub-02 failed before" in log
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for label in ("01", "02", "03"):
        pattern = f"sub-{label}/func/*"
        assert read_results(out, pattern) == read_results(plain, pattern)
    assert "sub-02" in (out / "group" / "runs.tsv").read_text()

    assert submit(data, out, bids_dir=bids_dir) == 0
    assert "Nothing to do" in capsys.readouterr().err


def test_a_task_that_is_killed_is_finished_by_the_next_call(cluster, data, plain, tmp_path):
    out = tmp_path / "out"
    assert submit(data, out, "--participant-label", "01", "02") == 0
    cluster.wait_until(lambda: cluster.ask("squeue", "--noheader", "--states=RUNNING"))
    cluster.ask("scancel", "--signal=KILL", "--name=neurostorm")
    cluster.ask("scancel", "--name=neurostorm")
    cluster.wait_for_jobs()
    assert states(out) == {"01": "missing", "02": "missing"}
    assert submit(data, out, "--participant-label", "01", "02", "--wait") == 0
    pattern = "sub-0[12]/func/*"
    assert read_results(out, pattern) == read_results(plain, pattern)


def test_a_task_that_is_preempted_starts_again_by_itself(cluster, data, plain, tmp_path):
    out = tmp_path / "out"
    assert submit(data, out, "--participant-label", "03") == 0
    (log,) = wait_for_files(cluster, out, ".work/slurm/*/*_log.out", text="Loading pickle")
    cluster.wait_until(lambda: "Wrote" in log.read_text())
    # What submitit asks Slurm to send before the end of the time limit.
    cluster.ask("scancel", "--signal=USR2", "--name=neurostorm")
    # Slurm may kill the task before it can say that it asked for this.
    cluster.wait_until(lambda: log.read_text().count("Loading pickle") == 2)
    cluster.wait_for_jobs()
    assert states(out) == {"03": "done"}
    pattern = "sub-03/func/*"
    assert read_results(out, pattern) == read_results(plain, pattern)


def test_sixteen_tasks_at_once_leave_the_dataset_of_a_plain_run(cluster, data, plain):
    out = data / "crowd"
    crowd = ("--slurm-option", "partition=crowd")
    assert submit(data, out, *crowd, levels=("participant", "group")) == 0
    at_once = []

    def is_over() -> bool:
        at_once.append(cluster.ask("squeue", "--noheader", "--states=RUNNING").count("\n") + 1)
        return not cluster.ask("squeue", "--noheader")

    cluster.wait_until(is_over, seconds=900)
    assert max(at_once) == N_PEOPLE
    assert read_results(out) == read_results(plain)
    assert list(states(out).values()) == ["done"] * N_PEOPLE
    assert len((out / "participants.tsv").read_text().splitlines()) == 1 + N_PEOPLE
    assert not list(out.rglob(".neurostorm-*.tmp"))


def test_the_array_by_hand_does_what_the_page_says(cluster, data, plain, tmp_path):
    write_command(tmp_path)
    (tmp_path / "labels.txt").write_text("sub-01\nsub-02\nsub-03\n")
    script = write_script(tmp_path, containing="mapfile", data=data)
    cluster.ask("sbatch", f"--chdir={tmp_path}", "--cpus-per-task=1", "--array=0-2", str(script))
    cluster.wait_for_jobs()
    pattern = "sub-0[1-3]/func/*"
    assert read_results(tmp_path / "out", pattern) == read_results(plain, pattern)
    assert states(tmp_path / "out") == {"01": "done", "02": "done", "03": "done"}


def test_a_training_that_is_interrupted_goes_on_by_itself(cluster, data, tmp_path):
    weights = {}
    for name in ("through", "interrupted"):
        folder = tmp_path / name
        folder.mkdir()
        write_command(folder)
        script = write_script(folder, containing="--signal=USR1", data=data)
        limits = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")
        cluster.ask("sbatch", f"--chdir={folder}", *limits, "--job-name=training", str(script))
        if name == "interrupted":
            cluster.wait_until(lambda: list(tmp_path.glob("interrupted/out/**/last.ckpt")))
            cluster.ask("scancel", "--signal=USR1", "--name=training")
        cluster.wait_for_jobs()
        (log,) = folder.glob("*.out")
        assert ("Going on after update" in log.read_text()) == (name == "interrupted")
        (model,) = folder.glob("out/models/*/model.safetensors")
        weights[name] = model.read_bytes()
    assert weights["through"] == weights["interrupted"]


def write_command(folder: Path) -> None:
    """Write the command as users have it on PATH, for the Python of the tests."""
    command = folder / "neurostorm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m neurostorm_bids "$@"\n')
    command.chmod(0o755)


def write_script(folder: Path, *, containing: str, data: Path) -> Path:
    """Write the script of docs/hpc.md that contains some words, for the data of the tests."""
    blocks = re.findall(r"(?:^    .*\n)+", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = (one for one in blocks if "#!/bin/bash" in one and containing in one)
    text = textwrap.dedent(text)
    assert "neurostorm FMRIPREP_DIR OUT" in text
    text = re.sub("^#SBATCH --(mem|gpus-per-node|time)=.*\n", "", text, flags=re.MULTILINE)
    replacements = {
        "neurostorm FMRIPREP_DIR": f"{folder / 'neurostorm'} {data / 'fmriprep'}",
        " OUT ": f" {folder / 'out'} ",
        " MODEL ": f" {data / 'demo-encoder'} ",
        "--batch-size 64": " ".join(QUICK_TRAINING),
    }
    for old, new in replacements.items():
        text = text.replace(old, new)
    path = folder / "job.sh"
    path.write_text(text)
    return path


def wait_for_files(cluster, out: Path, pattern: str, *, text: str) -> list[Path]:
    def find() -> list[Path]:
        return [path for path in out.glob(pattern) if text in path.read_text()]

    cluster.wait_until(find)
    return find()
