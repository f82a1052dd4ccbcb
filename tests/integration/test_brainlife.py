"""A task of Brainlife: ``main`` run in the task's folder, the container replaced by this Python."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from neurostorm_bids.brainlife.task import run_task
from neurostorm_bids.demo_data import write_cohort, write_models

REPOSITORY = Path(__file__).resolve().parents[2]
MAIN = REPOSITORY / "brainlife" / "main"


def run_main(task, command):
    environment = {**os.environ, "NEUROSTORM_COMMAND": command, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [MAIN], cwd=task, env=environment, capture_output=True, text=True, check=False
    )
    return done, json.loads((task / "product.json").read_text())


def run_here(task):
    """Run a task in this process, which spares its start."""
    status = run_task(task)
    return status, json.loads((task / "product.json").read_text())


def write_task(folder, source, *, meta, space, **options):
    """Stage the files of a func folder as Brainlife does, and write the task's config.json."""
    names = {
        "fmri": ("*_desc-preproc_bold.nii.gz", "bold.nii.gz"),
        "mask": ("*_desc-brain_mask.nii.gz", "mask.nii.gz"),
        "regressors": ("*_desc-confounds_timeseries.tsv", "regressors.tsv"),
    }
    config = {}
    for number, (key, (pattern, name)) in enumerate(names.items()):
        staged = folder / f"5f9b2c1ea1b2c3d4e5f6071{number}"
        staged.mkdir(parents=True)
        shutil.copy(next(source.glob(pattern)), staged / name)
        config[key] = f"../{staged.name}/{name}"
    described = {"id": "fmri", "meta": meta, "tags": [f"space-{space}"], "datatype_tags": []}
    task = folder / "task"
    task.mkdir()
    config = {**config, **options, "_inputs": [described], "_app": "1", "_tid": 1}
    (task / "config.json").write_text(json.dumps(config))
    return task


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brainlife")
    write_cohort(folder / "fmriprep", n_people=1, n_volumes=12)
    write_models(folder / "models")
    return folder


@pytest.fixture
def task(source, tmp_path):
    meta = {"subject": "S 01", "session": "A", "task": "rest", "RepetitionTime": 2.0}
    func = source / "fmriprep" / "sub-01" / "func"
    model = str(source / "models" / "demo-age")
    return write_task(tmp_path, func, meta=meta, space="MNI152NLin6Asym", model=model, device="cpu")


def test_a_task_leaves_results_and_a_product(task):
    done, product = run_main(task, sys.executable)
    assert done.returncode == 0, done.stderr
    func = task / "output" / "sub-S01" / "ses-A" / "func"
    assert len(list(func.glob("sub-S01_ses-A_task-rest_*_embedding.tsv"))) == 2
    assert (task / "output" / "sub-S01.html").is_file()
    shown = product["brainlife"]
    assert shown[0] == {"type": "success", "msg": "1 run(s) done by neurostorm-bids 0.1.0."}
    picture = next(one for one in shown if one["type"] == "image/png")
    content = base64.b64decode(picture["base64"])
    assert content.startswith(b"\x89PNG")
    assert 100 <= struct.unpack(">I", content[16:20])[0] <= 800
    assert len(picture["base64"]) <= 100_000
    (prediction,) = product["neurostorm"]["predictions"]
    assert prediction["target"] == "age"
    assert prediction["unit"] == "years"
    assert isinstance(prediction["value"], float)
    without = {**product, "brainlife": [one for one in shown if one is not picture]}
    assert len(json.dumps(without)) < 4000
    assert str(task.parent) not in json.dumps(without)


def test_a_failure_is_told_in_the_product_and_by_the_exit_status(task):
    config = json.loads((task / "config.json").read_text())
    (task / "config.json").write_text(json.dumps({**config, "model": "no-such-model"}))
    status, product = run_here(task)
    assert status == 66
    assert product["brainlife"][0]["type"] == "error"
    assert "no-such-model" in product["brainlife"][0]["msg"]
    assert "exit status 66" in product["brainlife"][0]["msg"]


def test_a_run_that_fails_is_told_of(task):
    bold = task.parent / "5f9b2c1ea1b2c3d4e5f60710" / "bold.nii.gz"
    bold.write_bytes(bold.read_bytes()[:5000])
    status, product = run_here(task)
    assert status == 65
    assert product["brainlife"][0]["type"] == "error"
    assert "sub-S01" in product["brainlife"][0]["msg"]
    assert product["tags"] == []
    config = json.loads((task / "config.json").read_text())
    (task / "config.json").write_text(json.dumps({**config, "model": "no-such-model"}))
    _, product = run_here(task)
    assert "no-such-model" in product["brainlife"][0]["msg"]  # not what an earlier try met


def test_the_container_sees_the_folders_of_all_tasks(task, tmp_path):
    stub = tmp_path / "bin" / "apptainer"
    stub.parent.mkdir()
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@" >called\nexit 3\n')
    stub.chmod(0o755)
    path = f"{stub.parent}:/usr/bin:/bin"
    environment = {"PATH": path, "NEUROSTORM_IMAGE": "some image.sif"}
    done = subprocess.run([MAIN], cwd=task, env=environment, check=False)
    assert done.returncode == 3
    called = [word for word in (task / "called").read_text().splitlines() if word != "--nv"]
    assert called == [
        *("exec", "--cleanenv", "-B", str(task.parent), "--pwd", str(task)),
        *("some image.sif", "python", "-m", "neurostorm_bids.brainlife"),
    ]
    assert json.loads((task / "product.json").read_text())["brainlife"][0]["type"] == "error"


def test_a_container_that_never_ran_is_told_of(task):
    (task / "product.json").write_text("of an earlier try")
    done, product = run_main(task, "false")
    assert done.returncode == 1
    assert product["brainlife"][0]["type"] == "error"
    assert "exit status 1" in product["brainlife"][0]["msg"]


def test_the_example_of_a_configuration_is_read_up_to_its_files(tmp_path):
    shutil.copy(MAIN.with_name("config.json"), tmp_path)
    assert run_task(tmp_path) == 66
    product = json.loads((tmp_path / "product.json").read_text())
    assert "no such file" in product["brainlife"][0]["msg"]


def test_real_data_staged_by_brainlife_give_an_embedding(shared, source, tmp_path):
    func = shared / "realdata" / "fmriprep-semireal" / "sub-01" / "func"
    sidecar = json.loads(next(func.glob("*_bold.json")).read_text())
    meta = {"subject": "01", "run": "1", "RepetitionTime": sidecar["RepetitionTime"]}
    task = write_task(
        tmp_path,
        func,
        meta=meta,
        space="MNI152NLin2009cAsym",
        model=str(source / "models" / "demo-sex"),
        device="cpu",
    )
    done, product = run_main(task, sys.executable)
    assert done.returncode == 0, done.stderr
    assert product["neurostorm"]["predictions"][0]["target"] == "sex"
