from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.evaluate import evaluate_features
from neurostorm_bids.train.predictor import FitOptions
from neurostorm_bids.train.resampling import Resampling
from neurostorm_bids.train.scores import score_classification, score_regression
from neurostorm_bids.train.splits import (
    Fold,
    Splits,
    add_validation,
    gather_people,
    split_by_site,
    split_held_out,
    split_k_fold,
)

N_PEOPLE = 50
PEOPLE = [f"{number:02d}" for number in range(N_PEOPLE)]


def make_cases(*, runs_each=2, classes=("a", "b"), signal=2.0, seed=0, **parts):
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=N_PEOPLE)
    rows = np.repeat(np.arange(N_PEOPLE), runs_each)
    features = rng.normal(size=(len(rows), 6)) * 0.5
    features[:, 2] += signal * trait[rows]
    values = (trait > 0).astype(float) if classes else 40 + 10 * trait
    return Cases(
        target=values[rows],
        participants=[PEOPLE[row] for row in rows],
        classes=classes,
        features=features,
        **parts,
    )


def make_everything():
    """Return cases with all steps that learn something."""
    rng = np.random.default_rng(5)
    confounds = pd.DataFrame({"fd": rng.random(100), "sex": rng.choice(["F", "M"], 100)})
    return make_cases(
        confounds=confounds,
        sites=np.repeat(rng.choice(["A", "B", "C"], N_PEOPLE), 2).tolist(),
    )


SPLITS = split_k_fold(gather_people(PEOPLE))
QUICK = FitOptions(penalties=(10.0, 0.1))


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_what_was_planted_is_found(classes):
    cases = make_cases(classes=classes)
    found = evaluate_features(cases, SPLITS)
    assert np.isfinite(found.outputs).all()
    if classes:
        scores = score_classification(
            cases.target, found.outputs, cases.participants, classes=classes
        )
        assert scores["auroc"].low > 0.8
    else:
        scores = score_regression(cases.target, found.outputs[:, 0], cases.participants)
        assert scores["r2"].low > 0.4


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_a_shuffled_target_is_at_chance(classes):
    cases = make_cases(classes=classes)
    order = np.random.default_rng(3).permutation(N_PEOPLE)
    shuffled = replace(cases, target=cases.target[::2][order].repeat(2))
    found = evaluate_features(shuffled, SPLITS)
    if classes:
        scores = score_classification(
            shuffled.target, found.outputs, cases.participants, classes=classes
        )
        assert scores["auroc"].low < 0.5
    else:
        scores = score_regression(shuffled.target, found.outputs[:, 0], cases.participants)
        assert scores["r2"].low < 0


def test_a_model_that_learns_from_noise_is_seldom_called_significant():
    def find_p_value(seed):
        rng = np.random.default_rng(seed)
        cases = Cases(
            target=rng.normal(size=N_PEOPLE),
            participants=PEOPLE,
            features=rng.normal(size=(N_PEOPLE, 20)),
        )
        found = evaluate_features(cases, SPLITS, options=FitOptions(penalties=(0.1,)))
        scores = score_regression(
            cases.target,
            found.outputs[:, 0],
            PEOPLE,
            folds=found.folds,
            resampling=Resampling(n_bootstrap=0, n_permutations=99, seed=seed),
        )
        return scores["pearson"].p_value

    p_values = np.array([find_p_value(seed) for seed in range(120)])
    assert (p_values <= 0.1).mean() < 0.15


def test_what_is_tested_teaches_nothing():
    cases = make_everything()
    rng = np.random.default_rng(0)
    before = evaluate_features(cases, SPLITS, options=QUICK)
    for fold in SPLITS.folds:
        is_test = np.isin(cases.participants, fold.test)
        keeps = is_test & (np.cumsum(is_test) <= 4)
        changed = is_test & ~keeps
        after = evaluate_features(
            replace(
                cases,
                target=np.where(is_test, 1 - cases.target, cases.target),
                features=np.where(
                    changed[:, None], rng.normal(50, 9, cases.features.shape), cases.features
                ),
                sites=[
                    "Z" if change else site
                    for change, site in zip(changed, cases.sites, strict=True)
                ],
                confounds=cases.confounds.assign(fd=np.where(changed, 1e3, cases.confounds["fd"])),
            ),
            SPLITS,
            options=QUICK,
        )
        np.testing.assert_array_equal(after.outputs[keeps], before.outputs[keeps])


def test_what_is_learnt_from_does_matter():
    cases = make_everything()
    fold = SPLITS.folds[0]
    is_train = np.isin(cases.participants, fold.train)
    changed = replace(cases, target=np.where(is_train, 1 - cases.target, cases.target))
    is_test = np.isin(cases.participants, fold.test)
    before = evaluate_features(cases, SPLITS).outputs[is_test]
    assert (evaluate_features(changed, SPLITS).outputs[is_test] != before).any()


def test_the_order_of_rows_changes_nothing():
    cases = make_everything()
    order = np.random.default_rng(1).permutation(100)
    shuffled = Cases(
        target=cases.target[order],
        participants=[cases.participants[row] for row in order],
        classes=cases.classes,
        features=cases.features[order],
        confounds=cases.confounds.iloc[order],
        sites=[cases.sites[row] for row in order],
    )
    before, after = evaluate_features(cases, SPLITS), evaluate_features(shuffled, SPLITS)
    np.testing.assert_allclose(after.outputs, before.outputs[order], atol=1e-4)
    assert after.folds == tuple(before.folds[row] for row in order)


def test_rows_that_no_fold_tests_have_no_prediction():
    splits = split_held_out(gather_people(PEOPLE), share=0.2)
    cases = make_cases()
    found = evaluate_features(cases, splits)
    is_test = np.isin(cases.participants, splits.folds[0].test)
    np.testing.assert_array_equal(np.isfinite(found.outputs[:, 0]), is_test)
    assert set(np.array(found.folds)[~is_test]) == {""}


def test_a_target_that_is_only_site_is_caught_by_the_site_alone():
    sites = np.repeat(["A", "B"], N_PEOPLE // 2)
    target = (sites == "B").astype(float)
    cases = Cases(
        target=target,
        participants=PEOPLE,
        classes=("a", "b"),
        table=pd.DataFrame({"site": sites}),
    )
    found = evaluate_features(cases, SPLITS)
    assert (
        score_classification(target, found.outputs, PEOPLE, classes=("a", "b"))["auroc"].value == 1
    )


def test_a_site_left_out_is_predicted_and_noted():
    cases = make_everything()
    sites = dict(zip(cases.participants, cases.sites, strict=True))
    found = evaluate_features(cases, split_by_site(PEOPLE, sites))
    assert np.isfinite(found.outputs).all()
    assert any(
        note.startswith("A: ") and "sites that were not learnt (A)" in note for note in found.notes
    )


def test_validation_participants_train_too():
    people = gather_people(PEOPLE)
    cases = make_cases()
    with_validation = evaluate_features(cases, add_validation(SPLITS, people, share=0.3))
    np.testing.assert_array_equal(with_validation.outputs, evaluate_features(cases, SPLITS).outputs)


def test_a_fold_that_cannot_be_fitted_is_named():
    cases = make_cases()
    one_class = [
        person for person, value in zip(cases.participants, cases.target, strict=True) if value
    ]
    rest = [person for person in PEOPLE if person not in one_class]
    fold = Fold(name="odd", train=tuple(set(one_class)), test=tuple(rest))
    with pytest.raises(DataError, match=r"Fold 'odd' cannot be fitted.*found only 'b'"):
        evaluate_features(cases, Splits(folds=(fold,), method=""))
