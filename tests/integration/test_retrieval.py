"""Retrieval from outside, on the synthetic cohort: who is this, and which image was seen."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.cohort import write_cohort
from benchmarks.planted import CohortPlan
from neurostorm_bids.cli import main
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.pretrained import Model, Provenance, save_model

VALIDATE = "from bids_validator_deno import cli; cli()"
N_PEOPLE = 10
CONFIG = ModelConfig(
    img_size=(24, 24, 24, 4),
    embed_dim=32,
    depths=(1, 1),
    window_size=(4, 4, 4, 4),
    first_window_size=(4, 4, 4, 4),
    patch_size=(4, 4, 4, 1),
    last_layer_full_msa=False,
    d_state=4,
)
"""With the grid's 2 seconds a clip lasts for 8: half of a block."""


def write_model(folder):
    torch.manual_seed(0)
    rows = GridSpec.published(24)
    grid = GridSpec(space=rows.space, shape=rows.shape, affine=rows.affine, repetition_time_s=2.0)
    model = Model(
        config=CONFIG,
        head_config=None,
        backbone=Backbone(CONFIG),
        head=None,
        grid=grid,
        target=None,
        provenance=Provenance(name="random", source="a test", sha256="", format="folder"),
    )
    save_model(model, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort and what the participant level says of its blocks, without any network."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    folder = tmp_path_factory.mktemp("made")
    write_cohort(folder / "cohort", CohortPlan(n_participants=N_PEOPLE))
    write_model(folder / "model")
    call = [str(folder / "cohort"), str(folder / "out"), "participant", "--device", "cpu"]
    call += ["--model", str(folder / "model"), "--task-id", "blocks", "--nprocs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPLATEFLOW_HOME", str(tmp_path_factory.mktemp("templateflow")))
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        assert main([*call, "--connectivity", "auto"]) == 0
        before = sorted(path.stat().st_mtime_ns for path in (folder / "out").rglob("*_relmat.*"))
        assert main([*call, "--connectivity", "auto"]) == 0  # nothing is left to do
    after = sorted(path.stat().st_mtime_ns for path in (folder / "out").rglob("*_relmat.*"))
    assert before == after
    assert len(before) == 2 * 2 * N_PEOPLE
    return folder


@pytest.fixture
def call(made, tmp_path):
    """Return what calls the group level, with results and raw dataset of its own."""
    shutil.copytree(made / "out", tmp_path / "out")
    shutil.copytree(made / "cohort", tmp_path / "raw", ignore=shutil.ignore_patterns("fmriprep"))

    def run(*arguments):
        return main([str(tmp_path / "raw"), str(tmp_path / "out"), "group", *map(str, arguments)])

    return run


def read(folder, name):
    return pd.read_csv(folder / "out" / "group" / name, sep="\t")


def test_people_and_images_are_found_and_the_tree_stays_valid(call, tmp_path):
    assert call("--stimuli", tmp_path / "raw" / "stimuli" / "embeddings.tsv") == 0
    people = read(tmp_path, "reidentification.tsv").query("measure == 'rank1'")
    people = people.set_index("features")
    assert (people["low"] > people["chance"]).all()
    assert people.loc["connectivity (Seitzman2018)", "value"] > 0.9
    images = read(tmp_path, "images.tsv").query("measure == 'rank1'")
    assert set(images["design"]) == {"within", "across"}
    assert (images["low"] > images["chance"]).all()
    assert (images["n_seen"] == 0).all()
    found = subprocess.run(
        [sys.executable, "-c", VALIDATE, "--format", "json", tmp_path / "out"],
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    assert json.loads(found)["issues"]["issues"] == []


def test_shuffled_images_are_found_by_chance(call, tmp_path):
    generator = np.random.default_rng(4)
    for path in sorted((tmp_path / "raw").rglob("*_events.tsv")):
        events = pd.read_csv(path, sep="\t")
        events["stim_file"] = generator.permutation(events["stim_file"])
        events.to_csv(path, sep="\t", index=False)
    table = pd.read_csv(tmp_path / "raw" / "stimuli" / "embeddings.tsv", sep="\t")
    names = table.pop("stim_file").to_numpy(str)
    np.savez(tmp_path / "images.npz", stim_file=names, embedding=table.to_numpy())
    assert call("--stimuli", tmp_path / "images.npz") == 0
    images = read(tmp_path, "images.tsv").query("measure == 'rank1'")
    assert (images["value"] < 2 * images["chance"]).all()
    assert (images["low"] < images["chance"]).all()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("images.pkl", (2, "not 'images.pkl'")),
        ("images.tsv", (66, "No ")),
        ("images.npz", (65, "not a usable .npz archive")),
    ],
)
def test_stimuli_that_cannot_be_read_are_refused_in_a_sentence(made, tmp_path, capsys, name, told):
    if name != "images.tsv":
        (tmp_path / name).write_bytes(b"PK\x03\x04 no archive")
    call = [str(made / "cohort"), str(made / "out"), "group", "--stimuli", str(tmp_path / name)]
    assert main(call) == told[0]
    message = capsys.readouterr().err
    assert told[1] in message
    assert "Traceback" not in message
