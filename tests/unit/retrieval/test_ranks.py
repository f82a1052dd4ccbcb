"""Ranks and their scores: known cases, chance by simulation, ties."""

from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.retrieval.ranks import find_cosines, rank_right, score_ranks
from neurostorm_bids.train.resampling import Resampling


def test_the_rank_counts_candidates_that_are_more_similar():
    similarity = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.3, 0.2, 0.1]])
    assert rank_right(similarity, [0, 1, 2]).tolist() == [1, 2, 3]


def test_ties_count_against_the_right_candidate():
    assert rank_right(np.full((3, 5), 0.7), [0, 2, 4]).tolist() == [5, 5, 5]
    assert rank_right([[0.5, 0.5, 0.1]], [0]).tolist() == [2]


def test_rounding_does_not_break_a_tie():
    assert rank_right([[0.3 - 1e-15, 0.1 + 0.2, 0.0]], [1]).tolist() == [2]


def test_order_of_candidates_changes_no_rank():
    rng = np.random.default_rng(0)
    similarity, order = rng.uniform(-1, 1, size=(20, 20)), rng.permutation(20)
    moved = rank_right(similarity[:, order], np.argsort(order))
    assert moved.tolist() == rank_right(similarity, np.arange(20)).tolist()


def test_similarities_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        rank_right([[np.nan, 1.0]], [0])


def test_scores_of_ranks_done_by_hand():
    scores = score_ranks([1, 2, 10, 4], ["a", "b", "c", "d"], 10)
    assert scores["rank1"].value == 0.25
    assert scores["rank5"].value == 0.75
    assert scores["mean_average_precision"].value == pytest.approx((1 + 0.5 + 0.1 + 0.25) / 4)
    assert scores["rank1"].chance == pytest.approx(0.1)
    assert scores["rank5"].chance == pytest.approx(0.5)
    assert scores.cmc == pytest.approx([0.25, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 1.0])
    assert (scores.n_participants, scores.n_probes, scores.n_candidates) == (4, 4, 10)


def test_chance_is_what_a_random_order_gives():
    rng = np.random.default_rng(1)
    n_candidates, n_probes = 7, 5_000
    ranks = rank_right(rng.uniform(-1, 1, size=(n_probes, n_candidates)), np.zeros(n_probes, int))
    scores = score_ranks(ranks, np.arange(n_probes).astype(str), n_candidates)
    for score in scores.scores:
        assert score.value == pytest.approx(score.chance, abs=0.03)


def test_the_curve_starts_at_rank_1_passes_rank_5_and_ends_at_one():
    rng = np.random.default_rng(2)
    scores = score_ranks(rng.integers(1, 9, size=50), rng.integers(0, 6, 50).astype(str), 8)
    assert scores.cmc[0] == pytest.approx(scores["rank1"].value)
    assert scores.cmc[4] == pytest.approx(scores["rank5"].value)
    assert scores.cmc[-1] == pytest.approx(1.0)
    assert all(np.diff(scores.cmc) >= 0)


def test_every_participant_counts_once_however_many_probes():
    once = score_ranks([1, 3], ["a", "b"], 5)
    often = score_ranks([1] * 9 + [3], ["a"] * 9 + ["b"], 5)
    assert [s.value for s in once.scores] == pytest.approx([s.value for s in often.scores])
    assert once.cmc == pytest.approx(often.cmc)


def test_fewer_than_five_candidates_are_all_among_the_first_five():
    scores = score_ranks([3, 3], ["a", "b"], 3)
    assert scores["rank5"].value == scores["rank5"].chance == 1.0


def test_candidates_may_differ_in_number_between_probes():
    scores = score_ranks([1, 1], ["a", "b"], [2, 10])
    assert scores["rank1"].chance == pytest.approx((1 / 2 + 1 / 10) / 2)
    assert scores.n_candidates == 6


def test_the_interval_holds_the_score_and_covers_the_truth():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(100):
        ranks = np.where(rng.random(60) < 0.4, 1, 9)
        scores = score_ranks(
            ranks,
            np.arange(60).astype(str),
            10,
            resampling=Resampling(n_bootstrap=300, seed=seed),
        )
        score = scores["rank1"]
        assert score.low <= score.value <= score.high
        covered += score.low <= 0.4 <= score.high
    assert 88 <= covered <= 100


def test_one_participant_has_no_interval():
    score = score_ranks([1, 2, 3], ["a"] * 3, 4)["rank1"]
    assert (score.low, score.high) == (None, None)


def test_scores_are_plain_values_for_json():
    values = score_ranks([1, 2], ["a", "b"], 4).to_dict()
    assert values["scores"][0]["name"] == "rank1"
    assert isinstance(values["cmc"][0], float)


def test_a_row_of_zeros_is_similar_to_nothing():
    cosines = find_cosines(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[6.0, 8.0]]))
    assert cosines[:, 0] == pytest.approx([0.0, 1.0])
