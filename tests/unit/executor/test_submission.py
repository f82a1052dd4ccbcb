"""What is handed to Slurm, with commands in its place that write down what they are told."""

from __future__ import annotations

import pickle
import shutil

import pytest

from neurostorm_bids.audit import audit
from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder
from neurostorm_bids.executor import slurm

SBATCH = """#!/bin/sh
n=$(cat {folder}/count 2>/dev/null || echo 40)
n=$((n + 1))
echo $n > {folder}/count
cp "$1" {folder}/$n.sh
echo "Submitted batch job $n"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cohort(folder / "fmriprep", n_people=3, n_volumes=12)
    write_encoder(folder)
    return folder


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put commands on PATH that take any job and never run it; return the folder of the scripts."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    commands = {
        "sbatch": SBATCH.format(folder=folder),
        "squeue": "#!/bin/sh\n",
        "srun": "#!/bin/sh\n",
    }
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


@pytest.fixture
def call(data, tmp_path, cluster):  # noqa: ARG001 - without it nothing may be submitted
    """Call the participant level, and others, with --executor slurm."""

    def call(*words, levels=("participant",), bids_dir=data / "fmriprep"):
        out = tmp_path / "out"
        model = f"--model={data / 'demo-encoder'}"
        return main([str(bids_dir), str(out), *levels, model, "--executor", "slurm", *words])

    return call


def read_tasks(tmp_path, number):
    """Return the tasks of a job as they were pickled, in order."""
    paths = sorted(tmp_path.glob(f"out/.work/slurm/*/{number}*_submitted.pkl"))
    return [pickle.loads(path.read_bytes()).function for path in paths]


def read_script(cluster, number):
    lines = (cluster / f"{number}.sh").read_text().splitlines()
    flags = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    return dict(flag.partition("=")[::2] for flag in flags)


def test_participants_become_tasks_of_one_array_and_the_group_waits_for_it(cluster, call, tmp_path):
    assert call("--participants-per-task", "2", levels=["participant", "group"]) == 0
    assert read_script(cluster, 41)["array"] == "0-1%2"
    first, second = (task.words for task in read_tasks(tmp_path, 41))
    assert first[2] == second[2] == "participant"
    assert first[-2:] == ("--participant-label=01", "--participant-label=02")
    assert second[-1:] == ("--participant-label=03",)
    ours = ("--executor", "--participants-per-task", "--slurm")
    assert not any(word.startswith(ours) for word in (*first, *second))
    assert read_script(cluster, 42)["dependency"] == "afterany:41"
    (group,) = read_tasks(tmp_path, 42)
    assert group.words[2] == "group"
    assert group.words[-1].removeprefix("--model=").isalnum()
    assert len(list(cluster.glob("*.sh"))) == 2


def test_a_task_does_its_share_and_only_the_rest_is_submitted_next_time(call, tmp_path, capsys):
    assert call("--participants-per-task", "1") == 0
    assert read_tasks(tmp_path, 41)[1]() == 0
    capsys.readouterr()
    assert call("--participants-per-task", "1", "--dry-run") == 0
    assert "sub-02" not in capsys.readouterr().out
    assert call("--participants-per-task", "1") == 0
    assert "Submitted 2 participant(s)" in capsys.readouterr().err
    labels = [task.words[-1][-2:] for task in read_tasks(tmp_path, 42)]
    assert labels == ["01", "03"]
    # A task that is killed after its last file leaves no word of it.
    for status in (tmp_path / "out").glob("sub-02/log/*/status.json"):
        status.unlink()
    assert call("--participants-per-task", "1") == 0
    states = {entry.participant: entry.state for entry in audit(tmp_path / "out")}
    assert states == {"01": "missing", "02": "done", "03": "missing"}
    table = (tmp_path / "out" / "participants.tsv").read_text()
    assert table.split() == ["participant_id", "sub-01", "sub-02", "sub-03"]


def test_who_waits_or_runs_already_is_not_submitted_again(cluster, call, tmp_path, capsys):
    assert call("--participants-per-task", "1") == 0
    (cluster / "squeue").write_text("#!/bin/sh\necho 41_0\necho 41_2\n")
    assert call("--participants-per-task", "1", levels=["participant", "group"]) == 0
    assert "2 participant(s) wait or run already, in job 41" in capsys.readouterr().err
    (task,) = read_tasks(tmp_path, 42)
    assert task.words[-1] == "--participant-label=02"
    assert read_script(cluster, 43)["dependency"] == "afterany:41:42"
    assert call("--dummy-scans", "1") == 0
    assert "Submitted 3 participant(s)" in capsys.readouterr().err


def test_the_work_folder_is_not_emptied_under_those_who_run(cluster, call, capsys):
    assert call("--participants-per-task", "1") == 0
    (cluster / "squeue").write_text("#!/bin/sh\necho 41_0\necho 41_2\n")
    assert call("--dummy-scans", "1", "--clean-workdir") == 2
    assert "what 2 participant(s) in the queue use (job 41)" in capsys.readouterr().err


def test_the_options_of_the_call_are_those_of_its_tasks(cluster, call, tmp_path):
    words = ("--nprocs", "2", "--mem", "4GiB", "--dummy-scans", "1", "--overwrite", "-v")
    assert call(*words, "--exclude-participant-label", "02", "--slurm-option", "partition=a b") == 0
    script = read_script(cluster, 41)
    assert (script["cpus-per-task"], script["mem"], script["time"]) == ("2", "4096M", "240")
    assert script["partition"] == "'a b'"
    (task,) = read_tasks(tmp_path, 41)
    options = set(task.words[3:])
    assert {"--nprocs=2", "--mem=4GiB", "--dummy-scans=1", "--overwrite", "--verbose"} < options
    assert not any("exclude" in word for word in options)
    assert {word for word in options if "label" in word} == {
        "--participant-label=01",
        "--participant-label=03",
    }


def test_runs_that_cannot_be_used_are_told_of_although_no_job_is_submitted(
    cluster, call, data, tmp_path
):
    broken = shutil.copytree(data / "fmriprep", tmp_path / "fmriprep")
    for sidecar in broken.rglob("*_bold.json"):
        sidecar.write_text('{"RepetitionTime": 2000}')
    assert call(bids_dir=broken) == 65
    assert not list(cluster.glob("*.sh"))
    states = {entry.participant: entry.state for entry in audit(tmp_path / "out")}
    assert states == {"01": "failed", "02": "failed", "03": "failed"}
    assert len(list(tmp_path.glob("out/logs/*/status.tsv"))) == 1


def test_a_gpu_is_asked_for_the_tasks_and_not_for_the_group(cluster, call):
    assert call("--device", "cuda", levels=["participant", "group"]) == 0
    assert read_script(cluster, 41)["gpus-per-node"] == "1"
    assert "gpus-per-node" not in read_script(cluster, 42)


def test_a_gpu_that_the_user_asks_for_is_not_asked_for_twice(cluster, call):
    words = ("--device", "cuda", "--slurm-option", "gres=gpu:a100:1", "account=lab")
    assert call(*words, levels=["participant", "group"]) == 0
    assert read_script(cluster, 41)["gres"] == "gpu:a100:1"
    assert "gpus-per-node" not in read_script(cluster, 41)
    assert "gres" not in read_script(cluster, 42)
    assert read_script(cluster, 42)["account"] == "lab"


def test_a_task_that_runs_out_of_time_starts_again_with_the_same_words(call, tmp_path):
    assert call() == 0
    (task,) = read_tasks(tmp_path, 41)
    assert task.checkpoint().function == task


def test_a_task_ends_with_the_status_of_its_call():
    with pytest.raises(SystemExit) as end:
        slurm.Task(lambda _: 65, ())()
    assert end.value.code == 65


def test_waiting_ends_when_nothing_is_queued_and_tells_who_is_missing(call, capsys):
    assert call("--wait") == 1
    assert "sub-01 missing" in capsys.readouterr().err


def test_without_slurm_the_user_is_told(call, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert call() == 2
    assert "no sbatch on PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "status"),
    [("Invalid partition name specified", 2), ("Unable to contact slurm controller", 75)],
)
def test_what_slurm_refuses_is_told_in_its_words(cluster, call, capsys, said, status):
    (cluster / "sbatch").write_text(f"#!/bin/sh\necho 'sbatch: error: {said}' >&2\nexit 1\n")
    assert call() == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "levels", "message"),
    [
        (["--slurm-time", "soon"], ["participant"], "--slurm-time"),
        (["--run-fmriprep"], ["participant"], "on this machine"),
        (["--target", "age"], ["participant", "finetune"], "with srun"),
    ],
)
def test_what_is_not_for_jobs_is_refused(call, capsys, words, levels, message):
    assert call(*words, levels=levels) == 2
    assert message in capsys.readouterr().err


def test_options_of_slurm_without_it_are_refused(tmp_path, capsys):
    words = [str(tmp_path), str(tmp_path / "out"), "participant", "--slurm-option", "partition=gpu"]
    assert main(words) == 2
    assert "only with --executor slurm" in capsys.readouterr().err
