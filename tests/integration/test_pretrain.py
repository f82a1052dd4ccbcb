"""The pretrain level from outside: a call of the command, then what it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

import neurostorm_bids
from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import N_NETWORKS, write_dataset
from neurostorm_bids.model.checkpoints import read_checkpoint
from neurostorm_bids.train import outcome, presets
from neurostorm_bids.train.files import read_weights

QUICK = ["--preset", "tiny", "--max-steps", "4", "--batch-size", "2", "--evaluate-every", "2"]
MAE = "tiny_mae_window-random"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "fmriprep"
    write_dataset(folder, n_volumes=16)
    return folder


@pytest.fixture(scope="session")
def atlas(dataset, tmp_path_factory):
    """The slabs of the brain that fluctuate together in the dataset, with their names."""
    folder = tmp_path_factory.mktemp("atlas")
    image = nib.load(next(dataset.glob("sub-01/func/*NLin6Asym*_mask.nii.gz")))
    slab = 1 + np.arange(image.shape[1]) * N_NETWORKS // image.shape[1]
    labels = np.asarray(image.dataobj) * slab[:, None].astype(np.int16)
    nib.save(nib.Nifti1Image(labels.astype(np.int16), image.affine), folder / "slabs.nii.gz")
    numbers = range(1, N_NETWORKS + 1)
    names = pd.DataFrame({"index": numbers, "name": [f"slab{i}" for i in numbers]})
    names.to_csv(folder / "slabs.tsv", sep="\t", index=False)
    return folder / "slabs.nii.gz"


def call(dataset, output, *arguments):
    return main(
        [str(dataset), str(output), "pretrain", "--device", "cpu", "--nprocs", "1", *arguments]
    )


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "out"
    assert call(dataset, output, *QUICK, "--validation-share", "0.4") == 0
    return output


def test_the_model_goes_straight_into_the_participant_level(dataset, trained, tmp_path):
    model = trained / "models" / MAE
    arguments = ["participant", "--model", str(model), "--participant-label", "01"]
    assert main([str(dataset), str(tmp_path / "out"), *arguments, "--device", "cpu"]) == 0
    (path,) = (tmp_path / "out").rglob("*_desc-scan_embedding.tsv")
    assert np.isfinite(pd.read_csv(path, sep="\t").to_numpy()).all()


def test_the_model_is_the_best_of_the_training_with_its_decoder(trained):
    folder = trained / ".work" / "training" / MAE
    best = read_weights(folder / "best.ckpt")
    checkpoint = read_checkpoint(trained / "models" / MAE)
    model = neurostorm_bids.load_model(trained / "models" / MAE)
    assert model.head is None
    for key, value in model.backbone.state_dict().items():
        np.testing.assert_array_equal(value, best[f"backbone.{key}"])
    assert "decoder_pred.weight" in checkpoint.decoder_weights
    assert (
        "predicting the mean visible patch loses"
        in (trained / "models" / MAE / "MODEL.md").read_text()
    )


def test_the_loss_falls_and_the_report_tells_it_beside_the_baselines(trained):
    rows = pd.read_csv(trained / ".work" / "training" / MAE / "validation.csv")
    assert rows["step"].tolist() == [0, 2, 4]
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]
    page = (trained / "pretrain.html").read_text()
    assert "voxel" in page
    assert page.count("<img") >= 2
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the report loads something"
    assert str(trained) not in page


def test_trivial_predictors_see_all_clips_of_the_evaluation(dataset, trained, monkeypatch):
    def read_losses():
        text = (trained / "models" / MAE / "MODEL.md").read_text()
        return re.findall(r"visible patch loses ([\d.]+), .* it is visible ([\d.]+)", text)

    before = read_losses()
    monkeypatch.setattr(outcome, "MAX_CLIPS", 1)
    assert call(dataset, trained, *QUICK, "--validation-share", "0.4") == 0
    assert read_losses() == before != []


def test_nobody_is_trained_on_and_evaluated_on(trained):
    notes = json.loads((trained / "models" / MAE / "config.json").read_text())["provenance"][
        "notes"
    ]
    (data,) = [note for note in notes if note.startswith("Data")]
    assert "of 2 participant(s) to train on" in data
    assert "of 1 others to evaluate on" in data


def test_the_same_call_again_trains_nothing_more(dataset, trained, capsys):
    before = (trained / ".work" / "training" / MAE / "training.csv").read_bytes()
    assert call(dataset, trained, *QUICK, "--validation-share", "0.4") == 0
    assert "Going on after update 4 of 4" in capsys.readouterr().err
    assert (trained / ".work" / "training" / MAE / "training.csv").read_bytes() == before


def test_a_killed_training_ends_with_the_same_weights(dataset, trained, tmp_path):
    output = tmp_path / "out"
    arguments = [*QUICK, "--validation-share", "0.4", "--checkpoint-every", "1"]
    command = [sys.executable, "-m", "neurostorm_bids", str(dataset), str(output), "pretrain"]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--nprocs", "1", *arguments],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    last = output / ".work" / "training" / MAE / "last.ckpt"
    while process.poll() is None and not last.exists():
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "models").exists()
    assert call(dataset, output, *arguments) == 0
    weights = [folder / "models" / MAE / "model.safetensors" for folder in (output, trained)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("mask", ["random/random", "atlas/random", "atlas/tube"])
def test_any_mask_trains_and_the_report_shows_errors_by_region(dataset, atlas, tmp_path, mask):
    output = tmp_path / "out"
    assert call(dataset, output, *QUICK, "--atlas", str(atlas), "--mask", mask) == 0
    name = f"tiny_mae_{mask.replace('/', '-')}"
    rows = pd.read_csv(output / ".work" / "training" / name / "validation.csv")
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]
    page = (output / "pretrain.html").read_text()
    assert "Error by region of slabs" in page
    assert all(f"slab{i}" in page for i in range(1, N_NETWORKS + 1))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--objective", "contrastive"],
        ["--objective", "mae+contrastive", "--strd", "--augment"],
        ["--strd", "--strd-kind", "published", "--ema-decay", "0.9", "--store-bits", "16"],
    ],
)
def test_every_objective_trains_and_leaves_a_model(dataset, tmp_path, arguments):
    assert call(dataset, tmp_path / "out", *QUICK, *arguments) == 0
    (folder,) = (tmp_path / "out" / "models").iterdir()
    assert neurostorm_bids.load_model(folder).config.embed_dim == 12


def test_a_longer_clip_starts_from_a_shorter_checkpoint(dataset, trained, tmp_path, monkeypatch):
    tiny = presets.find_preset("tiny")
    longer = presets.Preset(replace(tiny.config, img_size=(24, 24, 24, 12)), tiny.grid)
    monkeypatch.setitem(presets._PRESETS, "tiny", longer)
    start = ["--model", str(trained / "models" / MAE)]
    assert call(dataset, tmp_path / "out", *QUICK, *start) == 0
    (folder,) = (tmp_path / "out" / "models").iterdir()
    longer = neurostorm_bids.load_model(folder)
    assert longer.clip_length == 12
    first, second = longer.provenance.lessons
    assert first == second, "both trainings saw the same files"
    n_runs = len(list((trained / ".work" / "store").rglob("*.safetensors")))
    assert (first.target, len(first.marks.split())) == (None, n_runs)


def test_weights_of_another_size_are_refused(dataset, trained, tmp_path, capsys):
    start = ["--model", str(trained / "models" / MAE), "--embed-dim", "16"]
    assert call(dataset, tmp_path / "out", *QUICK, *start) == 2
    assert "embed_dim 12 (the preset's 16)" in capsys.readouterr().err


def test_other_settings_do_not_go_on_with_a_training(dataset, trained, capsys):
    assert call(dataset, trained, *QUICK, "--validation-share", "0.4", "--mask-ratio", "0.8") == 2
    assert "mask_ratio" in capsys.readouterr().err


def test_two_trainings_do_not_share_a_folder(dataset, tmp_path, capsys):
    folder = tmp_path / "out" / ".work" / "training" / MAE
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        assert call(dataset, tmp_path / "out", *QUICK) == 75
    assert "Another training works in" in capsys.readouterr().err


def test_one_participant_is_not_enough(dataset, tmp_path, capsys):
    arguments = ["--participant-label", "01"]
    assert call(dataset, tmp_path / "out", *QUICK, *arguments) == 65
    assert "at least two participants" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mask", "brain/tube"], "brain/tube"),
        (["--mask", "atlas/tube"], "needs regions"),
        (["--preset", "huge"], "tiny, base"),
        (["--overwrite"], "belongs to the level participant"),
        (["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
        (["--sampling-weight", "fmriprep"], "NAME=WEIGHT"),
        (["--mask-ratio", "1.5"], "between 0 and 1"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(dataset, tmp_path, capsys, arguments, message):
    assert call(dataset, tmp_path / "out", *QUICK, *arguments) == 2
    assert message in capsys.readouterr().err


def test_an_option_of_pretraining_is_refused_elsewhere(dataset, tmp_path, capsys):
    assert main([str(dataset), str(tmp_path), "participant", "--mask", "random/tube"]) == 2
    assert "--mask belongs to the level pretrain" in capsys.readouterr().err


def test_a_bad_run_is_left_out_told_and_in_the_exit_status(dataset, tmp_path):
    bad = shutil.copytree(dataset, tmp_path / "fmriprep")
    for path in (bad / "sub-03" / "ses-A" / "func").glob("*NLin6*_bold.nii.gz"):
        path.write_bytes(path.read_bytes()[:5_000])
    for path in (bad / "sub-03" / "ses-B" / "func").glob("*NLin6*_bold.json"):
        path.unlink()
    output = tmp_path / "out"
    assert call(bad, output, *QUICK) == 1
    (table,) = output.glob("logs/*/status.tsv")
    states = pd.read_csv(table, sep="\t")["state"].value_counts()
    assert states.to_dict() == {"done": 2, "failed": 2}
    assert "Runs that could not be used" in (output / "pretrain.html").read_text()


def test_what_pretraining_leaves_is_a_dataset_that_bids_accepts(trained):
    validator = shutil.which("bids-validator-deno", path=Path(sys.executable).parent)
    done = subprocess.run([validator, trained], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout + done.stderr
