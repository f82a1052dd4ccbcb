"""The finetune level from outside: a call of the command, then what it leaves."""

from __future__ import annotations

import json
import re
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
import torch

import neurostorm_bids
from benchmarks.cohort import write_cohort
from benchmarks.planted import CohortPlan
from neurostorm_bids.cli import main
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.store import StoredRun
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.page.words import format_number
from neurostorm_bids.predict import predict_series
from neurostorm_bids.pretrained import Model, Provenance, save_model

CONFIG = ModelConfig(
    img_size=(24, 24, 24, 16),
    embed_dim=32,
    depths=(1, 1),
    window_size=(4, 4, 4, 4),
    first_window_size=(4, 4, 4, 4),
    patch_size=(4, 4, 4, 1),
    last_layer_full_msa=False,
    d_state=4,
)
FEW = ["--participant-label", "01", "02", "03", "04", "05", "06", "07", "08"]
QUICK = [*FEW, "--splits", "held-out", "--held-out-share", "0.25", "--validation-share", "0.2"]
QUICK += ["--max-steps", "2", "--batch-size", "2", "--evaluate-every", "2"]


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A raw dataset with its derivatives; one participant has no age, one column is shuffled."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, CohortPlan(n_participants=24, n_sessions=1, repetition_time_s=3.0))
    path = folder / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    rng = np.random.default_rng(1)
    table["shuffled"] = rng.permutation(table["age"])
    table["age"] = table["age"].astype(object)
    table.loc[len(table) - 1, "age"] = "n/a"
    table.to_csv(path, sep="\t", index=False)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An encoder with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "random"
    made = Model(
        config=CONFIG,
        head_config=None,
        backbone=Backbone(CONFIG),
        head=None,
        grid=GridSpec.published(24),
        target=None,
        provenance=Provenance(name="random", source="a test", sha256="", format="folder"),
    )
    save_model(made, folder)
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """Return the folder in which runs are prepared once for all tests."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(autouse=True, scope="module")
def _offline(tmp_path_factory):
    """Forbid the network, which nothing here was told to ask, and hide atlases of this machine."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPLATEFLOW_HOME", str(tmp_path_factory.mktemp("templateflow")))
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="session")
def call(cohort, model, work):
    def run(output, *arguments, task="rest", start=model):
        shared = ["--model", str(start), "--work-dir", str(work), "--device", "cpu"]
        tasks = ["--task-id", task] if task else []
        return main(
            [str(cohort), str(output), "finetune", *shared, "--nprocs", "1", *tasks, *arguments]
        )

    return run


def read_scores(output, name):
    found = json.loads((output / "finetune" / name / "scores.json").read_text())
    return {
        one["name"]: {score["name"]: score["value"] for score in one["scores"]["scores"]}
        for one in found["methods"]
    }


def read_predictions(output, name):
    path = output / "finetune" / name / "predictions.tsv"
    return pd.read_csv(path, sep="\t", dtype={"participant_id": str})


@pytest.fixture(scope="module")
def age(call, tmp_path_factory):
    output = tmp_path_factory.mktemp("age") / "out"
    assert call(output, "--target", "age", "--site-column", "site") == 0
    return output


def test_a_linear_probe_finds_the_age_that_is_planted(age):
    scores = read_scores(age, "age_linear")
    assert scores["the model"]["mae"] < 0.8 * scores["guess"]["mae"]
    assert scores["the model"]["r2"] > 0.2
    assert set(scores) == {"the model", "functional connectivity", "confounds only", "guess"}


def test_the_regions_of_the_baseline_and_how_to_get_others_are_told(age):
    report = (age / "finetune.html").read_text()
    assert "Functional connectivity of Seitzman2018." in report
    assert "--atlas Schaefer2018:200Parcels7Networks downloads it" in report


def test_the_coverage_that_was_found_and_the_novelty_are_told(age):
    report = (age / "finetune.html").read_text()
    assert "How far single predictions can be trusted" in report
    assert "Coverage found" in report
    assert "Novelty, the distance of a run from the training runs" in report


def test_a_shuffled_target_stays_at_chance(call, tmp_path):
    assert call(tmp_path / "out", "--target", "shuffled") == 0
    scores = read_scores(tmp_path / "out", "shuffled_linear")
    assert scores["the model"]["mae"] > 0.9 * scores["guess"]["mae"]
    assert "The model does not beat guess" in (tmp_path / "out" / "finetune.html").read_text()


def test_who_has_no_value_is_counted_and_told(age):
    predictions = read_predictions(age, "age_linear")
    assert len(predictions) == 23
    assert "sub-24" not in set(predictions["participant_id"])
    assert "no value (n/a)" in (age / "finetune.html").read_text()


def test_everybody_is_tested_once_and_on_one_side(age):
    split = pd.read_csv(age / "finetune" / "age_linear" / "split.tsv", sep="\t").set_index(
        "participant_id"
    )
    assert split.shape == (23, 5)
    assert ((split == "test").sum(axis=1) == 1).all()
    assert set(split.to_numpy().ravel()) == {"train", "test"}
    folds = read_predictions(age, "age_linear").set_index("participant_id")["fold"]
    assert all(split.loc[label, fold] == "test" for label, fold in folds.items())


def test_the_report_needs_nothing_else_and_shows_baselines(age):
    page = (age / "finetune.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the report loads something"
    assert "functional connectivity" in page
    assert "confounds only" in page
    assert "Whether the backbone saw these participants when it was pretrained is not" in page
    assert str(age) not in page


def test_the_model_folder_tells_how_far_to_trust_it(age):
    folder = age / "models" / "age_linear"
    half_width = neurostorm_bids.load_model(folder).calibration.conformal.half_width
    predictions = read_predictions(age, "age_linear")
    errors = (predictions["prediction"] - predictions["truth"]).abs()
    # One run is less certain than the mean of a participant's, for which these errors are.
    assert (errors <= half_width).mean() >= 0.9
    report = (age / "finetune.html").read_text()
    assert re.search(
        rf"Width \(years\).*>{re.escape(format_number(2 * half_width))}<", report, re.DOTALL
    )


def test_the_model_goes_straight_into_participant_and_says_the_same(age, cohort, work, tmp_path):
    folder = age / "models" / "age_linear"
    arguments = ["participant", "--model", str(folder), "--participant-label", "01"]
    arguments += ["--task-id", "rest", "--device", "cpu", "--nprocs", "1"]
    assert main([str(cohort), str(tmp_path / "out"), *arguments]) == 0
    (path,) = (tmp_path / "out").rglob("*_desc-age_predictions.tsv")
    value = pd.read_csv(path, sep="\t").iloc[-1]["value"]
    loaded = neurostorm_bids.load_model(folder)
    assert loaded.target.unit == "years"
    assert loaded.target.mean == pytest.approx(50, abs=3)
    (stored,) = (work / "store").rglob("sub-01_ses-1_task-rest_*.safetensors")
    expected = predict_series(loaded, StoredRun.open(stored).load())
    assert value == pytest.approx(float(expected.output[0]), abs=0.5)
    card = (folder / "MODEL.md").read_text()
    assert "Scores of functional connectivity" in card
    assert "intervals made to hold the truth of 90 % of persons like the 23" in card
    run = pd.read_csv(path, sep="\t").iloc[-1]
    width = 2 * loaded.calibration.conformal.half_width
    assert run["interval_high"] - run["interval_low"] == pytest.approx(width)
    assert run["novelty"] > 0
    assert 0 <= run["novelty_rank"] <= 1


def test_the_same_split_and_data_give_the_same_scores(age, call, tmp_path):
    split = age / "finetune" / "age_linear" / "split.tsv"
    assert call(tmp_path / "out", "--target", "age", "--splits", str(split)) == 0
    before, after = (read_scores(o, "age_linear") for o in (age, tmp_path / "out"))
    assert after["the model"] == pytest.approx(before["the model"])


def test_seeds_repeat_splits_learning_and_baselines(age, call, tmp_path):
    output = tmp_path / "out"
    arguments = ["--target", "age", "--site-column", "site", "--seeds", "3"]
    assert call(output, *arguments) == 0
    predictions = read_predictions(output, "age_linear")
    assert predictions.groupby("seed").size().to_dict() == {0: 23, 1: 23, 2: 23}
    first = predictions[predictions["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, read_predictions(age, "age_linear"))
    by_seed = predictions.pivot_table("guess", "example", "seed")
    assert (by_seed[0] != by_seed[1]).any(), "the baselines had the same folds with another seed"
    found = json.loads((output / "finetune" / "age_linear" / "scores.json").read_text())
    model, *baselines = found["over_seeds"]["methods"]
    assert found["over_seeds"]["seeds"] == [0, 1, 2]
    mae = next(spread for spread in model["spreads"] if spread["name"] == "mae")
    errors = (predictions["prediction"] - predictions["truth"]).abs()
    of_seeds = errors.groupby(predictions["seed"]).mean()
    assert mae["values"] == pytest.approx(of_seeds.tolist(), rel=1e-4)
    assert mae["mean"] == pytest.approx(of_seeds.mean(), rel=1e-4)
    assert mae["sd"] == pytest.approx(of_seeds.std(), rel=1e-3)
    assert {len(one["is_beaten"]) for one in baselines} == {3}
    page = (output / "finetune.html").read_text()
    assert "Mean and standard deviation over 3 seeds" in page
    assert "are of the first (0)" in page
    card = (output / "models" / "age_linear" / "MODEL.md").read_text()
    assert "Over 3 seeds, mae of the model" in card

    split = output / "finetune" / "age_linear" / "split.tsv"
    assert call(tmp_path / "again", *arguments, "--splits", str(split)) == 0
    again = read_predictions(tmp_path / "again", "age_linear")
    pd.testing.assert_frame_equal(again, predictions)
    assert (
        call(tmp_path / "none", *arguments[:4], "--random-seed", "7", "--splits", str(split)) == 65
    )


def test_seeds_that_share_a_split_say_so(call, tmp_path):
    split = tmp_path / "split.tsv"
    roles = ["test"] * 2 + ["validation"] * 2 + ["train"] * 4
    rows = [f"sub-{number:02d}\t{role}" for number, role in enumerate(roles, start=1)]
    split.write_text("\n".join(["participant_id\tonly", *rows]) + "\n")
    output = tmp_path / "out"
    adapt = ["--adapt", "lora", "--seeds", "2", "--splits", str(split), *FEW]
    steps = ["--max-steps", "2", "--batch-size", "2", "--evaluate-every", "2"]
    assert call(output, "--target", "sex", *adapt, *steps) == 0
    predictions = read_predictions(output, "sex_lora")
    by_seed = predictions.pivot_table("probability_M", "example", "seed")
    assert by_seed.shape == (2, 2)
    assert (by_seed[0] != by_seed[1]).all(), "two seeds began alike"
    assert "All 2 seeds have the same split" in (output / "finetune.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "n_trained"),
    [
        (["--adapt", "prompt", "--prompt-len", "3"], 3 * (32 + 64)),
        (["--adapt", "lora", "--lora-rank", "2", "--head", "v2", "--balance-classes"], None),
        (["--adapt", "full"], None),
    ],
)
def test_every_method_trains_on_a_cpu_and_leaves_a_model(call, tmp_path, arguments, n_trained):
    output = tmp_path / "out"
    assert call(output, "--target", "sex", *QUICK, *arguments) == 0
    name = f"sex_{arguments[1]}"
    predictions = read_predictions(output, name)
    is_tested = predictions["fold"] == "heldout"
    probabilities = predictions[["probability_F", "probability_M"]]
    np.testing.assert_allclose(probabilities[is_tested].sum(axis=1), 1, atol=1e-5)
    assert probabilities[~is_tested].isna().all(axis=None)
    split = pd.read_csv(output / "finetune" / name / "split.tsv", sep="\t")
    assert sorted(set(split["heldout"])) == ["test", "train", "validation"]
    model = neurostorm_bids.load_model(output / "models" / name)
    assert model.target.classes == ("F", "M")
    if n_trained is not None:
        found = json.loads((output / "finetune" / name / "scores.json").read_text())
        assert found["parameters"]["trained"] == n_trained + 64 + 1
        assert model.config.prompt_len == 3
    (lesson,) = model.provenance.lessons
    assert (lesson.target, len(lesson.marks.split())) == ("sex", 6)


def test_a_model_is_not_tested_unknowingly_on_those_who_taught_it(call, tmp_path, capsys):
    assert call(tmp_path / "first", "--target", "sex", *QUICK, "--adapt", "full") == 0
    taught = tmp_path / "first" / "models" / "sex_full"
    card = (taught / "MODEL.md").read_text()
    assert "marks of the 6 file(s) that the backbone was trained on" in card
    output, arguments = tmp_path / "second", ["--target", "sex", *FEW, "--n-folds", "2"]
    assert call(output, *arguments, start=taught) == 0
    told = "6 of the 8 participants were among those that the backbone was trained on before"
    assert told in capsys.readouterr().err
    page = (output / "finetune.html").read_text()
    assert told in page
    assert "6 of them taught it sex itself" in page
    linear = neurostorm_bids.load_model(output / "models" / "sex_linear")
    assert linear.provenance.lessons == neurostorm_bids.load_model(taught).provenance.lessons


def test_a_state_is_told_from_whole_runs(call, tmp_path):
    assert call(tmp_path / "out", "--target", "task", *FEW, "--n-folds", "2", task=None) == 0
    predictions = read_predictions(tmp_path / "out", "task_linear")
    assert len(predictions) == 16
    assert predictions.groupby("participant_id")["fold"].nunique().max() == 1


@pytest.mark.parametrize("adapt", ["linear", "full"])
def test_conditions_are_told_clip_by_clip(call, tmp_path, adapt):
    arguments = QUICK if adapt == "full" else [*FEW, "--n-folds", "2"]
    output = tmp_path / "out"
    assert call(output, "--target", "trial_type", "--adapt", adapt, *arguments, task="blocks") == 0
    predictions = read_predictions(output, f"trial-type_{adapt}")
    assert set(predictions["truth"]) == {"face", "place"}
    assert predictions.groupby("participant_id").size().min() > 3
    scores = read_scores(output, f"trial-type_{adapt}")
    assert {"functional connectivity", "mean signals of regions"} < set(scores)
    assert scores["mean signals of regions"]["auroc"] > 0.8
    assert scores["functional connectivity"]["auroc"] != scores["guess"]["auroc"]
    assert "are of each clip by itself, 4 to 5 volumes" in (output / "finetune.html").read_text()


def test_confounds_and_sites_are_taken_out(call, tmp_path):
    arguments = ["--site-column", "site", "--harmonise", "--confound-columns", "memory_score"]
    assert call(tmp_path / "out", "--target", "diagnosis", *arguments) == 0
    card = (tmp_path / "out" / "models" / "diagnosis_linear" / "MODEL.md").read_text()
    assert "memory_score were regressed out" in card
    assert "Differences between sites were removed" in card
    assert "Outputs are not calibrated: confounds or sites" in card


def test_a_site_is_left_out_in_turn(call, tmp_path):
    arguments = ["--site-column", "site", "--splits", "leave-site-out"]
    assert call(tmp_path / "out", "--target", "referral", *arguments) == 0
    assert set(read_predictions(tmp_path / "out", "referral_linear")["fold"]) == {"A", "B", "C"}


def test_a_dry_run_tells_the_target_and_writes_nothing(call, tmp_path, capsys):
    assert call(tmp_path / "out", "--target", "sex", "--dry-run") == 0
    assert "F 12, M 12" in capsys.readouterr().out
    assert call(tmp_path / "out", "--target", "sex", "--dry-run", *FEW) == 0
    told = capsys.readouterr().out
    assert "participants.tsv: 16 participant(s) are excluded by the filters of this call." in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "agee"], "Did you mean"),
        ([], "one --target"),
        (["--target", "age", "--head", "v2"], "--head has an effect only with"),
        (["--target", "age", "--max-steps", "3"], "--max-steps has no effect"),
        (["--target", "age", "--adapt", "lora", "--prompt-len", "3"], "only with --adapt prompt"),
        (["--target", "age", "--adapt", "full", "--harmonise"], "only with --adapt linear"),
        (["--target", "age", "--splits", "leave-site-out"], "Give --site-column"),
        (["--target", "age", "--splits", "held-out", "--n-folds", "3"], "--n-folds has an effect"),
        (["--target", "age", "--event-delay", "3"], "--target trial_type"),
    ],
)
def test_options_that_do_not_fit_are_refused(call, tmp_path, capsys, arguments, message):
    assert call(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_broken_run_is_left_out_and_told(cohort, model, tmp_path):
    folder = tmp_path / "cohort"
    shutil.copytree(cohort, folder)
    run = next(folder.rglob("sub-02_*rest*_bold.nii.gz"))
    run.write_bytes(b"no image")
    arguments = ["finetune", "--model", str(model), "--target", "sex", "--task-id", "rest"]
    arguments += [*FEW, "--n-folds", "2", "--device", "cpu", "--nprocs", "1"]
    assert main([str(folder), str(tmp_path / "out"), *arguments]) == 1
    assert "sub-02" not in set(read_predictions(tmp_path / "out", "sex_linear")["participant_id"])
    assert run.name in (tmp_path / "out" / "finetune.html").read_text()
