from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.train.baselines import evaluate_baselines, judge_model
from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.evaluate import evaluate_features
from neurostorm_bids.train.predictor import FitOptions
from neurostorm_bids.train.resampling import Resampling
from neurostorm_bids.train.scores import score_classification, score_regression
from neurostorm_bids.train.splits import gather_people, split_by_site, split_k_fold

N_PEOPLE = 60
PEOPLE = [f"{number:02d}" for number in range(N_PEOPLE)]
SPLITS = split_k_fold(gather_people(PEOPLE))
FOLDS = [next(fold.name for fold in SPLITS.folds if label in fold.test) for label in PEOPLE]
QUICK = Resampling(n_bootstrap=200, n_permutations=200)


def make_cases(*, classes=()):
    rng = np.random.default_rng(0)
    trait = rng.normal(size=N_PEOPLE)
    features = rng.normal(size=(N_PEOPLE, 5))
    features[:, 0] += 3 * trait
    target = (trait > 0).astype(float) if classes else 30 + 5 * trait
    return Cases(target=target, participants=PEOPLE, classes=classes, features=features), trait


def test_each_baseline_predicts_all_rows_from_its_own_features():
    cases, trait = make_cases()
    rng = np.random.default_rng(1)
    connectivity = rng.normal(size=(N_PEOPLE, 200)) + trait[:, None]
    nuisance = pd.DataFrame({"mean_fd": rng.random(N_PEOPLE), "site": rng.choice(["A"], N_PEOPLE)})
    found = evaluate_baselines(cases, SPLITS, connectivity=connectivity, nuisance=nuisance)
    assert list(found) == ["functional connectivity", "confounds only", "guess"]
    r2 = {
        name: score_regression(cases.target, each.outputs[:, 0], PEOPLE)["r2"].value
        for name, each in found.items()
    }
    assert r2["functional connectivity"] > 0.8
    assert r2["confounds only"] < 0.2
    assert -0.1 < r2["guess"] <= 0


def test_the_guess_is_the_mean_or_the_shares_of_the_training_participants():
    cases, _ = make_cases()
    guess = evaluate_baselines(cases, SPLITS, connectivity=None, nuisance=None)["guess"]
    fold = SPLITS.folds[0]
    is_train = np.isin(PEOPLE, fold.train)
    np.testing.assert_allclose(guess.outputs[~is_train], cases.target[is_train].mean())
    classes, _ = make_cases(classes=("a", "b"))
    guess = evaluate_baselines(classes, SPLITS, connectivity=None, nuisance=None)["guess"]
    share = classes.target[is_train].mean()
    np.testing.assert_allclose(guess.outputs[~is_train], [[1 - share, share]] * (~is_train).sum())


def test_confounds_alone_catch_a_target_that_is_only_site():
    site = np.repeat(["A", "B", "C"], 20)
    target = (site == "B").astype(float)
    rng = np.random.default_rng(0)
    cases = Cases(
        target=target,
        participants=PEOPLE,
        classes=("a", "b"),
        features=rng.normal(size=(N_PEOPLE, 4)),
    )
    nuisance = pd.DataFrame({"mean_fd": rng.random(N_PEOPLE), "site": site})
    found = evaluate_baselines(cases, SPLITS, connectivity=None, nuisance=nuisance)
    scores = score_classification(
        target, found["confounds only"].outputs, PEOPLE, classes=("a", "b")
    )
    assert scores["auroc"].value > 0.95


def test_noise_does_not_beat_the_guess_where_sites_differ_in_prevalence():
    beaten, sites = [], np.repeat(list("abcd"), 30)
    people = [f"{number:03d}" for number in range(120)]
    splits = split_by_site(people, dict(zip(people, sites, strict=True)))
    resampling = Resampling(n_bootstrap=0, n_permutations=99)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        target = np.concatenate([rng.permutation(np.arange(30) < 6 * n) for n in (1, 2, 3, 4)])
        cases = Cases(
            target=target.astype(float),
            participants=people,
            classes=("a", "b"),
            features=rng.normal(size=(120, 5)),
        )
        given = evaluate_features(cases, splits, options=FitOptions(penalties=(0.1,)))
        guess = evaluate_baselines(cases, splits, connectivity=None, nuisance=None)["guess"]
        (verdict,) = judge_model(
            cases.target,
            given.outputs,
            {"guess": guess.outputs},
            people,
            folds=given.folds,
            resampling=resampling,
        )
        beaten.append(verdict.is_beaten)
    assert sum(beaten) <= 1


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_a_model_that_is_better_beats_a_baseline_and_one_that_is_not_does_not(classes):
    cases, _ = make_cases(classes=classes)
    model = evaluate_features(cases, SPLITS).outputs
    noise = Cases(
        target=cases.target,
        participants=PEOPLE,
        classes=classes,
        features=np.random.default_rng(4).normal(size=(N_PEOPLE, 5)),
    )
    other = evaluate_features(noise, SPLITS).outputs
    good, same = judge_model(
        cases.target,
        model,
        {"noise": other, "itself": model},
        PEOPLE,
        folds=FOLDS,
        resampling=QUICK,
    )
    assert good.is_beaten
    assert good.difference in good.differences
    assert good.describe().startswith("The model beats noise: difference in")
    assert not same.is_beaten
    assert same.describe().startswith("The model does not beat itself")
    (worse,) = judge_model(
        cases.target, other, {"good": model}, PEOPLE, folds=FOLDS, resampling=QUICK
    )
    assert not worse.is_beaten
