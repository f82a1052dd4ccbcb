"""A raw dataset, fMRIPrep in Docker, and on with its result; the Docker here is a stub."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_dataset, write_models

STUB = """\
#!{python}
import json, shutil, sys
with open({record!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
if words[0] == "version":
    if {is_down}:
        sys.exit("Cannot connect to the Docker daemon at unix:///x. Is it running?")
    print("27.0")
elif words[0] == "info":
    print({memory})
elif words[0] == "images":
    print("0123456789ab")
elif "--entrypoint=free" in words:
    print("Mem: 16000 1 1")
else:
    mounts = [words[i + 1] for i, word in enumerate(words) if word == "-v"]
    (output,) = [one.split(":")[0] for one in mounts if one.split(":")[1] == "/out"]
    if {status} == 0:
        shutil.copytree({source!r}, output, dirs_exist_ok=True)
    sys.exit({status})
"""


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preprocessed")
    write_dataset(folder / "fmriprep", n_volumes=8)
    (model, _) = write_models(folder / "models")
    for label in ("01", "02", "03"):
        (folder / "fmriprep" / f"sub-{label}.html").touch()
    return folder / "fmriprep", model


@pytest.fixture
def raw(tmp_path):
    """Three participants with a file each that stands for raw BOLD."""
    folder = tmp_path / "raw $(touch x); data"
    for label in ("01", "02", "03"):
        func = folder / f"sub-{label}" / "func"
        func.mkdir(parents=True)
        (func / f"sub-{label}_task-rest_bold.nii.gz").write_bytes(b"")
    (folder / "dataset_description.json").write_text(
        json.dumps({"Name": "raw", "BIDSVersion": "1.10.1", "DatasetType": "raw"})
    )
    return folder


@pytest.fixture
def docker(tmp_path, monkeypatch, preprocessed):
    """Put a stub on PATH; return what makes it, and what reads the calls that it got."""
    record = tmp_path / "calls"

    def make(*, status=0, is_down=False, memory=16_000_000_000):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        text = STUB.format(
            python=sys.executable,
            record=str(record),
            source=str(preprocessed[0]),
            status=status,
            is_down=is_down,
            memory=memory,
        )
        (folder / "docker").write_text(text)
        (folder / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def read():
        lines = record.read_text().splitlines() if record.exists() else []
        calls = [json.loads(line) for line in lines]
        return [c for c in calls if c[0] == "run" and "--entrypoint=free" not in c]

    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    monkeypatch.setenv("FS_LICENSE", str(tmp_path / "license.txt"))
    (tmp_path / "license.txt").write_text("x")
    make.read = read
    return make


def call(raw, output, *words):
    return main([str(raw), str(output), "participant", "--device", "cpu", *words])


def test_a_raw_dataset_is_preprocessed_and_predicted_from(raw, docker, preprocessed, tmp_path):
    docker()
    output = tmp_path / "out"
    words = ["--model", str(preprocessed[1]), "--run-fmriprep", "--mem", "24GB"]
    words += ["--participant-label", "01", "02"]
    arguments = '--fs-no-reconall --project-note "$(id); `id`"'
    assert call(raw, output, *words, "--fmriprep-args", arguments) == 0
    (run,) = docker.read()
    assert f"{raw}:/data:ro" in run
    assert f"{output / 'sourcedata' / 'fmriprep'}:/out" in run
    assert f"{tmp_path / 'license.txt'}:/opt/freesurfer/license.txt:ro" in run
    app = run[run.index("/data") :]
    assert app[:3] == ["/data", "/out", "participant"]
    at = app.index("--output-spaces")
    assert app[at + 1] == "MNI152NLin6Asym:res-2"
    at = app.index("--participant-label")
    assert app[at + 1 : at + 3] == ["01", "02"]
    assert app[app.index("--project-note") + 1] == "$(id); `id`"
    assert app[app.index("--mem") + 1] == "24000M"
    assert not (tmp_path / "x").exists()
    assert len(list(output.glob("sub-*/**/*_desc-scan_embedding.tsv"))) == 2
    assert sorted(path.name for path in raw.iterdir())[1:] == ["sub-01", "sub-02", "sub-03"]

    assert call(raw, output, *words, "--fmriprep-args", arguments) == 0
    assert len(docker.read()) == 1, "what fMRIPrep finished is not made again"


def test_a_dry_run_prints_the_command_and_runs_nothing(raw, docker, tmp_path, capsys):
    docker()
    assert call(raw, tmp_path / "out", "--run-fmriprep", "--dry-run") == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[:2] == ["fmriprep-docker", str(raw)]
    assert "MNI152NLin6Asym:res-2" in words
    assert docker.read() == []
    assert not (tmp_path / "out").exists()


def test_only_the_chosen_participants_are_preprocessed(raw, docker, tmp_path, capsys):
    docker()
    words = ["--participant-label", "02", "--task-id", "rest", "--run-fmriprep", "--dry-run"]
    assert call(raw, tmp_path / "out", *words) == 0
    printed = shlex.split(capsys.readouterr().out)
    assert printed[printed.index("--participant-label") :][:4] == [
        "--participant-label",
        "02",
        "--task-id",
        "rest",
    ]


@pytest.mark.parametrize(
    ("stub", "status", "message"),
    [
        ({"status": 3}, 65, "fMRIPrep ended with status 3"),
        ({"status": 137}, 75, "want of memory"),
        ({"status": 126}, 66, "licence"),
        ({"is_down": True}, 75, "Docker does not answer: Cannot connect"),
        ({"memory": 4_000_000_000}, 75, "Docker may use 4.0 GB"),
        (None, 66, "no command docker"),
    ],
    ids=["failed", "killed", "unlicensed", "down", "small", "absent"],
)
def test_what_went_wrong_is_told(
    raw, docker, tmp_path, capsys, monkeypatch, *, stub, status, message
):
    if stub is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        docker(**stub)
    assert call(raw, tmp_path / "out", "--run-fmriprep") == status
    assert message in capsys.readouterr().err


def test_a_licence_is_asked_for(raw, docker, tmp_path, capsys, monkeypatch):
    docker()
    monkeypatch.delenv("FS_LICENSE")
    assert call(raw, tmp_path / "out", "--run-fmriprep") == 66
    assert "--fs-license-file" in capsys.readouterr().err
    absent = ["--fs-license-file", str(tmp_path / "absent.txt")]
    assert call(raw, tmp_path / "out", "--run-fmriprep", *absent) == 66
    assert docker.read() == []


def test_options_of_fmriprep_have_no_effect_without_it(raw, tmp_path, capsys):
    assert call(raw, tmp_path / "out", "--fmriprep-args", "--fs-no-reconall") == 2
    assert call(raw, tmp_path / "out", "--fs-license-file", "x") == 2
    assert call(raw, tmp_path / "out", "--run-fmriprep", "--fmriprep-args", "'") == 2
    assert "cannot be split" in capsys.readouterr().err


def test_a_preprocessed_dataset_is_taken_as_it_is(preprocessed, docker, tmp_path, capsys):
    docker()
    assert call(preprocessed[0], tmp_path / "out", "--run-fmriprep", "--dry-run") == 0
    assert "fMRIPrep is not run" in capsys.readouterr().err
    assert docker.read() == []
