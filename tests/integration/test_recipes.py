"""Every recipe runs as it stands, on a small cohort in the form of its dataset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.cohort import write_cohort
from benchmarks.planted import CohortPlan
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.pretrained import Model, Provenance, save_model
from neurostorm_bids.train.presets import find_preset

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"
PREPROCESSED = Path("derivatives", "fmriprep")


class ShortPlan(CohortPlan):
    """A cohort whose runs end after 36 seconds."""

    n_volumes = 18


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A cohort, an atlas of eight boxes, a tiny model, and the commands under their names."""
    folder = tmp_path_factory.mktemp("recipes")
    write_cohort(folder / "cohort", ShortPlan(n_participants=9, n_sessions=1))
    write_cohort(folder / "retest", ShortPlan(n_participants=4))
    write_atlas(folder / "boxes.nii.gz")
    write_model(folder / "model")
    (folder / "bin").mkdir()
    for name, module in (("neurostorm", "cli"), ("neurostorm-model", "model_cli")):
        command = folder / "bin" / name
        call = f"import sys; from neurostorm_bids.{module} import run; run()"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{call}" "$@"\n')
        command.chmod(0o755)
    return folder


def write_atlas(path):
    labels = np.zeros((24, 24, 24), dtype=np.int16)
    labels[4:20, 5:21, 4:20] = 1
    x, y, z = np.indices(labels.shape)
    labels *= (1 + (x >= 12) + 2 * (y >= 13) + 4 * (z >= 12)).astype(np.int16)
    affine = nib.affines.from_matvec(np.diag([8.0, 8.0, 8.0]), [-92, -128, -74])
    nib.save(nib.Nifti1Image(labels, affine), path)


def write_model(folder):
    torch.manual_seed(0)
    config, grid = find_preset("tiny")
    origin = Provenance(name="tiny", source="a test", sha256="", format="folder", notes=())
    model = Model(
        config=config,
        head_config=None,
        backbone=Backbone(config),
        head=None,
        grid=grid,
        target=None,
        provenance=origin,
    )
    save_model(model, folder)


@pytest.fixture
def cohort(made, tmp_path):
    """A copy of the cohort, to be given the form of another dataset."""
    return shutil.copytree(made / "cohort", tmp_path / "cohort")


def give_columns(cohort, **columns):
    """Rename columns of the participants, or give them new ones."""
    path = cohort / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    for name, source in columns.items():
        table[name] = table.pop(source) if isinstance(source, str) else source
    table.to_csv(path, sep="\t", index=False)
    (cohort / "participants.json").unlink()


def cook(made, recipe, dataset, output, **variables):
    """Run a recipe, and return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{made / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MODEL": str(made / "model"),
        "ATLAS": str(made / "boxes.nii.gz"),
        "FOLDS": "2",
        "DEVICE": "cpu",
    }
    finished = subprocess.run(
        [str(RECIPES / recipe), str(dataset), str(output)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def read_methods(folder):
    """Return the names of what was scored, the model first, and how many people were."""
    scores = json.loads((folder / "scores.json").read_text())
    people = {method["scores"]["n_participants"] for method in scores["methods"]}
    return [method["name"] for method in scores["methods"]], people


def test_adhd200_compares_two_pretrainings_in_the_same_splits(made, cohort, tmp_path):
    output = tmp_path / "out"
    printed = cook(
        made, "adhd200.sh", cohort, output, PRESET="tiny", STEPS="1", BATCH="1", SEED="3"
    )
    splits = [
        output / name / "finetune/diagnosis_linear/split.tsv" for name in ("random", "regions")
    ]
    assert splits[0].read_text() == splits[1].read_text()
    for name, mask in (("random", "random-random"), ("regions", "atlas-random")):
        assert (output / name / "models" / f"tiny_mae_{mask}" / "model.safetensors").is_file()
        assert (output / name / "finetune.html").is_file()
    assert printed.endswith((output / "compare.tsv").read_text())
    table = pd.read_csv(output / "compare.tsv", sep="\t").set_index("measure")
    assert table.loc["accuracy", "p_value"] <= 1
    assert "auroc" in table.index


def use_old_names(cohort):
    """Name derivatives as fMRIPrep did in 2017, without sidecars."""
    for path in (cohort / PREPROCESSED).rglob("*.json"):
        path.unlink()
    for path in (cohort / PREPROCESSED).rglob("sub-*_task-*"):
        name = path.name.replace("_desc-confounds_timeseries.tsv", "_bold_confounds.tsv")
        name = name.replace("_space-", "_bold_space-").replace("_desc-preproc_bold.", "_preproc.")
        name = name.replace("_desc-brain_mask.", "_brainmask.").replace("_ses-1", "")
        path.rename(path.with_name(name))
    for folder in (cohort / PREPROCESSED).glob("sub-*"):
        (folder / "ses-1" / "func").rename(folder / "func")


def test_ds000030_reads_derivatives_by_their_old_names(made, cohort, tmp_path):
    give_columns(cohort, ScannerSerialNumber="site")
    use_old_names(cohort)
    cook(made, "ds000030.sh", cohort, tmp_path / "out")
    methods, people = read_methods(tmp_path / "out/finetune/diagnosis_linear")
    assert methods == ["the model", "functional connectivity", "confounds only", "guess"]
    assert people == {9}
    stored = list((tmp_path / "out/.work/store/fmriprep").rglob("*.safetensors"))
    assert len(stored) == 9
    assert all("_task-rest_space-MNI152NLin6Asym_desc-preproc" in path.name for path in stored)


def test_hcp_ya_keeps_families_together(made, cohort, tmp_path):
    families = ["F1", "F1", "F2", "F2", "F3", "F3", "F4", "F4", "F5"]
    give_columns(cohort, Gender="sex", Age_in_Yrs="age", Family_ID=families)
    cook(made, "hcp_ya.sh", cohort, tmp_path / "out")
    for name in ("Gender_linear", "Age-in-Yrs_linear"):
        assert (tmp_path / "out" / "models" / name / "MODEL.md").is_file()
        split = pd.read_csv(tmp_path / "out/finetune" / name / "split.tsv", sep="\t")
        assert not split.groupby(families)["fold1"].agg(set).map(len).gt(1).any()


def test_abide_tests_each_site_in_turn(made, cohort, tmp_path):
    sites = pd.read_csv(cohort / "participants.tsv", sep="\t")["site"]
    dx_group = [1, 1, 2, 2, 1, 1, 2, 2, 1]
    give_columns(cohort, SITE_ID="site", DX_GROUP=dx_group)
    cook(made, "abide.sh", cohort, tmp_path / "out")
    split = pd.read_csv(tmp_path / "out/finetune/DX-GROUP_linear/split.tsv", sep="\t")
    for site in "ABC":
        assert (split.loc[sites == site, site] == "test").all()
        assert (split.loc[sites != site, site] == "train").all()


def test_ds000114_looks_for_people_across_sessions(made, tmp_path):
    cook(made, "ds000114.sh", made / "retest", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/group/reidentification.tsv", sep="\t")
    assert (table["apart"] == "session").all()
    assert (tmp_path / "out" / "group.html").is_file()


def test_every_recipe_is_in_the_index_and_says_that_it_was_not_run_on_the_real_data():
    index = (RECIPES / "README.md").read_text()
    recipes = sorted(RECIPES.glob("*.sh"))
    assert len(recipes) == 5
    for recipe in recipes:
        assert f"[`{recipe.name}`]({recipe.name})" in index
        head = recipe.read_text().partition("set -eu")[0]
        assert all(f"# {word}" in head for word in ("Data", "Source", "Question", "Expect"))
        assert "Not run on the real data here" in head
