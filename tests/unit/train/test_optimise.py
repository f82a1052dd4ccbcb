from __future__ import annotations

import copy

import pytest
import torch

from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.train.optimise import (
    WeightAverage,
    checkpoint_activations,
    find_learning_rate,
    group_parameters,
)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    config = ModelConfig(
        img_size=(4, 4, 4, 2),
        embed_dim=4,
        depths=(2, 1),
        window_size=(2, 2, 2, 2),
        first_window_size=(2, 2, 2, 2),
        patch_size=(2, 2, 2, 1),
        last_layer_full_msa=False,
        d_state=2,
        prompt_len=1,
        drop_path_rate=0.5,
    )
    return Backbone(config)


def test_only_the_weights_of_linear_maps_and_convolutions_decay(backbone):
    names = {id(p): name for name, p in backbone.named_parameters()}
    decaying, others = group_parameters(backbone, weight_decay=0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(decaying["params"]) + len(others["params"]) == len(names)
    kinds = {names[id(p)].split(".", 2)[-1].removeprefix("blocks.0.") for p in decaying["params"]}
    assert "mamba.in_proj.weight" in kinds
    assert "mamba.conv1d.weight" in kinds
    kept = {names[id(p)].rsplit(".", 1)[-1] for p in others["params"]}
    assert {"A_log", "D", "bias", "pos_embed", "time_embed", "prompt"} <= kept
    assert not any("norm" in names[id(p)] for p in decaying["params"])


def test_frozen_weights_are_not_handed_to_the_optimizer(backbone):
    backbone.patch_embed.requires_grad_(requires_grad=False)
    grouped = {
        id(p) for group in group_parameters(backbone, weight_decay=0) for p in group["params"]
    }
    assert not grouped & {id(p) for p in backbone.patch_embed.parameters()}


def test_the_learning_rate_rises_straight_then_falls_along_a_cosine():
    rates = [find_learning_rate(step, n_steps=24, warmup_steps=4, peak=1.0) for step in range(24)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[14] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_without_a_warm_up_of_its_own_a_twentieth_of_the_training_is_one():
    rate = find_learning_rate(0, n_steps=100, warmup_steps=None, peak=6.0)
    assert rate == pytest.approx(1.0)
    assert find_learning_rate(0, n_steps=10, warmup_steps=None, peak=6.0) == 6.0


def test_a_warm_up_as_long_as_the_training_never_divides_by_zero():
    rates = [find_learning_rate(step, n_steps=3, warmup_steps=9, peak=1.0) for step in range(3)]
    assert rates == sorted(rates)


def test_the_average_of_weights_that_stay_is_those_weights():
    model = torch.nn.Linear(2, 2)
    before = copy.deepcopy(model.state_dict())
    average = WeightAverage(model, decay=0.9)
    average.update(1)
    assert all(torch.equal(average.state_dict()[name], before[name]) for name in before)


def test_the_average_moves_by_what_the_decay_leaves():
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.9)
    torch.nn.init.ones_(model.weight)
    average.update(1)  # early on, 2 / 11 of the average stay
    assert average.state_dict()["weight"].item() == pytest.approx(9 / 11)
    average.update(10_000)
    assert average.state_dict()["weight"].item() == pytest.approx(1 - 0.9 * 2 / 11)


def test_the_average_stands_in_for_the_weights_and_gives_them_back():
    model = torch.nn.Linear(2, 2)
    average = WeightAverage(model, decay=0.5)
    start = model.weight.detach().clone()
    torch.nn.init.ones_(model.weight)
    with average.applied():
        assert torch.equal(model.weight, start)
    assert torch.equal(model.weight, torch.ones(2, 2))
    assert torch.equal(average.state_dict()["weight"], start)


def test_computing_blocks_twice_gives_the_same_gradients(backbone):
    clips = torch.randn(3, 1, 4, 4, 4, 2)
    gradients = []
    for repeat in range(2):
        if repeat:
            checkpoint_activations(backbone)
        torch.manual_seed(1)  # for the blocks that are left out at random
        backbone.train().zero_grad()
        backbone(clips).square().mean().backward()
        gradients.append([p.grad.clone() for p in backbone.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))
    assert any(a.abs().max() > 0 for a in gradients[0])
