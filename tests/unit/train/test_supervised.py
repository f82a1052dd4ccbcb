"""Losses of a target: what counts, and what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neurostorm_bids.model.config import TargetSpec
from neurostorm_bids.train.clips import Batch
from neurostorm_bids.train.sampling import Sample, TrainingRun
from neurostorm_bids.train.supervised import Supervised, weigh_classes

AGE = TargetSpec(name="age", kind="regression", unit="years", mean=50.0, sd=10.0)
SEX = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
SITE = TargetSpec(name="site", kind="classification", classes=("A", "B", "C"))


def make_batch(n_samples):
    run = TrainingRun(dataset="d", participant="1", label="r", path=Path("r"), n_volumes=9)
    samples = tuple(Sample(position, run, (0,), 0) for position in range(n_samples))
    return Batch(samples, (torch.zeros(n_samples, 1, 2, 2, 2, 2),))


def measure(target, outputs, labels, **kwargs):
    values = torch.tensor(outputs)
    objective = Supervised(lambda sample: labels[sample.position], target, **kwargs)
    return objective(lambda _clips: values, make_batch(len(labels))).value.item()


def test_a_number_is_learnt_as_a_z_score():
    assert measure(AGE, [[1.0], [-1.0]], [60.0, 40.0]) == 0
    assert measure(AGE, [[0.0], [0.0]], [60.0, 40.0]) == pytest.approx(1.0)


def test_one_logit_speaks_for_the_second_of_two_classes():
    right, wrong = measure(SEX, [[5.0]], [1.0]), measure(SEX, [[5.0]], [0.0])
    assert right == pytest.approx(np.log1p(np.exp(-5.0)), rel=1e-5)
    assert wrong == pytest.approx(5.0 + right, rel=1e-5)


def test_several_classes_have_a_logit_each():
    assert measure(SITE, [[0.0, 0.0, 0.0]], [2.0]) == pytest.approx(np.log(3))


@pytest.mark.parametrize(("target", "outputs"), [(AGE, [[0.3], [9.0]]), (SEX, [[0.3], [9.0]])])
def test_a_clip_without_a_label_counts_for_nothing(target, outputs):
    alone = measure(target, outputs[:1], [0.0])
    assert measure(target, outputs, [0.0, np.nan]) == pytest.approx(alone / 2)


def test_class_weights_multiply_the_loss_of_their_class():
    weights = np.array([1.0, 3.0])
    plain = [measure(SEX, [[0.7]], [label]) for label in (0.0, 1.0)]
    weighed = [measure(SEX, [[0.7]], [label], class_weights=weights) for label in (0.0, 1.0)]
    assert weighed == pytest.approx([plain[0], 3 * plain[1]])


def test_balanced_weights_give_every_class_the_same_sum_and_mean_one():
    truth = np.array([0.0] * 6 + [1.0] * 2 + [3.0])
    weights = weigh_classes(truth, 4)
    sums = [weights[code] * (truth == code).sum() for code in (0, 1, 3)]
    assert sums == pytest.approx([3.0, 3.0, 3.0])
    assert weights[2] == 0
    assert weights[truth.astype(int)].mean() == pytest.approx(1.0)
