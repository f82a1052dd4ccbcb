from __future__ import annotations

import math

import pytest
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.contrastive import (
    instance_contrastive,
    local_local_contrastive,
    nt_xent,
)


def make_views(n_rows=6, n_channels=8, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n_rows, n_channels, generator=generator, dtype=dtype).unbind()


def add_up(a, b, is_negative, temperature):
    """Compute the loss term by term; `is_negative(i, j)` says whether j repels i."""
    n_rows = len(a)
    views = [view / view.norm() for view in (*a, *b)]
    terms = []
    for this, view in enumerate(views):
        row = this % n_rows
        positive = math.exp(view @ views[(this + n_rows) % (2 * n_rows)] / temperature)
        negatives = [
            math.exp(view @ other / temperature)
            for that, other in enumerate(views)
            if is_negative(row, that % n_rows)
        ]
        if negatives:
            terms.append(-math.log(positive / (positive + sum(negatives))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_loss_is_the_sum_of_its_terms(temperature):
    a, b = make_views()
    expected = add_up(a, b, lambda i, j: i != j, temperature)
    assert nt_xent(a, b, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_participants_are_told_from_each_other_and_not_from_themselves():
    a, b = make_views()
    participants = [0, 1, 1, 2, 3, 0]
    expected = add_up(a, b, lambda i, j: participants[i] != participants[j], 0.1)
    loss = instance_contrastive(a, b, participants=torch.tensor(participants))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_clips_are_told_from_the_other_clips_of_their_run():
    a, b = make_views()
    runs = [4, 4, 4, 9, 9, 7]  # run 7 has one clip: nothing to tell it from
    expected = add_up(a, b, lambda i, j: i != j and runs[i] == runs[j], 0.1)
    loss = local_local_contrastive(a, b, runs=torch.tensor(runs))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_other_runs_do_not_matter_to_the_clips_of_one():
    a, b = make_views(8)
    runs = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    both = local_local_contrastive(a, b, runs=runs)
    each = [
        local_local_contrastive(a[runs == r], b[runs == r], runs=runs[runs == r]) for r in (0, 1)
    ]
    torch.testing.assert_close(both, torch.stack(each).mean())


def test_the_order_of_rows_and_of_views_does_not_matter():
    a, b = make_views()
    participants = torch.tensor([0, 1, 1, 2, 3, 0])
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    loss = instance_contrastive(a, b, participants=participants)
    shuffled = instance_contrastive(b[order], a[order], participants=participants[order])
    torch.testing.assert_close(shuffled, loss)


def test_the_length_of_a_vector_does_not_matter():
    a, b = make_views()
    torch.testing.assert_close(nt_xent(3 * a, 0.2 * b), nt_xent(a, b))


def test_vectors_that_say_nothing_cost_the_logarithm_of_the_choices():
    same = torch.ones(5, 3)
    assert nt_xent(same, same).item() == pytest.approx(math.log(2 * 5 - 1))


def test_views_that_agree_and_differ_from_all_others_cost_nothing():
    apart = torch.eye(6)
    assert nt_xent(apart, apart, temperature=0.01).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_and_a_low_temperature_stay_finite():
    a, b = make_views(dtype=torch.float32)
    exact = nt_xent(a, b, temperature=0.001)
    rough = nt_xent(a.bfloat16(), b.bfloat16(), temperature=0.001)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nt_xent(a, b, temperature=0.001).item() == exact.item()


def test_gradients_are_those_of_differences():
    a, b = make_views(4, 3)
    runs = torch.tensor([0, 0, 1, 1])
    a.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: local_local_contrastive(a, b, runs=runs, temperature=0.5), (a, b)
    )


def test_a_step_downhill_brings_the_views_together():
    a, b = make_views()
    a.requires_grad_()
    loss = nt_xent(a, b)
    loss.backward()
    assert nt_xent(a.detach() - 0.01 * a.grad, b) < loss


@pytest.mark.parametrize("n_rows", [1, 4])
def test_without_anything_to_tell_apart_the_loss_says_so(n_rows):
    a, b = make_views(n_rows)
    with pytest.raises(UsageError, match=f"found none among {n_rows} pairs"):
        instance_contrastive(a, b, participants=torch.zeros(n_rows, dtype=torch.int64))
