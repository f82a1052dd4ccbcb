"""The participant level from outside: a call of the command, then the tree it wrote."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import neurostorm_bids
from neurostorm_bids.cli import main
from neurostorm_bids.demo import write_dataset, write_models
from neurostorm_bids.model.assessment import Calibration
from neurostorm_bids.model.calibration import ConformalIntervals
from neurostorm_bids.pretrained import load_model, save_model

HERE = Path(__file__).parent
BOLD = "sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-preproc_bold"
SCAN = "sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-scan_embedding"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A dataset in fMRIPrep's form and two small models."""
    folder = tmp_path_factory.mktemp("made")
    write_dataset(folder / "fmriprep", n_volumes=16)
    write_models(folder / "models")
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    """A copy of the dataset that a test may change."""
    return shutil.copytree(made / "fmriprep", tmp_path / "fmriprep")


@pytest.fixture(scope="session")
def model(made):
    return str(made / "models" / "demo-age")


def list_tree(folder):
    """Return the paths of all files but the locks, with the names of calls replaced."""
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    names = {
        "/".join("<call>" if part[:2] == "20" and "_" in part else part for part in path.parts)
        for path in paths
        if not path.name.endswith(".lock")
    }
    return sorted(names)


def read_results(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("sub-*/**/*.tsv"))}


def call(dataset, output, *arguments):
    return main([str(dataset), str(output), "participant", "--device", "cpu", *arguments])


def test_two_models_write_the_tree_that_is_promised(made, tmp_path):
    models = [str(made / "models" / name) for name in ("demo-sex", "demo-age")]
    output = tmp_path / "out"
    assert call(made / "fmriprep", output, "--model", *models) == 0
    expected = (HERE / "tree_two_models.txt").read_text().split("\n")
    assert list_tree(output) == [line for line in expected if line]


def test_a_second_call_does_nothing_and_says_so(made, model, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--model", model, "--participant-label", "01"]
    assert call(made / "fmriprep", output, *arguments) == 0
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}
    assert call(made / "fmriprep", output, *arguments) == 0
    assert "Nothing to do: all 1 run(s)" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()} == before


def test_a_changed_configuration_is_computed_again(made, model, tmp_path):
    output = tmp_path / "out"
    arguments = ["--model", model, "--participant-label", "01"]
    assert call(made / "fmriprep", output, *arguments) == 0
    path = output / SCAN.replace("scan_embedding", "age_predictions.tsv")
    before = pd.read_csv(path, sep="\t")
    assert call(made / "fmriprep", output, *arguments, "--target-scale", "age=0,1,years") == 0
    after = pd.read_csv(path, sep="\t")
    np.testing.assert_allclose(before["value"], after["value"] * 15 + 40, rtol=1e-5)


def test_a_calibration_adds_columns_and_is_computed_again_when_it_changes(made, model, tmp_path):
    output = tmp_path / "out"
    path = output / SCAN.replace("scan_embedding", "age_predictions.tsv")
    loaded, tables = load_model(model), []
    for half_width in (None, 5.0, 6.0):
        if half_width is not None:
            intervals = ConformalIntervals(coverage=0.9, half_width=half_width, n_participants=20)
            loaded.calibration = Calibration(conformal=intervals)
        folder = tmp_path / f"width-{half_width}"
        save_model(loaded, folder)
        arguments = ["--model", str(folder), "--participant-label", "01"]
        assert call(made / "fmriprep", output, *arguments) == 0
        tables.append(pd.read_csv(path, sep="\t"))
    plain, *calibrated = tables
    for table, half_width in zip(calibrated, (5.0, 6.0), strict=True):
        pd.testing.assert_frame_equal(table[plain.columns], plain)
        run = table.iloc[-1]
        assert run["interval_high"] - run["interval_low"] == pytest.approx(2 * half_width)
        assert table["interval_low"].isna().sum() == len(table) - 1
    assert call(made / "fmriprep", output, *arguments, "--target-scale", "age=0,1,years") == 0
    assert "interval_low" not in pd.read_csv(path, sep="\t").columns


def test_results_of_several_processes_are_those_of_one(made, model, tmp_path):
    for name, nprocs in (("one", "1"), ("two", "2")):
        arguments = ["--model", model, "--nprocs", nprocs, "--omp-nthreads", "1"]
        assert call(made / "fmriprep", tmp_path / name, *arguments) == 0
    assert read_results(tmp_path / "one") == read_results(tmp_path / "two")
    assert len(read_results(tmp_path / "one")) == 12


def test_a_bad_run_is_reported_and_the_others_go_on(dataset, model, tmp_path, capsys):
    bold = dataset / "sub-01" / "func" / f"{BOLD}.nii.gz"
    bold.write_bytes(bold.read_bytes()[:20_000])
    output = tmp_path / "out"
    assert call(dataset, output, "--model", model) == 1
    message = capsys.readouterr().err
    assert "3 run(s) done, 0 finished before, 1 failed" in message
    assert "Traceback" not in message
    assert not (output / f"{SCAN}.tsv").exists()
    assert len(list(output.rglob("*_desc-scan_embedding.tsv"))) == 3
    (status,) = output.glob("sub-01/log/*/status.json")
    (run,) = json.loads(status.read_text())["Runs"]
    assert run["State"] == "failed"
    shutil.copy(next(dataset.glob("sub-02/func/*NLin6*bold.nii.gz")), bold)
    assert call(dataset, output, "--model", model) == 0
    assert (output / f"{SCAN}.tsv").exists()


def test_a_run_without_repetition_time_fails_alone(dataset, model, tmp_path, capsys):
    (dataset / "sub-01" / "func" / f"{BOLD}.json").unlink()
    assert call(dataset, tmp_path / "out", "--model", model) == 1
    assert "RepetitionTime" in capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("*_desc-scan_embedding.tsv"))) == 3


def test_left_is_left_however_the_file_is_stored(dataset, model, tmp_path):
    arguments = ["--model", model, "--participant-label", "01", "--space", "MNI152NLin6Asym"]
    assert call(dataset, tmp_path / "before", *arguments) == 0
    for path in (dataset / "sub-01" / "func").glob("*NLin6*.nii.gz"):
        image = nib.load(path)
        values = np.asarray(image.dataobj)[::-1]
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = values.shape[0] - 1
        flipped = nib.Nifti1Image(values, image.affine @ flip, image.header)
        flipped.set_sform(image.affine @ flip, code=4)
        flipped.set_qform(image.affine @ flip, code=4)
        nib.save(flipped, path)
    assert call(dataset, tmp_path / "after", *arguments) == 0
    assert read_results(tmp_path / "before") == read_results(tmp_path / "after")


def test_swapping_left_and_right_changes_the_result(dataset, model, tmp_path):
    arguments = ["--model", model, "--participant-label", "01", "--space", "MNI152NLin6Asym"]
    assert call(dataset, tmp_path / "before", *arguments) == 0
    for path in (dataset / "sub-01" / "func").glob("*NLin6*bold.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], None, image.header), path)
    assert call(dataset, tmp_path / "after", *arguments) == 0
    assert read_results(tmp_path / "before") != read_results(tmp_path / "after")


@pytest.mark.parametrize("n_files", [1, 4, 9])
def test_a_killed_call_leaves_nothing_half_written_and_is_finished_by_the_next(
    made, model, tmp_path, n_files
):
    arguments = ["--model", model, "--nprocs", "1", "--device", "cpu"]
    assert call(made / "fmriprep", tmp_path / "whole", *arguments) == 0
    whole = read_results(tmp_path / "whole")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "neurostorm_bids", str(made / "fmriprep"), str(output)]
    process = subprocess.Popen(
        [*command, "participant", *arguments], stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(list(output.rglob("sub-*.*"))) < n_files:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = read_results(output)
    assert left.items() <= whole.items()
    for path in output.rglob("sub-*.json"):
        json.loads(path.read_text())
    assert call(made / "fmriprep", output, *arguments) == 0
    assert read_results(output) == whole


def test_the_input_is_not_touched(dataset, model, tmp_path):
    def look():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(dataset.rglob("*.*"))}

    before = look()
    assert call(dataset, tmp_path / "out", "--model", model) == 0
    assert look() == before


def test_the_output_folder_may_not_be_the_input(dataset, model, capsys):
    assert call(dataset, dataset, "--model", model) == 2
    assert "is the input folder" in capsys.readouterr().err


def test_a_call_without_a_model_says_what_to_give(made, tmp_path, capsys):
    assert call(made / "fmriprep", tmp_path / "out") == 2
    assert "--model" in capsys.readouterr().err


def test_a_target_scale_for_no_model_is_refused(made, model, tmp_path, capsys):
    arguments = ["--model", model, "--target-scale", "iq=100,15"]
    assert call(made / "fmriprep", tmp_path / "out", *arguments) == 2
    assert "these values: age" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_absent_is_an_error(made, model, tmp_path, capsys):
    arguments = [str(made / "fmriprep"), str(tmp_path / "out"), "participant", "--model", model]
    assert main([*arguments, "--device", "cuda"]) == 2
    assert "torch sees 0 GPU(s)" in capsys.readouterr().err


def test_a_dry_run_lists_runs_and_writes_nothing(made, tmp_path, capsys):
    assert call(made / "fmriprep", tmp_path / "out", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "3 participant(s), 4 run(s) chosen" in printed
    assert printed.count("left out") == 4
    assert not (tmp_path / "out").exists()


def test_python_and_the_command_give_the_same_numbers(made, model, tmp_path):
    assert call(made / "fmriprep", tmp_path / "out", "--model", model) == 0
    written = pd.read_csv(tmp_path / "out" / f"{SCAN}.tsv", sep="\t").to_numpy()[0]
    func = made / "fmriprep" / "sub-01" / "func"
    loaded = neurostorm_bids.load_model(model)
    mask = func / f"{BOLD.replace('desc-preproc_bold', 'desc-brain_mask')}.nii.gz"
    from_path = neurostorm_bids.predict_run(loaded, func / f"{BOLD}.nii.gz", mask=mask)
    np.testing.assert_array_equal(from_path.embedding, written.astype(np.float32))
    from_image = neurostorm_bids.predict_run(
        loaded, nib.load(func / f"{BOLD}.nii.gz"), mask=nib.load(mask), repetition_time_s=2.0
    )
    np.testing.assert_array_equal(from_image.embedding, from_path.embedding)
    features = loaded.backbone(torch.zeros(1, 1, *loaded.config.img_size))
    assert features.shape == (1, 96, 1, 1, 1, 10)


def test_clips_cover_the_run_and_average_to_it(made, model):
    func = made / "fmriprep" / "sub-01" / "func"
    prediction = neurostorm_bids.predict_run(
        neurostorm_bids.load_model(model), func / f"{BOLD}.nii.gz", batch_size=3
    )
    # 16 volumes of 2 s are 40 of 0.8 s: four clips of 8 s.
    np.testing.assert_allclose(prediction.onsets_s, [0, 8, 16, 24])
    assert prediction.duration_s == pytest.approx(8)
    np.testing.assert_allclose(
        prediction.embedding, prediction.clip_embeddings.mean(axis=0), rtol=1e-4, atol=1e-6
    )
    assert any("mask" in warning for warning in prediction.series.warnings)


def test_a_dry_run_prints_no_control_characters_of_a_file_name(dataset, tmp_path, capsys):
    (dataset / "sub-01" / "func" / f"sub-01_task-\x1b[31m\n_{BOLD[8:]}.nii.gz").touch()
    assert call(dataset, tmp_path / "out", "--dry-run") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_bf16_is_near_float32_and_another_configuration(made, model, tmp_path):
    output = tmp_path / "out"
    tables = []
    for precision in ("float32", "bf16"):
        arguments = ["--model", model, "--participant-label", "01", "--precision", precision]
        assert call(made / "fmriprep", output, *arguments) == 0
        tables.append(pd.read_csv(output / f"{SCAN}.tsv", sep="\t").to_numpy())
        sidecar = json.loads((output / f"{SCAN}.json").read_text())
        assert sidecar["Precision"] == precision
    exact, rounded = tables
    assert not np.array_equal(exact, rounded)
    assert np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_memory_resources_and_layout_leave_the_results_alone(made, model, tmp_path, capsys):
    temporary = tempfile.gettempdir(), os.environ.get("TMPDIR")
    arguments = ["--model", model, "--participant-label", "02"]
    assert call(made / "fmriprep", tmp_path / "plain", *arguments) == 0
    work = tmp_path / "work"
    arguments += ["--mem", "8GB", "--batch-size", "2", "-w", str(work), "--clean-workdir"]
    arguments += ["--output-layout", "multiverse", "--resource-monitor"]
    assert call(made / "fmriprep", tmp_path / "out", *arguments) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.startswith("neurostorm-")
    assert read_results(folder).keys() == read_results(tmp_path / "plain").keys()
    assert len(list(folder.glob("logs/*/resources.tsv"))) == 1
    assert (work / "tmp").is_dir()
    assert (tempfile.gettempdir(), os.environ.get("TMPDIR")) == temporary
    assert call(made / "fmriprep", tmp_path / "tight", *arguments[:4], "--mem", "10MB") == 75
    assert "--mem allows 0.01 GB" in capsys.readouterr().err


def test_the_configuration_of_a_call_makes_the_same_call(made, model, tmp_path):
    output = tmp_path / "out"
    arguments = ["--model", model, "--participant-label", "01", "--target-scale", "age=0,1,years"]
    assert call(made / "fmriprep", output, *arguments) == 0
    (first,) = output.glob("logs/*/config.toml")
    text = first.read_text()
    assert str(made) not in text
    again = ["--config-file", str(first), "--model", model, "--overwrite"]
    assert call(made / "fmriprep", output, *again) == 0
    (second,) = set(output.glob("logs/*/config.toml")) - {first}
    assert second.read_text() == text.replace("overwrite = false", "overwrite = true")
