"""BIDS_DIR as an address of OpenNeuro, with repositories on this disk in place of the network's."""

from __future__ import annotations

import os
import shutil
import subprocess

import pandas as pd
import pytest

from neurostorm_bids import openneuro
from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder
from neurostorm_bids.errors import UsageError

needs_annex = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("git-annex") is None,
    reason="git-annex is not installed",
)
KEYS = ("NAME", "EMAIL")
DATASET = "ds000228"
CLONE = f"openneuro/{DATASET}-fmriprep"


def git(folder, *arguments):
    identity = {f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in KEYS}
    subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **identity},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A repository without contents; a special remote that enables itself has them."""
    folder = tmp_path_factory.mktemp("published")
    origin, store = folder / f"{DATASET}-fmriprep.git", folder / "store.git"
    write_cohort(origin, n_people=2, n_volumes=8)
    for path in origin.glob("atlas*"):
        path.unlink()
    store.mkdir()
    git(store, "init", "--bare", "--quiet")
    git(store, "annex", "init", "store")
    git(origin, "init", "--quiet")
    git(origin, "annex", "init", "origin")
    # As on OpenNeuro, tables and images are annexed; here one sidecar as well.
    git(origin, "annex", "add", "--force-large", *find_annexed(origin))
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "-m", "Derivatives")
    git(origin, "remote", "add", "store", str(store))
    location = f"location={store}"
    git(origin, "annex", "initremote", "s3", "type=git", location, "autoenable=true")
    git(origin, "annex", "move", "--to", "store", ".")
    write_encoder(folder)
    return folder


def find_annexed(origin):
    images = [*origin.rglob("*.nii.gz"), *origin.rglob("*confounds*.tsv")]
    sidecars = origin.glob("sub-01/func/*_bold.json")
    return [str(path.relative_to(origin)) for path in [*images, *sidecars]]


@pytest.fixture
def address(published, monkeypatch):
    monkeypatch.setattr(openneuro, "REPOSITORY", str(published / "{dataset}-fmriprep.git"))
    return f"openneuro://{DATASET}"


def call(published, address, output, *arguments):
    level = ["participant", "--device", "cpu", "--model", str(published / "demo-encoder")]
    return main([address, str(output), *level, *arguments])


def list_fetched(clone):
    """List what is there, but for masks: those of all participants are one object here."""
    paths = [*clone.rglob("sub-*/**/*.nii.gz"), *clone.rglob("sub-*/**/*.tsv")]
    return sorted(path.name for path in paths if path.exists() and "mask" not in path.name)


NAMES = [
    "sub-01_task-rest_desc-confounds_timeseries.tsv",
    "sub-01_task-rest_space-MNI152NLin6Asym_desc-brain_mask.nii.gz",
    "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz",
]


@needs_annex
def test_only_the_files_of_the_chosen_runs_are_fetched(published, address, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(published, address, output, "--participant-label", "01") == 0
    assert list_fetched(output / ".work" / CLONE) == [NAMES[0], NAMES[2]]
    assert "Fetching 4 file(s)" in capsys.readouterr().err
    table = pd.read_csv(output / "participants.tsv", sep="\t")
    assert table["participant_id"].tolist() == ["sub-01"]
    assert len(list(output.glob("sub-01/func/*_embedding.tsv"))) == 2
    assert "openneuro://" not in (output / "dataset_description.json").read_text()
    # Nothing is fetched a second time, and nothing was written to the published repository.
    assert call(published, address, output, "--participant-label", "01") == 0
    said = capsys.readouterr().err
    assert "Nothing to do" in said
    assert "Fetching" not in said
    assert "Cloning" not in said


@needs_annex
def test_what_was_fetched_is_given_up_on_request(published, address, tmp_path):
    arguments = ["-w", str(tmp_path / "work"), "--participant-label", "02", "--drop-after"]
    assert call(published, address, tmp_path / "out", *arguments) == 0
    assert list_fetched(tmp_path / "work" / CLONE) == []
    assert len(list(tmp_path.glob("out/sub-02/func/*_embedding.tsv"))) == 2


@needs_annex
def test_a_dry_run_fetches_nothing_and_lists_what_would_be(published, address, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(published, address, output, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "7 file(s)" in said
    assert all(name in said for name in NAMES)
    assert "unusable" not in said
    assert list_fetched(output / ".work" / CLONE) == []


@needs_annex
def test_the_group_level_of_the_same_call_reads_the_clone(published, address, tmp_path):
    output = tmp_path / "out"
    levels = ["participant", "group", "--device", "cpu"]
    model = ["--model", str(published / "demo-encoder")]
    assert main([address, str(output), *levels, *model]) == 0
    assert len(pd.read_csv(output / "group" / "embeddings.tsv", sep="\t")) == 2


@needs_annex
def test_content_that_nobody_has_any_more_is_told_of(published, address, tmp_path, capsys):
    store = published / "store.git"
    store.rename(published / "gone.git")
    try:
        status = call(published, address, tmp_path / "out", "--participant-label", "01")
    finally:
        (published / "gone.git").rename(store)
    assert status == 74
    said = capsys.readouterr().err
    assert "could be fetched, 0 of" in said
    assert "s3" in said or "not available" in said


@needs_annex
@pytest.mark.usefixtures("address")
def test_a_dataset_that_is_not_there_is_told_of(published, tmp_path, capsys):
    assert call(published, "openneuro://ds999999", tmp_path / "out") == 74
    assert "ds999999-fmriprep.git cannot be cloned" in capsys.readouterr().err
    assert not (tmp_path / "out" / ".work" / "openneuro" / "ds999999-fmriprep").exists()


def test_without_git_annex_the_error_says_what_to_install(address, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main([address, str(tmp_path / "out"), "participant", "--model", "any"]) == 66
    assert "Install git-annex" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["ds228", "ds000228/../../x", "--upload-pack=x", "ds000228;ls", "DS000228", ""]
)
def test_a_name_that_is_none_of_openneuro_is_refused(name, tmp_path, capsys):
    assert main([f"openneuro://{name}", str(tmp_path / "out"), "participant"]) == 2
    assert "Expected an address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["openneuro://ds000228", "OUT", "group"],
        ["openneuro://ds000228", "OUT", "participant", "--executor", "slurm"],
        ["openneuro://ds000228", "OUT", "participant", "--run-fmriprep"],
        ["data", "OUT", "participant", "--drop-after"],
    ],
)
def test_where_an_address_has_no_effect_it_is_refused(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == UsageError.exit_status
    assert "address" in capsys.readouterr().err
