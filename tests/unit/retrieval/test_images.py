"""Image retrieval: finds what was planted, chance for shuffled images, fits on training runs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.retrieval.images import retrieve_images
from neurostorm_bids.retrieval.maps import (
    ContrastiveSettings,
    fit_contrastive_map,
    fit_ridge_map,
)

N_DIMENSIONS, N_FEATURES = 5, 20
FITS = {
    "ridge": fit_ridge_map,
    "contrastive": partial(fit_contrastive_map, settings=ContrastiveSettings(n_steps=60)),
}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    names = pd.Index([f"{n:02d}.png" for n in range(40)], name="stim_file")
    return pd.DataFrame(rng.normal(size=(40, N_DIMENSIONS)), index=names)


def make_trials(images, *, n_people=3, n_repeats=1):
    """Show the first 28 images in runs 1 and 2, the others in run 3."""
    rows = [
        (f"sub-{person}", "1", f"run-{1 + (index >= 14) + (index >= 28)}", name)
        for person in range(n_people)
        for index, name in enumerate(images.index)
        for _ in range(n_repeats)
    ]
    trials = pd.DataFrame(rows, columns=["participant_id", "session", "run", "stim_file"])
    return trials, (trials["run"] != "run-3").to_numpy(copy=True)


def respond(trials, images, *, noise=0.3, own_maps=False):
    """Respond linearly to each image: by one map, or by a map of each person's own."""
    rng = np.random.default_rng(1)
    people = trials["participant_id"].unique()
    projections = rng.normal(size=(len(people), N_DIMENSIONS, N_FEATURES))
    which = np.searchsorted(people, trials["participant_id"]) if own_maps else 0
    vectors = images.loc[trials["stim_file"]].to_numpy()
    clean = np.einsum(
        "nd,ndf->nf",
        vectors,
        np.broadcast_to(projections[which], (len(trials), N_DIMENSIONS, N_FEATURES)),
    )
    return clean + noise * rng.normal(size=clean.shape)


def retrieve(responses, trials, images, is_training, **options):
    return retrieve_images(
        responses,
        trials,
        images,
        is_training=is_training,
        generator=np.random.default_rng(0),
        **options,
    )


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("across", [False, True])
def test_images_are_found_from_responses_and_responses_from_images(images, fit, across):
    trials, is_training = make_trials(images)
    result = retrieve(respond(trials, images), trials, images, is_training, across=across, fit=fit)
    for scores in (result.forward, result.backward):
        assert scores["rank1"].value >= 0.7
        assert scores["rank1"].chance == pytest.approx(1 / 12)
        assert scores["rank5"].value >= 0.9
    assert (result.n_images, result.n_seen) == (12, 0)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("across", [False, True])
def test_shuffled_images_are_found_by_chance(images, fit, across):
    trials, is_training = make_trials(images, n_people=12)
    responses = respond(trials, images)
    rng = np.random.default_rng(3)
    in_run = trials.groupby(["participant_id", "run"])["stim_file"]
    trials["stim_file"] = in_run.transform(rng.permutation)
    result = retrieve(responses, trials, images, is_training, across=across, fit=fit)
    for scores in (result.forward, result.backward):
        assert scores["rank1"].value == pytest.approx(scores["rank1"].chance, abs=0.09)
        assert scores["rank5"].value == pytest.approx(scores["rank5"].chance, abs=0.15)


def test_a_map_of_ones_own_does_not_carry_over_to_others(images):
    trials, is_training = make_trials(images, n_people=4)
    responses = respond(trials, images, own_maps=True)
    within = retrieve(responses, trials, images, is_training)
    across = retrieve(responses, trials, images, is_training, across=True)
    assert within.forward["rank1"].value >= 0.7
    assert across.forward["rank1"].value <= 0.4


@pytest.mark.parametrize("across", [False, True])
def test_a_map_is_fitted_on_training_runs_of_the_right_people(images, across):
    trials, is_training = make_trials(images)
    responses = respond(trials, images)
    responses = np.column_stack([np.arange(len(trials)), responses])  # which trial it is
    person = trials["participant_id"].to_numpy()
    fitted, tested = [], []

    def spy(rows, vectors):
        fitted.append(rows[:, 0].astype(int))
        predict = fit_ridge_map(rows[:, 1:], vectors)

        def follow(new):
            tested.append(new[:, 0].astype(int))
            return predict(new[:, 1:])

        return follow

    retrieve(responses, trials, images, is_training, across=across, fit=spy)
    for label, one, other in zip(np.unique(person), fitted, tested, strict=True):
        is_own = person == label
        assert set(one) == set(np.flatnonzero(is_training & (~is_own if across else is_own)))
        assert set(other) == set(np.flatnonzero(~is_training & is_own))


def test_images_seen_in_training_are_counted_and_can_be_left_out(images):
    trials, is_training = make_trials(images)
    other = trials["participant_id"] == "sub-0"
    is_training[other] = (trials["run"] != "run-1")[other]
    responses = respond(trials, images)
    seen = retrieve(responses, trials, images, is_training, across=True)
    unseen = retrieve(responses, trials, images, is_training, across=True, unseen_only=True)
    assert seen.n_seen == 26
    assert (unseen.n_images, unseen.n_seen) == (26, 0)


def test_responses_to_one_image_are_averaged(images):
    trials, is_training = make_trials(images, n_repeats=4)
    result = retrieve(respond(trials, images), trials, images, is_training)
    assert set(result.by_participant["n_candidates"]) == {12}
    noisy = retrieve(respond(trials, images, noise=3.0), trials, images, is_training)
    trials, is_training = make_trials(images, n_repeats=1)
    once = retrieve(respond(trials, images, noise=3.0), trials, images, is_training)
    assert noisy.forward["rank5"].value > once.forward["rank5"].value


def test_both_directions_are_ranked_as_by_hand():
    images = pd.DataFrame(
        [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]],
        index=pd.Index(list("abcd"), name="stim_file"),
    )
    shown = [("1", name) for name in "abcd"] + [("2", name) for name in "aab"]
    trials = pd.DataFrame(shown, columns=["run", "stim_file"])
    trials = trials.assign(participant_id="sub-1", session="1")
    responses = np.zeros((7, 2))
    # To a on average (1, 0.9), which is nearer to a; to b (1, 0.5), which is nearer to a as well.
    responses[4:] = [[2.0, 0.0], [0.0, 1.8], [1.0, 0.5]]
    result = retrieve(
        responses, trials, images, (trials["run"] == "1").to_numpy(), fit=lambda *_: np.asarray
    )
    assert result.forward["rank1"].value == 0.5
    assert result.backward["rank1"].value == 0.0  # a is nearer to the other response, and b too
    scores = result.by_participant.set_index("direction")["mean_average_precision"]
    assert scores.to_dict() == {"forward": 0.75, "backward": 0.5}


def test_order_of_trials_and_people_changes_nothing(images):
    trials, is_training = make_trials(images)
    responses = respond(trials, images, noise=2.0)
    order = np.random.default_rng(5).permutation(len(trials))
    straight = retrieve(responses, trials, images, is_training)
    mixed = retrieve(responses[order], trials.iloc[order], images, is_training[order])
    for one, other in ((mixed.forward, straight.forward), (mixed.backward, straight.backward)):
        assert [s.value for s in one.scores] == pytest.approx([s.value for s in other.scores])


def test_many_images_are_drawn_down_to_the_gallery(images):
    trials, is_training = make_trials(images)
    result = retrieve(respond(trials, images), trials, images, is_training, gallery_size=4)
    assert result.forward.n_candidates == 4
    assert result.forward["rank1"].chance == pytest.approx(1 / 4)


def test_scores_by_participant_average_to_the_whole(images):
    trials, is_training = make_trials(images)
    result = retrieve(respond(trials, images, noise=2.0), trials, images, is_training)
    table = result.by_participant.groupby("direction").mean(numeric_only=True)
    for direction, scores in (("forward", result.forward), ("backward", result.backward)):
        for name in ("rank1", "rank5", "mean_average_precision"):
            assert table.loc[direction, name] == pytest.approx(scores[name].value)
            assert table.loc[direction, f"{name}_chance"] == pytest.approx(scores[name].chance)


def test_people_without_test_runs_are_left_out_and_named(images):
    trials, is_training = make_trials(images)
    is_training[(trials["participant_id"] == "sub-1").to_numpy()] = True
    result = retrieve(respond(trials, images), trials, images, is_training)
    assert result.left_out == {"sub-1": "0 image(s) in test runs"}
    assert set(result.by_participant["participant_id"]) == {"sub-0", "sub-2"}
    with pytest.raises(DataError, match="Nobody's image retrieval"):
        retrieve(respond(trials, images), trials, images, np.ones(len(trials), bool))


def test_a_run_on_both_sides_is_refused(images):
    trials, is_training = make_trials(images)
    is_training[0] = False
    with pytest.raises(UsageError, match="Divide runs, not trials"):
        retrieve(respond(trials, images), trials, images, is_training)


def test_inputs_that_do_not_fit_are_refused(images):
    trials, is_training = make_trials(images)
    responses = respond(trials, images)
    with pytest.raises(DataError, match="2 image"):
        retrieve(responses, trials, images.iloc[2:], is_training)
    with pytest.raises(UsageError, match="rows of responses"):
        retrieve(responses[1:], trials, images, is_training)
    with pytest.raises(UsageError, match="Expected columns"):
        retrieve(responses, trials.drop(columns="run"), images, is_training)
    responses[0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        retrieve(responses, trials, images, is_training)
