"""The group level from outside: after the participant level, a call, the tables and the report."""

from __future__ import annotations

import hashlib
import html
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo import write_dataset, write_models

VALIDATE = "from bids_validator_deno import cli; cli()"
WRITTEN = [
    "group.html",
    "group/embeddings.json",
    "group/embeddings.parquet",
    "group/embeddings.tsv",
    "group/runs.json",
    "group/runs.tsv",
    "group/scores.json",
    "group/scores.tsv",
    "phenotype/neurostorm_age.json",
    "phenotype/neurostorm_age.tsv",
    "phenotype/neurostorm_sex.json",
    "phenotype/neurostorm_sex.tsv",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset in fMRIPrep's form, and what two models say of it."""
    folder = tmp_path_factory.mktemp("made")
    write_dataset(folder / "fmriprep", n_volumes=8)
    models = [str(path) for path in write_models(folder / "models")]
    call = [str(folder / "fmriprep"), str(folder / "out"), "participant", "--device", "cpu"]
    assert main([*call, "--model", *models]) == 0
    return folder


@pytest.fixture
def study(made, tmp_path):
    """A copy that a test may change, but for the source, whose files are links."""
    shutil.copytree(made / "out", tmp_path / "out")
    shutil.copytree(made / "fmriprep", tmp_path / "fmriprep", copy_function=os.link)
    return tmp_path


def call(study, *arguments):
    return main([str(study / "fmriprep"), str(study / "out"), "group", *arguments])


def hash_tree(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "logs"
    }


def read(study, name):
    return pd.read_csv(study / "out" / name, sep="\t", dtype={"session": str})


def test_the_group_level_writes_what_it_promises_and_changes_nothing_else(study):
    before = hash_tree(study / "out")
    n_logs = len(list((study / "out" / "logs").iterdir()))
    assert call(study) == 0
    after = hash_tree(study / "out")
    assert len(list((study / "out" / "logs").iterdir())) == n_logs + 1
    assert sorted(after.keys() - before.keys()) == WRITTEN
    assert {name: after[name] for name in before} == before


def test_a_call_of_both_levels_reads_the_models_that_it_ran(study):
    options = ["--model", str(study / "models" / "demo-age"), "--participant-label", "01"]
    write_models(study / "models")
    call = [str(study / "fmriprep"), str(study / "out"), "participant", "group", *options]
    assert main(call) == 0
    assert len(read(study, "phenotype/neurostorm_age.tsv")) == 1


def test_two_calls_write_the_same(study):
    assert call(study) == 0
    first = hash_tree(study / "out")
    assert call(study) == 0
    assert hash_tree(study / "out") == first


def test_the_validator_finds_no_error_and_no_warning(study):
    assert call(study) == 0
    report = subprocess.run(
        [sys.executable, "-c", VALIDATE, "--format", "json", study / "out"],
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    assert json.loads(report)["issues"]["issues"] == []


def test_tables_hold_what_the_participant_level_wrote(study):
    assert call(study) == 0
    ages = read(study, "phenotype/neurostorm_age.tsv").set_index("participant_id")
    assert ages["n_runs"].to_dict() == {"sub-01": 1, "sub-02": 1, "sub-03": 2}
    paths = (study / "out").glob("sub-03/ses-*/func/*_desc-age_predictions.tsv")
    tables = [pd.read_csv(path, sep="\t") for path in paths]
    runs = [table.loc[table["level"] == "run", "value"].item() for table in tables]
    assert ages.loc["sub-03", "value"] == pytest.approx(sum(runs) / 2, rel=1e-6)
    embeddings = read(study, "group/embeddings.tsv")
    assert len(embeddings) == 2 * 4
    assert embeddings.groupby("model").size().to_dict() == {"demo-age": 4, "demo-sex": 4}
    path = next((study / "out").glob("sub-01/func/*_desc-scanDemoAge_embedding.tsv"))
    own = embeddings.query("participant_id == 'sub-01' and model == 'demo-age'")
    assert own["dim000"].item() == pd.read_csv(path, sep="\t")["dim000"].item()
    quality = read(study, "group/runs.tsv")
    assert quality["mean_fd"].between(0, 0.1).all()
    scores = read(study, "group/scores.tsv").set_index(["target", "measure"])
    assert scores.loc[("age", "mae"), "n_participants"] == 3


def test_every_column_is_declared(study):
    assert call(study) == 0
    for name in [name for name in WRITTEN if name.endswith(".tsv")]:
        sidecar = json.loads((study / "out" / name.replace(".tsv", ".json")).read_text())
        assert set(read(study, name).columns) <= set(sidecar), name


def test_a_filter_is_honoured_and_the_tables_tell_of_the_last_call(study):
    assert call(study) == 0
    assert call(study, "--participant-label", "01", "--target", "age") == 0
    assert read(study, "phenotype/neurostorm_age.tsv")["participant_id"].tolist() == ["sub-01"]
    assert len(read(study, "phenotype/neurostorm_sex.tsv")) == 3
    assert not (study / "out" / "group" / "scores.tsv").exists()


def test_a_damaged_sidecar_ends_with_status_1_and_the_others_go_on(study, capsys):
    sidecar = next((study / "out").glob("sub-01/func/*_desc-age_predictions.json"))
    sidecar.write_text("{")
    assert call(study) == 1
    assert sidecar.with_suffix("").name in capsys.readouterr().err
    ages = read(study, "phenotype/neurostorm_age.tsv")
    assert ages["participant_id"].tolist() == ["sub-02", "sub-03"]


PEOPLE = "participant_id\tage\tsex\nsub-01\t24\tF\nsub-02\t31\tM\nsub-03\t58\tF\n"


ROW = "sub-02\t31\tM"


@pytest.mark.parametrize(
    ("planted", "told", "is_warning"),
    [
        (("\t58\t", "\t696\t"), "1 value(s) of 'age' lie outside 0 to 120 (696)", True),
        (("\t58\t", "\t-999\t"), "1 value(s) of 'age' lie outside 0 to 120 (-999)", True),
        (("sub-03", "sub-01"), "gives participant 01 two different values of 'age'", True),
        (("\tM\n", "\tdiverse\n"), "no class of the model (F, M)", True),
        ((ROW, f"{ROW} \n{ROW}"), "removed blanks at the ends", False),
        ((ROW, f"{ROW}\n{ROW}"), "repeat an earlier one", False),
    ],
    ids=["months", "code", "twice", "class", "blanks", "again"],
)
def test_a_trap_in_the_table_of_the_truth_is_told(study, capsys, planted, told, is_warning):
    table = study / "fmriprep" / "participants.tsv"
    assert table.read_text() == PEOPLE
    table.unlink()  # a link to what other tests read
    table.write_text(PEOPLE.replace(*planted))
    assert call(study) == 0
    page = html.unescape((study / "out" / "group.html").read_text())
    assert told in page
    warned = page.split('class="warnings"')[1].split("</section>")[0] if is_warning else ""
    assert (told in warned) == is_warning
    assert (told in capsys.readouterr().err) == is_warning


def test_a_dry_run_lists_files_and_writes_nothing(study, capsys):
    before = hash_tree(study / "out")
    assert call(study, "--dry-run", "--session-id", "A") == 0
    told = capsys.readouterr().out
    assert "1 participant(s), 1 run(s), 2 model(s)" in told
    assert "--session-id asks for A" in told
    assert hash_tree(study / "out") == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--participant-label", "09"], 18, "There are: 01, 02, 03"),
        (["--task-id", "nback"], 18, "Ask for less"),
        (["--target", "iq"], 2, "predicted: age, sex"),
        (["--target", "age=Age"], 2, "No column 'Age'"),
        (["--target", "=age"], 2, "NAME=COLUMN"),
        (["--color-by", "height"], 2, "No column 'height'"),
        (["--model", "large"], 18, "--model asks for large"),
        (["--device", "cpu"], 2, "--device belongs to"),
    ],
)
def test_what_cannot_be_done_is_explained(made, arguments, status, message, capsys):
    call = [str(made / "fmriprep"), str(made / "out"), "group", *arguments]
    assert main(call) == status
    assert message in capsys.readouterr().err
    assert not (made / "out" / "group.html").exists()


def test_before_the_participant_level_there_is_nothing_to_do(made, tmp_path, capsys):
    assert main([str(made / "fmriprep"), str(tmp_path / "out"), "group"]) == 18
    assert "Run the participant level first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_level_needs_no_torch(study):
    program = (
        "import sys; from neurostorm_bids.cli import main; "
        f"status = main([{str(study / 'fmriprep')!r}, {str(study / 'out')!r}, 'group']); "
        "sys.exit('imported torch' if 'torch' in sys.modules else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
