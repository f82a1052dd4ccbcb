"""Other programs' names, cleaning and censoring from outside: real series, whole commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_dataset, write_encoder

RUN = "sub-01_task-mixedgamblestask_run-1"
IMAGE = f"{RUN}_space-MNI152NLin2009cAsym"
MOTION = '{"strategy": ["motion"], "motion": "basic"}'


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return str(write_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def semireal(shared, tmp_path):
    """A copy of one real run under fMRIPrep's names, that a test may change."""
    source = shared / "realdata" / "fmriprep-semireal"
    folder = tmp_path / "fmriprep"
    shutil.copytree(source / "sub-01", folder / "sub-01")
    shutil.copy(source / "dataset_description.json", folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def call(folder, output, encoder, *arguments):
    words = [str(folder), str(output), "participant", "--device", "cpu", "--nprocs", "1"]
    return main([*words, "--model", encoder, *arguments])


def read(output, kind="scan", end="tsv"):
    first = f"[{kind[0]}{kind[0].upper()}]"
    (path,) = output.rglob(f"*{first}{kind[1:]}_embedding.{end}")
    return json.loads(path.read_text()) if end == "json" else pd.read_csv(path, sep="\t")


def list_outputs(output):
    return sorted(path.name for path in output.rglob("*_embedding.tsv"))


def rename(folder, new_names):
    func = folder / "sub-01" / "func"
    for old, new in new_names.items():
        (func / old).rename(func / new)


@pytest.fixture(scope="session")
def expected(shared, encoder, tmp_path_factory):
    """What comes of the run under the names of today."""
    output = tmp_path_factory.mktemp("expected")
    folder = shared / "realdata" / "fmriprep-semireal"
    assert call(folder, output, encoder, "--participant-label", "01") == 0
    return read(output)


OLD = f"{RUN}_bold_space-MNI152NLin2009cAsym"
VARIANTS = {
    "fmriprep-1": {
        f"{IMAGE}_desc-preproc_bold.nii.gz": f"{OLD}_preproc.nii.gz",
        f"{IMAGE}_desc-preproc_bold.json": f"{OLD}_preproc.json",
        f"{IMAGE}_desc-brain_mask.nii.gz": f"{OLD}_brainmask.nii.gz",
        f"{RUN}_desc-confounds_timeseries.tsv": f"{RUN}_bold_confounds.tsv",
    },
    "xcpd": {
        f"{IMAGE}_desc-preproc_bold.nii.gz": f"{IMAGE}_res-2_desc-denoised_bold.nii.gz",
        f"{IMAGE}_desc-preproc_bold.json": f"{IMAGE}_res-2_desc-denoised_bold.json",
        f"{IMAGE}_desc-brain_mask.nii.gz": f"{IMAGE}_res-2_desc-brain_mask.nii.gz",
        f"{RUN}_desc-confounds_timeseries.tsv": f"{RUN}_motion.tsv",
    },
    "brainlife": {
        f"{RUN}_desc-confounds_timeseries.tsv": f"{RUN}_desc-confounds_regressors.tsv",
    },
    "hcp": {
        f"{IMAGE}_desc-preproc_bold.nii.gz": f"{IMAGE}_bold.nii.gz",
        f"{IMAGE}_desc-preproc_bold.json": f"{IMAGE}_bold.json",
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_series_gives_the_same_embedding_under_every_program_s_names(
    variant, semireal, encoder, expected, tmp_path
):
    rename(semireal, VARIANTS[variant])
    output = tmp_path / "out"
    assert call(semireal, output, encoder, "--fd-threshold", "9") == 0
    pd.testing.assert_frame_equal(read(output), expected)
    stem = f"{IMAGE}_res-2_desc-denoised" if variant == "xcpd" else f"{IMAGE}_desc-"
    names = ("Clip", "Scan") if variant == "xcpd" else ("clip", "scan")
    assert list_outputs(output) == [f"{stem}{name}_embedding.tsv" for name in names]


@pytest.mark.parametrize("below", ["sub-01", "sub-01/func", "..", "../.."])
def test_a_folder_too_low_or_too_high_gives_the_same(below, semireal, encoder, expected, tmp_path):
    study = tmp_path / "study" / "derivatives"
    study.mkdir(parents=True)
    folder = semireal.rename(study / "prep")
    output = tmp_path / "out"
    assert call((folder / below).resolve(), output, encoder) == 0
    pd.testing.assert_frame_equal(read(output), expected)


def test_denoising_is_told_in_the_sidecar_and_is_computed_anew(
    semireal, encoder, expected, tmp_path
):
    output = tmp_path / "out"
    assert call(semireal, output, encoder) == 0
    assert call(semireal, output, encoder, "--denoise", MOTION) == 0
    assert not np.allclose(read(output), expected)
    sidecar = read(output, end="json")
    assert sidecar["Denoising"]["Strategy"] == "custom"
    assert sidecar["Denoising"]["Arguments"] == json.loads(MOTION)
    assert sidecar["Denoising"]["NumberOfRegressors"] == 6
    assert "rot_x" in sidecar["Denoising"]["Regressors"]
    assert sidecar["Sources"][2].endswith(f"func/{RUN}_desc-confounds_timeseries.tsv")
    assert any("Regressed 6 independent confounds" in one for one in sidecar["PreparationSteps"])
    assert call(semireal, output, encoder) == 0
    pd.testing.assert_frame_equal(read(output), expected)


def test_a_table_of_another_length_fails_the_run_with_both_numbers(
    semireal, encoder, tmp_path, capsys
):
    path = semireal / "sub-01" / "func" / f"{RUN}_desc-confounds_timeseries.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert call(semireal, tmp_path / "out", encoder, "--denoise", "simple") == 65
    message = capsys.readouterr().err
    assert "each of the 16 volumes" in message
    assert "found 14 rows" in message


def test_onsets_count_from_the_run_s_first_volume_where_volumes_are_dropped(
    semireal, encoder, tmp_path
):
    output = tmp_path / "out"
    assert call(semireal, output, encoder, "--dummy-scans", "3") == 0
    clips = read(output, "clip")
    assert clips["onset"].iloc[0] == 6.0
    assert clips["onset"].iloc[-1] + clips["duration"].iloc[-1] == pytest.approx(32.0, abs=0.8)
    sidecar = read(output, end="json")
    assert (sidecar["NumberOfDummyScans"], sidecar["DummyScansDuration"]) == (3, 6.0)


def set_displacement(folder, values):
    path = folder / "sub-01" / "func" / f"{RUN}_desc-confounds_timeseries.tsv"
    table = pd.read_csv(path, sep="\t")
    table["framewise_displacement"] = values
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def test_a_clip_with_too_many_censored_volumes_is_kept_out_of_the_mean(semireal, encoder, tmp_path):
    set_displacement(semireal, [np.nan] + [0.1] * 12 + [0.9] * 3)
    output = tmp_path / "out"
    assert call(semireal, output, encoder, "--fd-threshold", "0.5") == 0
    clips, whole = read(output, "clip"), read(output)
    assert clips["used"].tolist() == ["yes", "yes", "yes", "yes", "no"]
    assert clips["censored_volumes"].tolist() == [0, 0, 0, 0, 3]
    features = clips.filter(like="dim")
    assert features.iloc[-1].isna().all()
    np.testing.assert_allclose(features.iloc[:4].mean(), whole.iloc[0], rtol=1e-5)
    censoring = read(output, end="json")["Censoring"]
    assert censoring["FramewiseDisplacementThreshold"] == 0.5
    assert (censoring["NumberOfCensoredVolumes"], censoring["NumberOfClipsUsed"]) == (3, 4)


def test_a_run_without_a_usable_clip_fails_with_a_sentence(semireal, encoder, tmp_path, capsys):
    set_displacement(semireal, [np.nan] + [0.9] * 15)
    assert call(semireal, tmp_path / "out", encoder, "--fd-threshold", "0.5") == 65
    assert "No clip of the run can be used: 15 of its 16 volumes" in capsys.readouterr().err


def test_a_denoised_series_is_not_denoised_again(semireal, encoder, tmp_path, capsys):
    rename(semireal, VARIANTS["xcpd"])
    assert call(semireal, tmp_path / "out", encoder, "--denoise", "simple") == 2
    assert "was denoised before" in capsys.readouterr().err


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Three participants in fMRIPrep's form; one moved every other time, one in the end."""
    folder = tmp_path_factory.mktemp("made") / "fmriprep"
    write_dataset(folder, n_volumes=32)
    for path in folder.rglob("*_timeseries.tsv"):
        table = pd.read_csv(path, sep="\t")
        table["framewise_displacement"] = 0.1
        if "sub-02" in path.name:
            table.loc[1::2, "framewise_displacement"] = 0.9
        if "sub-03" in path.name:
            table.loc[24:, "framewise_displacement"] = 0.9
        table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return folder


CLEAN = ["--denoise", MOTION, "--fd-threshold", "0.5", "--dummy-scans", "2", "--device", "cpu"]


def test_a_training_reads_cleaned_runs_and_leaves_out_those_that_moved(made, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["pretrain", *CLEAN, "--preset", "tiny", "--max-steps", "1", "--batch-size", "2"]
    words += ["--nprocs", "1", "--validation-share", "0.4"]
    assert main([str(made), str(output), *words]) == 1
    message = capsys.readouterr().err
    assert "No clip of sub-02" in message
    names = {path.name.split("_")[0] for path in output.rglob("store/**/*.safetensors")}
    assert names == {"sub-01", "sub-02", "sub-03"}
    (card,) = output.rglob("models/*/MODEL.md")
    assert "displacement above 0.5 mm were censored" in " ".join(card.read_text().split())


def test_finetuning_reads_cleaned_runs(made, encoder, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["finetune", *CLEAN, "--model", encoder, "--target", "task"]
    words += ["--nprocs", "1", "--splits", "held-out"]
    status = main([str(made), str(output), *words])
    message = capsys.readouterr().err
    assert "No clip of sub-02" in message
    assert status in {1, 65}  # all tasks are the same: there is nothing to learn
    assert list(Path(output).rglob("store/**/*.safetensors"))


def test_a_transform_between_spaces_is_used_told_and_part_of_the_configuration(
    semireal, encoder, expected, tmp_path, monkeypatch
):
    home = tmp_path / "templateflow"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    output = tmp_path / "out"
    assert call(semireal, output, encoder) == 0
    assert any("it was used as it is" in one for one in read(output, end="json")["Warnings"])
    folder = home / "tpl-MNI152NLin6Asym"
    folder.mkdir(parents=True)
    name = "tpl-MNI152NLin6Asym_from-MNI152NLin2009cAsym_mode-image_xfm.h5"
    with h5py.File(folder / name, "w") as file:
        for number, kind in enumerate(("CompositeTransform", "AffineTransform")):
            part = file.create_group(f"TransformGroup/{number}")
            part["TransformType"] = np.array([f"{kind}_double_3_3".encode()])
        part["TransformParameters"] = np.array([*np.eye(3).ravel(), 0, 0, 6.0])
        part["TransformFixedParameters"] = np.zeros(3)
    assert call(semireal, output, encoder) == 0
    sidecar = read(output, end="json")
    assert not any("it was used as it is" in one for one in sidecar["Warnings"])
    assert any(name in step for step in sidecar["PreparationSteps"])
    assert not np.allclose(read(output), expected)
    assert call(semireal, output, encoder, "--warp", "off") == 0
    pd.testing.assert_frame_equal(read(output), expected)
