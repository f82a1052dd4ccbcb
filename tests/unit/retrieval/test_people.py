"""Re-identification: certain for identical embeddings, chance for random ones, never by itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.retrieval.people import compare_with_gallery, reidentify


def make_runs(n_people, sessions=("1", "2"), tasks=("rest",)):
    rows = [
        (f"sub-{person:03d}", session, f"sub-{person:03d}_ses-{session}_task-{task}_space-S")
        for person in range(n_people)
        for session in sessions
        for task in tasks
    ]
    return pd.DataFrame(rows, columns=["participant_id", "session", "run"])


def embed(runs, *, noise, n_features=12, seed=0):
    """Give each person an embedding of their own, and every run noise on it."""
    rng = np.random.default_rng(seed)
    labels, person = np.unique(runs["participant_id"], return_inverse=True)
    own = rng.normal(size=(len(labels), n_features))[person]
    return own + noise * rng.normal(size=own.shape)


def identify(values, runs, *, seed=0, **options):
    found = reidentify({"model": values}, runs, generator=np.random.default_rng(seed), **options)
    return found["model"]


def values_of(result):
    """Return rank 1, rank 5 and mAP, which all grow to 1."""
    return [result.scores[name].value for name in ("rank1", "rank5", "mean_average_precision")]


def test_identical_embeddings_of_a_person_are_always_found():
    runs = make_runs(30)
    result = identify(embed(runs, noise=0.0), runs)
    assert values_of(result) == [1.0, 1.0, 1.0]
    assert result.scores.cmc[0] == 1.0


def test_random_embeddings_are_found_by_chance():
    runs = make_runs(50)
    noise = np.random.default_rng(4).normal(size=(len(runs), 40))
    result = identify(noise, runs)
    for score in (result.scores[name] for name in ("rank1", "rank5", "mean_average_precision")):
        assert score.low <= score.chance <= score.high
        assert score.value == pytest.approx(score.chance, abs=0.07)
    assert result.scores["rank1"].chance == pytest.approx(1 / 50)


def test_embeddings_exchanged_between_people_are_found_by_chance():
    runs = make_runs(40)
    values = embed(runs, noise=0.1)
    second = (runs["session"] == "2").to_numpy()
    values[second] = np.roll(values[second], 7, axis=0)
    assert identify(values, runs).scores["rank1"].value <= 0.1


def test_equal_embeddings_of_everybody_are_ranked_last():
    runs = make_runs(10)
    result = identify(np.ones((len(runs), 4)), runs)
    assert set(result.draws["rank"]) == {10}
    assert result.scores["rank1"].value == 0.0


def test_a_probe_never_meets_its_own_run_or_session():
    runs = make_runs(12, sessions=("1", "2", "3"), tasks=("rest", "nback"))
    draws = identify(embed(runs, noise=1.0), runs).draws
    for column in ("gallery", "probe"):
        owners = runs["participant_id"].to_numpy()[draws[column]]
        assert (owners == draws["participant_id"]).all()
    sessions = runs["session"].to_numpy()
    assert (sessions[draws["gallery"]] != sessions[draws["probe"]]).all()
    assert draws.groupby("draw")["participant_id"].nunique().eq(12).all()
    assert draws.groupby("draw").size().eq(12).all()


def test_in_a_draw_everybody_comes_from_the_same_session():
    runs = make_runs(12, tasks=("rest", "nback"))
    draws = identify(embed(runs, noise=1.0), runs).draws
    for column in ("gallery", "probe"):
        where = runs.loc[draws[column]].assign(draw=draws["draw"].to_numpy())
        kind = where["session"] + where["run"].str.extract("task-([a-z]+)")[0]
        assert kind.groupby(where["draw"]).nunique().eq(1).all()
    assert set(runs["session"].to_numpy()[draws["gallery"]]) == {"1", "2"}


def test_without_sessions_runs_are_kept_apart():
    runs = make_runs(12, sessions=("1",), tasks=("rest", "nback")).assign(session=None)
    result = identify(embed(runs, noise=0.0), runs)
    assert result.apart == "run"
    assert (result.draws["gallery"] != result.draws["probe"]).all()
    assert values_of(result) == [1.0, 1.0, 1.0]


def test_a_run_in_two_spaces_is_one_run():
    runs = make_runs(6, sessions=("1",), tasks=("rest",))
    other = runs.assign(run=runs["run"].str.replace("space-S", "space-T_res-2"))
    with pytest.raises(DataError, match="two or more people with two runs each; found 0"):
        identify(np.ones((12, 3)), pd.concat([runs, other]), apart="run")


def test_people_with_one_session_stay_out():
    runs = make_runs(12).iloc[1:]
    draws = identify(embed(runs, noise=0.1), runs).draws
    assert "sub-000" not in set(draws["participant_id"])
    assert draws["participant_id"].nunique() == 11


def test_permuting_rows_changes_nothing():
    runs = make_runs(25, sessions=("1", "2", "3"), tasks=("rest", "nback"))
    values = embed(runs, noise=1.5)
    order = np.random.default_rng(9).permutation(len(runs))
    straight = identify(values, runs, gallery_size=10)
    mixed = identify(values[order], runs.iloc[order], gallery_size=10)
    assert mixed.scores == straight.scores
    columns = ["draw", "participant_id", "rank"]
    pd.testing.assert_frame_equal(mixed.draws[columns], straight.draws[columns])


def test_renaming_people_changes_nothing():
    runs = make_runs(20)
    values = embed(runs, noise=1.5)
    renamed = runs.assign(
        participant_id=[f"sub-{int(p[4:]) * 7 % 20}" for p in runs["participant_id"]]
    )
    assert values_of(identify(values, renamed)) == pytest.approx(values_of(identify(values, runs)))


def test_a_larger_crowd_is_drawn_down_to_the_gallery():
    runs = make_runs(130)
    result = identify(embed(runs, noise=0.0), runs, n_draws=8)
    assert result.scores.n_candidates == 100
    assert result.draws.groupby("draw").size().eq(100).all()
    assert result.draws["participant_id"].nunique() == 130
    assert result.scores["rank1"].chance == pytest.approx(0.01)


def test_all_features_are_judged_on_the_same_draws():
    runs = make_runs(25)
    good, bad = embed(runs, noise=0.5), embed(runs, noise=5.0)
    found = reidentify(
        {"model": good, "connectivity": bad},
        runs,
        generator=np.random.default_rng(0),
        gallery_size=10,
    )
    columns = ["draw", "participant_id", "gallery", "probe"]
    pd.testing.assert_frame_equal(
        found["model"].draws[columns], found["connectivity"].draws[columns]
    )
    assert found["model"].scores["rank1"].value > found["connectivity"].scores["rank1"].value


def test_units_and_constant_features_do_not_matter():
    rng = np.random.default_rng(5)
    gallery, probes = rng.normal(size=(8, 5)), rng.normal(size=(3, 5))
    expected = compare_with_gallery(probes, gallery)
    scale, shift = np.array([1e-3, 1, 10, 1e6, 5]), np.array([0, 5, -3, 1e6, 2])
    moved = compare_with_gallery(probes * scale + shift, gallery * scale + shift)
    constant = compare_with_gallery(
        np.column_stack([probes, rng.normal(size=3)]), np.column_stack([gallery, np.full(8, 0.1)])
    )
    np.testing.assert_allclose(moved, expected, atol=1e-8)
    np.testing.assert_allclose(constant, expected, atol=1e-12)


def test_a_run_that_is_there_twice_is_refused():
    runs = pd.concat([make_runs(3), make_runs(1)])
    with pytest.raises(DataError, match="there twice"):
        identify(np.ones((8, 2)), runs)


def test_features_that_are_not_finite_or_not_of_the_runs_are_refused():
    runs = make_runs(3)
    with pytest.raises(DataError, match="'model' are not finite"):
        identify(np.full((6, 2), np.nan), runs)
    with pytest.raises(UsageError, match=r"\(6, n_features\)"):
        identify(np.ones((5, 2)), runs)
    with pytest.raises(UsageError, match="Expected columns"):
        identify(np.ones((6, 2)), runs.drop(columns="session"))
