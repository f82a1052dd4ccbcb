from __future__ import annotations

from dataclasses import replace

import pytest

from neurostorm_bids.train.reconstruction import Baselines


def test_the_outcome_says_what_was_learned_from_and_what_the_loss_is_worth(make_summary):
    learned, kept, compared = make_summary().tell_outcome()
    assert "40 times, learning from 300 volumes of 3 runs of 2 participants" in learned
    assert "on 200 volumes of 2 runs of 2 participants, who took no part" in learned
    assert "after update 20" in kept
    assert "lowest: 0.3. Before the first update it was 1.5" in kept
    assert "visible loses 0.6, and by the mean of all visible patches 1.25" in compared
    assert "The model loses 0.5 times the smaller" in compared


def test_a_training_without_reconstruction_is_compared_with_nothing(make_summary):
    assert len(make_summary(reconstruction=None).tell_outcome()) == 2


def test_of_a_sum_of_objectives_the_reconstruction_is_what_baselines_compare_with(make_summary):
    summary = make_summary()
    rows = tuple({**row, "mae": row["loss"] / 2} for row in summary.result.validation)
    summary = make_summary(
        result=replace(summary.result, validation=rows),
        reconstruction=replace(summary.reconstruction, loss="mae"),
    )
    assert "loses 0.25 times the smaller" in summary.tell_outcome()[-1]


def test_a_sound_training_is_warned_of_nothing(make_summary):
    assert make_summary(warnings=()).list_warnings() == []


def test_given_warnings_come_first(make_summary):
    only = make_summary().validation_runs[:1]
    given, own = make_summary(validation_runs=only).list_warnings()
    assert given == "The atlas is in another space."
    assert "one participant" in own


@pytest.mark.parametrize(("voxel_mean", "patch_mean"), [(0.3, 2.0), (2.0, 0.2)])
def test_a_model_that_beats_only_one_baseline_is_warned_of(make_summary, voxel_mean, patch_mean):
    summary = make_summary(warnings=())
    found = replace(
        summary.reconstruction,
        baselines=Baselines(patch_mean=patch_mean, voxel_mean=voxel_mean),
    )
    (warning,) = make_summary(warnings=(), reconstruction=found).list_warnings()
    assert "no better than averages" in warning


def test_a_training_that_was_best_at_its_end_may_be_too_short(make_summary):
    result = replace(make_summary().result, best_step=40, best_loss=0.4)
    (warning,) = make_summary(warnings=(), result=result).list_warnings()
    assert "longer training" in warning


def test_a_participant_with_data_in_two_datasets_is_one(make_summary):
    twice = make_summary().training_runs[:2]
    assert "of 2 runs of 1 participant." in make_summary(training_runs=twice).tell_outcome()[0]
