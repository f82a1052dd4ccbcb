from __future__ import annotations

import subprocess
import sys

import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.options import TrainOptions


def test_options_can_be_read_without_torch():
    code = "import sys, neurostorm_bids.train.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("micro_batch_size", 0),
        ("max_steps", -1),
        ("warmup_steps", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("clip_norm", 0.0),
        ("ema_decay", 1.0),
        ("seed", 2**32),
        ("precision", "16-mixed"),
        ("strategy", "deepspeed"),
        ("betas", (0.9, 1.0)),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=name):
        TrainOptions(**{name: value})


def test_a_moving_average_is_refused_where_the_model_is_shared_out():
    with pytest.raises(UsageError, match="ema_decay"):
        TrainOptions(strategy="fsdp", ema_decay=0.99)


def test_epochs_become_steps_and_the_last_one_is_whole():
    assert TrainOptions(max_epochs=3, batch_size=4).count_steps(10) == 8
    assert TrainOptions(max_epochs=3, batch_size=4, max_steps=5).count_steps(10) == 5


def test_an_evaluation_is_bounded_and_in_whole_batches():
    options = TrainOptions(batch_size=4, evaluation_clips=10)
    assert [options.count_evaluation_batches(n) for n in (1, 5, 1000)] == [1, 2, 3]


def test_a_batch_is_shared_out_evenly_or_not_at_all():
    assert TrainOptions(batch_size=12).find_share(4) == 3
    with pytest.raises(UsageError, match="multiple of 5"):
        TrainOptions(batch_size=12).find_share(5)


def test_where_a_training_runs_does_not_decide_its_numbers():
    here = TrainOptions(devices=1, micro_batch_size=1, workers=1)
    there = TrainOptions(devices=8, num_nodes=2, strategy="ddp", checkpoint_every=7)
    assert here.describe_numbers() == there.describe_numbers()
    assert TrainOptions(seed=1).describe_numbers() != here.describe_numbers()
