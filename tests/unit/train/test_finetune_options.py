"""Options of a fine-tuning: what has no effect is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.finetune_options import FinetuneOptions


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


def test_the_work_folder_lies_in_the_output_folder_by_default():
    assert make().folder == Path("out/.work")
    assert make(work_dir=Path("w")).folder == Path("w")
