"""Scores over seeds: mean and deviation, and how often the model is better."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurostorm_bids.train.resampling import Resampling
from neurostorm_bids.train.scores import Score, Scores
from neurostorm_bids.train.seeds import format_spread, summarise_seeds


def score(**values):
    return Scores(
        kind="classification",
        scores=tuple(
            Score(name=name, value=value, low=None, high=None, chance=0.5)
            for name, value in values.items()
        ),
        n_participants=10,
        n_rows=10,
        n_left_out=0,
        resampling=Resampling(),
    )


def make_round(seed, *, model, guess, is_beaten):
    verdict = SimpleNamespace(is_beaten=is_beaten)
    return SimpleNamespace(
        seed=seed,
        compared=(
            SimpleNamespace(name="the model", scores=score(auroc=model, f1=0.5), verdict=None),
            SimpleNamespace(name="guess", scores=score(auroc=guess, f1=0.25), verdict=verdict),
        ),
    )


def test_mean_and_deviation_are_those_of_the_seeds():
    model, guess = summarise_seeds(
        [
            make_round(0, model=0.7, guess=0.5, is_beaten=True),
            make_round(1, model=0.8, guess=None, is_beaten=False),
            make_round(2, model=0.9, guess=0.5, is_beaten=True),
        ]
    )
    assert model["auroc"].values == (0.7, 0.8, 0.9)
    assert model["auroc"].mean == pytest.approx(0.8)
    assert model["auroc"].sd == pytest.approx(0.1)
    assert model["f1"].sd == 0
    assert model.describe() == "Over 3 seeds, auroc of the model: 0.8 (SD 0.1)."
    assert guess["auroc"].values == (0.5, None, 0.5)
    assert guess.describe().endswith("The model beats it with 2 of 3 seeds.")


def test_one_seed_has_no_deviation_and_nothing_has_no_mean():
    _, guess = summarise_seeds([make_round(0, model=0.7, guess=None, is_beaten=True)])
    assert guess["auroc"].mean is None
    assert guess["f1"].sd is None
    assert (format_spread(guess["auroc"]), format_spread(guess["f1"])) == ("n/a", "0.25")
