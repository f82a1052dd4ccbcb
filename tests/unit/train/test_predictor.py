from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.train.cases import Cases
from neurostorm_bids.train.predictor import FitOptions, fit_predictor

ONE_PENALTY = FitOptions(penalties=(0.5,))


def make_cases(n_people=60, n_features=8, classes=("a", "b"), noise=1.0, **parts):
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(n_people, n_features))
    score = features[:, 0] - features[:, 1] + rng.normal(0, noise, n_people)
    edges = np.quantile(score, np.linspace(0, 1, len(classes) + 1)[1:-1])
    target = np.searchsorted(edges, score).astype(float) if classes else score
    people = [f"{number:02d}" for number in range(n_people)]
    return Cases(
        target=target, participants=people, classes=classes, **({"features": features} | parts)
    )


@pytest.mark.parametrize("classes", [(), ("a", "b"), ("a", "b", "c")])
def test_it_predicts_as_a_pipeline_of_scikit_learn(classes):
    cases = make_cases(classes=classes)
    predicted = fit_predictor(cases, options=ONE_PENALTY).predict(cases).outputs
    if classes:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 4, tol=1e-8))
        expected = model.fit(cases.features, cases.target).predict_proba(cases.features)
    else:
        model = make_pipeline(StandardScaler(), Ridge(alpha=4))
        expected = model.fit(cases.features, cases.target).predict(cases.features)[:, None]
    np.testing.assert_allclose(predicted, expected, atol=1e-4)


def test_a_strong_penalty_is_chosen_for_noise_and_a_weak_one_for_a_clear_signal():
    clear = fit_predictor(make_cases(classes=(), noise=0.01)).penalty
    noise = fit_predictor(make_cases(classes=(), noise=100)).penalty
    assert clear < 1e-2 < noise


def test_more_features_than_rows_are_no_obstacle():
    rng = np.random.default_rng(1)
    plain = make_cases(noise=0.1)
    wide = np.concatenate([plain.features, rng.normal(size=(60, 400)) * 0.01], axis=1)
    predictor = fit_predictor(
        make_cases(noise=0.1, features=wide), options=FitOptions(penalties=(1e-4,))
    )
    assert (
        predictor.predict(make_cases(features=wide)).outputs.argmax(axis=1) == plain.target
    ).all()


def test_participants_count_alike_however_many_rows_they_have():
    cases = make_cases(classes=())
    times = np.where(np.arange(60) < 10, 7, 1)
    rows = np.repeat(np.arange(60), times)
    repeated = Cases(
        target=cases.target[rows],
        participants=[cases.participants[row] for row in rows],
        features=cases.features[rows],
    )
    once = fit_predictor(cases, options=ONE_PENALTY)
    np.testing.assert_allclose(repeated.weigh().mean(), 1)
    many = fit_predictor(
        repeated, options=FitOptions(penalties=(0.5 * len(rows) / 60,))
    )  # weights of mean 1: the loss grows with the rows
    np.testing.assert_allclose(many.predict(cases).outputs, once.predict(cases).outputs)


def test_balanced_classes_weigh_the_same():
    cases = make_cases()
    target = np.zeros(60)
    target[:6] = 1
    rare = Cases(
        target=target, participants=cases.participants, classes=("a", "b"), features=cases.features
    )
    weights = rare.weigh(balances_classes=True)
    assert weights[target == 1].sum() == pytest.approx(weights[target == 0].sum())
    plain = fit_predictor(rare).predict(rare).outputs[:, 1].mean()
    balanced = fit_predictor(rare, options=FitOptions(balances_classes=True))
    assert plain == pytest.approx(0.1, abs=0.02)
    assert balanced.predict(rare).outputs[:, 1].mean() > 0.3


def test_rows_without_a_target_teach_nothing():
    cases = make_cases()
    target = np.where(np.arange(60) < 40, cases.target, np.nan)
    part = Cases(
        target=target, participants=cases.participants, classes=("a", "b"), features=cases.features
    )
    expected = fit_predictor(cases.select(np.arange(60) < 40)).predict(cases).outputs
    np.testing.assert_array_equal(fit_predictor(part).predict(part).outputs, expected)


def test_no_features_predict_the_shares():
    cases = make_cases(features=None)
    np.testing.assert_allclose(fit_predictor(cases).predict(cases).outputs, 0.5)


def test_a_class_without_training_rows_gets_no_probability():
    cases = make_cases(classes=("a", "b", "c"))
    two = cases.select(cases.target != 1)
    predictor = fit_predictor(two)
    probabilities = predictor.predict(cases).outputs
    np.testing.assert_array_equal(probabilities[:, 1], 0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_one_class_alone_cannot_be_learnt():
    cases = make_cases()
    with pytest.raises(DataError, match="found only 'b'"):
        fit_predictor(cases.select(cases.target == 1))
    with pytest.raises(DataError, match="found none"):
        fit_predictor(make_cases(classes=()).select(np.zeros(60, dtype=bool)))


def test_a_confound_that_is_the_signal_leaves_nothing():
    cases = make_cases(classes=(), noise=0.1)
    confounds = pd.DataFrame({"c": cases.features[:, 0] - cases.features[:, 1]})
    clean = make_cases(classes=(), noise=0.1, confounds=confounds)
    predictor = fit_predictor(clean)
    raw = fit_predictor(cases).predict(cases).outputs[:, 0]
    left = predictor.predict(clean).outputs[:, 0]
    assert np.corrcoef(raw, cases.target)[0, 1] > 0.99
    assert abs(np.corrcoef(left, cases.target)[0, 1]) < 0.3
    with pytest.raises(UsageError, match="need the confounds"):
        predictor.predict(cases)


def test_a_table_is_encoded_and_its_gaps_are_told():
    table = pd.DataFrame({"site": ["A", "B"] * 30, "fd": np.linspace(0, 1, 60)})
    target = (np.arange(60) % 2).astype(float)
    people = [str(number) for number in range(60)]
    cases = Cases(target=target, participants=people, classes=("a", "b"), table=table)
    predictor = fit_predictor(cases)
    assert (predictor.predict(cases).outputs.argmax(axis=1) == target).all()
    strange = Cases(
        target=np.zeros(1),
        participants=["x"],
        classes=("a", "b"),
        table=pd.DataFrame({"site": ["C"], "fd": [0.5]}),
    )
    assert "site: 1 of 1 rows" in predictor.predict(strange).notes[0]


def test_rows_of_an_unseen_site_are_predicted_unharmonised_and_that_is_told():
    sites = ["A", "B"] * 30
    cases = make_cases(classes=(), sites=sites)
    predictor = fit_predictor(cases)
    strange = make_cases(classes=(), sites=["C"] * 60)
    notes = predictor.predict(strange).notes
    assert notes == ("60 row(s) of sites that were not learnt (C) stay as they are.",)


def test_cases_must_fit_together():
    with pytest.raises(UsageError, match="one entry per row"):
        Cases(target=np.zeros(2), participants=["1"])
    with pytest.raises(UsageError, match="found both"):
        Cases(
            target=np.zeros(1),
            participants=["1"],
            features=np.zeros((1, 1)),
            table=pd.DataFrame({"a": [1]}),
        )
    with pytest.raises(DataError, match="1 of 2 rows have features that are not finite"):
        Cases(target=np.zeros(2), participants=["1", "2"], features=np.array([[np.nan], [1]]))
    with pytest.raises(UsageError, match="strongest first"):
        FitOptions(penalties=(1.0, 2.0))
