"""The calls that BABS makes, in folders laid out as its jobs lay them out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile

import pandas as pd
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder

VALIDATE = "from bids_validator_deno import cli; cli()"
# What BABS writes for one session when the container's name has "fmriprep" in it.
FILTERS = {
    "fmap": {"datatype": "fmap", "session": "A"},
    "bold": {"datatype": "func", "session": "A", "suffix": "bold"},
    "sbref": {"datatype": "func", "session": "A", "suffix": "sbref"},
    "flair": {"datatype": "anat", "session": "A", "suffix": "FLAIR"},
    "t2w": {"datatype": "anat", "session": "A", "suffix": "T2w"},
    "t1w": {"datatype": "anat", "session": "A", "suffix": "T1w"},
    "roi": {"datatype": "anat", "session": "A", "suffix": "roi"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two people with the sessions A and B, one short run in each, and a tiny model."""
    folder = tmp_path_factory.mktemp("babs")
    write_cohort(folder / "plain", n_people=2, n_volumes=8)
    for name in ("dataset_description.json", "participants.tsv", "participants.json"):
        (folder / "fmriprep").mkdir(exist_ok=True)
        shutil.copy(folder / "plain" / name, folder / "fmriprep" / name)
    for path in folder.glob("plain/sub-*/func/*"):
        sub, rest = path.name.split("_", 1)
        for session in ("ses-A", "ses-B"):
            target = folder / "fmriprep" / sub / session / "func" / f"{sub}_{session}_{rest}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    write_encoder(folder)
    return folder


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job's folder: the clone ``ds``, which is also where the job runs."""
    ds = tmp_path / "job-1-1-sub-01-ses-A" / "ds"
    (ds / ".git" / "tmp" / "wkdir").mkdir(parents=True)
    (ds / "outputs" / "neurostorm").mkdir(parents=True)
    (ds / "inputs" / "data").mkdir(parents=True)
    monkeypatch.chdir(ds)
    return ds


def call(made, job, bids_dir, *arguments):
    """Call as BABS does: absolute folders, its own options first, the participant last."""
    own = ["-w", f"{job}/.git/tmp/wkdir", "--model", str(made / "demo-encoder"), "--device", "cpu"]
    folders = [f"{job}/{bids_dir}", f"{job}/outputs/neurostorm"]
    return main([*folders, "participant", *arguments, *own, "--participant-label", "sub-01"])


def zip_folder(folder, path):
    """Zip a folder under its own name, links refused."""
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(folder.rglob("*")):
            assert not one.is_symlink(), one
            archive.write(one, one.relative_to(folder.parent))


def unzip(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)


def list_sessions(folder):
    return sorted(path.name for path in folder.glob("sub-01/ses-*"))


def fetch_only(dataset, session):
    """Make a clone of which one session of sub-01 was fetched: all else are links to nothing."""
    for path in dataset.rglob("sub-*/**/*.nii.gz"):
        if not path.is_relative_to(dataset / "sub-01" / session):
            path.unlink()
            path.symlink_to(f"../../../.git/annex/objects/{path.name}/{path.name}")


def test_a_zipped_fmriprep_becomes_a_zip_that_is_a_valid_dataset(made, job, tmp_path):
    data = job / "inputs" / "data" / "fmriprep"
    data.mkdir()
    zip_folder(made / "fmriprep", data / "sub-01_ses-A_fmriprep-25-2-0.zip")
    unzip(data / "sub-01_ses-A_fmriprep-25-2-0.zip", data)
    assert call(made, job, "inputs/data/fmriprep/fmriprep", "--session-id", "ses-A") == 0
    zip_folder(job / "outputs" / "neurostorm", job / "sub-01_ses-A_neurostorm-0-1-0.zip")
    unzip(job / "sub-01_ses-A_neurostorm-0-1-0.zip", tmp_path / "unzipped")
    tree = tmp_path / "unzipped" / "neurostorm"
    assert list_sessions(tree) == ["ses-A"]
    assert pd.read_csv(tree / "participants.tsv", sep="\t")["participant_id"].tolist() == ["sub-01"]
    if shutil.which("bids-validator-deno"):
        report = subprocess.run(
            [sys.executable, "-c", VALIDATE, "--format", "json", tree],
            stdout=subprocess.PIPE,
            check=False,
        ).stdout
        assert json.loads(report)["issues"]["issues"] == []


def test_of_a_sparse_clone_only_the_session_that_was_fetched_is_read(made, job):
    shutil.copytree(made / "fmriprep", job / "inputs" / "data" / "fmriprep")
    fetch_only(job / "inputs" / "data" / "fmriprep", "ses-A")
    assert call(made, job, "inputs/data/fmriprep", "--session-id", "ses-A") == 0
    output = job / "outputs" / "neurostorm"
    assert list_sessions(output) == ["ses-A"]
    status = pd.concat(pd.read_csv(path, sep="\t") for path in output.glob("logs/*/status.tsv"))
    assert status["state"].tolist() == ["done"]


def test_the_filter_file_of_a_session_chooses_it(made, job):
    shutil.copytree(made / "fmriprep", job / "inputs" / "data" / "fmriprep")
    fetch_only(job / "inputs" / "data" / "fmriprep", "ses-A")
    (job / "ses-A_filter.json").write_text(json.dumps(FILTERS))
    filters = ["--bids-filter-file", f"{job}/ses-A_filter.json"]
    assert call(made, job, "inputs/data/fmriprep", *filters) == 0
    assert list_sessions(job / "outputs" / "neurostorm") == ["ses-A"]


def test_a_chosen_session_that_was_not_fetched_is_told_of(made, job, capsys):
    shutil.copytree(made / "fmriprep", job / "inputs" / "data" / "fmriprep")
    fetch_only(job / "inputs" / "data" / "fmriprep", "ses-A")
    assert call(made, job, "inputs/data/fmriprep") == 1
    said = capsys.readouterr().err
    assert "sub-01_ses-B" in said
    assert "datalad get" in said
    assert "sub-02" not in said
    assert list_sessions(job / "outputs" / "neurostorm") == ["ses-A"]


def test_zips_of_two_sessions_make_one_dataset_for_the_group_level(made, job, tmp_path):
    shutil.copytree(made / "fmriprep", job / "inputs" / "data" / "fmriprep")
    output = job / "outputs" / "neurostorm"
    for session in ("ses-A", "ses-B"):
        assert call(made, job, "inputs/data/fmriprep", "--session-id", session) == 0
        zip_folder(output, tmp_path / f"sub-01_{session}_neurostorm-0-1-0.zip")
        shutil.rmtree(output)
        unzip(tmp_path / f"sub-01_{session}_neurostorm-0-1-0.zip", tmp_path / "merged")
    tree = tmp_path / "merged" / "neurostorm"
    assert main([str(made / "fmriprep"), str(tree), "group"]) == 0
    table = pd.read_csv(tree / "group" / "embeddings.tsv", sep="\t")
    assert len(table) == 2
