"""Options of a fine-tuning: what has no effect is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.finetune_options import FinetuneOptions
from neurostorm_bids.train.options import MAX_SEED, TrainOptions


def make(**changes):
    given = {"target": "age", **changes}
    return FinetuneOptions(bids_dir=Path("in"), output_dir=Path("out"), model="m", **given)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"head": "v2"}, "--head"),
        ({"prompt_len": 5}, "--prompt-len"),
        ({"adapt": "prompt", "lora_rank": 2}, "--lora-rank"),
        ({"splits": "held-out", "n_folds": 3}, "--n-folds"),
        ({"held_out_share": 0.3}, "--held-out-share"),
        ({"adapt": "full", "confound_columns": ("age",)}, "--confound-columns"),
        ({"target": "trial_type", "target_kind": "regression"}, "--target-kind"),
        ({"event_delay_s": 0.0}, "--event-delay"),
    ],
)
def test_an_option_without_effect_is_refused(changes, named):
    with pytest.raises(UsageError, match=f"{named} has an effect only with"):
        make(**changes)


@pytest.mark.parametrize("changes", [{"harmonise": True}, {"splits": "leave-site-out"}])
def test_sites_must_be_named_where_they_count(changes):
    with pytest.raises(UsageError, match="--site-column"):
        make(**changes)
    assert make(**changes, site_column="site").site_column == "site"


def test_each_seed_is_a_fine_tuning_of_its_own():
    options = make(n_seeds=3, train=TrainOptions(seed=5, max_steps=2))
    assert list(options.seeds) == [5, 6, 7]
    assert options.with_seed(6) == make(train=TrainOptions(seed=6, max_steps=2))


@pytest.mark.parametrize(("n_seeds", "first"), [(0, 0), (2, MAX_SEED)])
def test_seeds_lie_between_their_bounds(n_seeds, first):
    with pytest.raises(UsageError, match="one seed or more"):
        make(n_seeds=n_seeds, train=TrainOptions(seed=first))


def test_the_work_folder_lies_in_the_output_folder_by_default():
    assert make().folder == Path("out/.work")
    assert make(work_dir=Path("w")).folder == Path("w")
