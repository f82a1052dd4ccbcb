"""What the participant level writes is BIDS: to the validator, and to PyBIDS."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
from bids.layout import BIDSLayout

from neurostorm_bids.cli import main
from neurostorm_bids.demo import write_dataset, write_models

SOURCE = "sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-preproc"
VALIDATE = "from bids_validator_deno import cli; cli()"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return the output of two models on a dataset with a spoilt run, and what a kill leaves."""
    folder = tmp_path_factory.mktemp("bids")
    write_dataset(folder / "fmriprep", n_volumes=8)
    write_models(folder / "models")
    spoilt = next((folder / "fmriprep" / "sub-02" / "func").glob("*NLin6*_bold.nii.gz"))
    spoilt.write_bytes(spoilt.read_bytes()[:20_000])
    models = [str(folder / "models" / name) for name in ("demo-sex", "demo-age")]
    output = folder / "out"
    arguments = [str(folder / "fmriprep"), str(output), "participant", "--device", "cpu"]
    assert main([*arguments, "--model", *models]) == 1
    (output / "sub-01" / "func" / ".neurostorm-0123456789abcdef.tmp").write_text("half a fi")
    return output


@pytest.fixture(scope="module")
def layout(tree):
    return BIDSLayout(tree, config=["bids", "derivatives"], validate=False)


def validate(folder) -> dict:
    """Return the validator's errors and warnings by file."""
    report = subprocess.run(
        [sys.executable, "-c", VALIDATE, "--format", "json", folder],
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    issues = json.loads(report)["issues"]["issues"]
    return {issue.get("location"): (issue["severity"], issue["code"]) for issue in issues}


def test_the_validator_finds_no_error_and_no_warning(tree):
    assert validate(tree) == {}


def test_the_validator_would_find_a_file_that_is_not_bids(tree):
    path = tree / "sub-01" / "func" / f"{SOURCE}_unheardof.tsv"
    path.write_text("a\n1\n")
    try:
        assert f"/{path.relative_to(tree).as_posix()}" in validate(tree)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("suffix", "desc", "n_files"),
    [
        ("embedding", "scanDemoSex", 3),
        ("embedding", "clipDemoAge", 3),
        ("predictions", "sex", 3),
        ("predictions", "age", 3),
    ],
)
def test_pybids_finds_the_files_by_suffix_and_desc(layout, suffix, desc, n_files):
    files = layout.get(suffix=suffix, desc=desc, extension=".tsv")
    assert len(files) == n_files
    assert {file.entities["space"] for file in files} == {"MNI152NLin6Asym"}


def test_pybids_reads_the_sidecar_and_the_sources_are_where_it_says(layout, tree):
    (table,) = layout.get(suffix="predictions", desc="age", extension=".tsv", subject="01")
    sidecar = table.get_metadata()
    assert sidecar["ModelName"] == "demo-age"
    assert set(pd.read_csv(table.path, sep="\t").columns) <= set(sidecar)
    links = json.loads((tree / "dataset_description.json").read_text())["DatasetLinks"]
    for uri in sidecar["Sources"]:
        scheme, name, path = uri.split(":")
        assert scheme == "bids"
        assert (tree / links[name] / path).is_file()


def test_the_readme_of_the_output_shows_code_that_runs(tree, monkeypatch):
    monkeypatch.chdir(tree)
    code = (tree / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert len(names["embeddings"]) == len(names["runs"]) == 6


def test_pybids_does_not_see_what_a_killed_process_left(layout):
    assert not [path for path in layout.files if ".neurostorm" in path]
