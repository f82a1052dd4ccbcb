from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.strd import (
    StrdConfig,
    attach_strd,
    drop_tokens,
    find_drop_probability,
)

GOLDEN_CASES = range(7)
WINDOWS = [(4, 4, 4, 4), (3, 2, 5, 3), (1, 1, 1, 4), (2, 2, 2, 1), (1, 1, 1, 1), (2, 1, 3, 2)]


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "strd.npz")


def read_case(numbers, case):
    *window, space_span, time_span = numbers[f"c{case}_spec"].tolist()
    config = StrdConfig(kind="published", space_span=space_span, time_span=time_span)
    return torch.from_numpy(numbers[f"c{case}_h_int8"]) / 32, tuple(window), config


def make_tokens(window, *, n_windows=3, n_channels=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_windows, math.prod(window), n_channels, generator=generator)


def make_half_alike(window=(4, 4, 4, 4)):
    """Return tokens of which those with low x are all the same, and which those are."""
    is_alike = torch.zeros(window, dtype=torch.bool)
    is_alike[: window[0] // 2] = True
    tokens = make_tokens(window)
    tokens[:, is_alike.flatten()] = tokens[:, :1]
    return tokens, is_alike.flatten()


@pytest.mark.parametrize("case", GOLDEN_CASES)
@pytest.mark.parametrize(("factor", "name"), [(1, "score"), (3, "score_h_times3")])
def test_published_scores_are_those_of_the_published_code(numbers, case, factor, name):
    h, window, config = read_case(numbers, case)
    score = find_drop_probability(factor * h, window, config=config)
    torch.testing.assert_close(score, torch.from_numpy(numbers[f"c{case}_{name}"]))


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_published_dropping_drops_the_same_tokens(numbers, case):
    h, window, config = read_case(numbers, case)
    generator = torch.Generator().manual_seed(77)
    dropped = drop_tokens(h, window, config=config, generator=generator)
    is_dropped = torch.from_numpy(numbers[f"c{case}_drop_seed77"]).bool()
    assert torch.equal(dropped, h.masked_fill(is_dropped.unsqueeze(-1), 0))


def test_published_scores_spare_redundant_tokens():
    h, is_alike = make_half_alike()
    score = find_drop_probability(4 * h, (4, 4, 4, 4), config=StrdConfig(kind="published"))
    assert score[:, is_alike].mean() < score[:, ~is_alike].mean()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_the_mean_probability_is_the_rate(window, rate):
    probability = find_drop_probability(make_tokens(window), window, config=StrdConfig(rate=rate))
    assert probability.shape == (3, math.prod(window))
    assert ((probability >= 0) & (probability <= 1)).all()
    assert probability.mean().item() == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.7])
def test_every_identical_token_is_likelier_dropped_than_any_unrelated_one(rate):
    h, is_alike = make_half_alike()
    probability = find_drop_probability(h, (4, 4, 4, 4), config=StrdConfig(rate=rate))
    assert probability[:, is_alike].min() > probability[:, ~is_alike].max()
    assert probability[:, is_alike].mean() == pytest.approx(
        min(1.5 * rate, (1 + rate) / 2), rel=0.01
    )


def test_a_window_of_identical_tokens_loses_more_than_one_of_unrelated_ones():
    window = (2, 3, 2, 4)
    h = make_tokens(window, n_windows=2)
    h[0] = h[0, :1]
    alike, unrelated = find_drop_probability(h, window, config=StrdConfig(rate=0.2)).mean(1)
    assert alike > 2 * unrelated


@pytest.mark.parametrize("axis", [0, 3])
def test_the_probability_rises_as_a_token_nears_its_neighbour(axis):
    window, place = (3, 3, 3, 3), [1, 1, 1, 1]
    token = np.ravel_multi_index(place, window)
    place[axis] += 1
    neighbour = np.ravel_multi_index(place, window)
    h = make_tokens(window, n_windows=1)
    found = []
    for likeness in (0.0, 0.5, 0.8, 0.95, 1.0):
        nearer = h.clone()
        nearer[:, token] += likeness * (h[:, neighbour] - h[:, token])
        probability = find_drop_probability(nearer, window, config=StrdConfig())
        found.append(probability[0, token].item())
    assert found == sorted(found)
    assert found[-1] > found[0]


@pytest.mark.parametrize(("span", "are_neighbours"), [(9, False), (11, True)])
@pytest.mark.parametrize("axis", range(4))
def test_a_neighbour_lies_within_half_the_span(axis, span, are_neighbours):
    window = tuple(6 if other == axis else 1 for other in range(4))
    h = torch.eye(6).unsqueeze(0)
    h[:, 5] = h[:, 0]
    config = StrdConfig(rate=0.1, space_span=span, time_span=span)
    probability = find_drop_probability(h, window, config=config)[0]
    ends = torch.tensor([0, 5])
    assert bool((probability[ends] > probability[1:5].max()).all()) is are_neighbours


def test_the_size_of_the_tokens_does_not_matter():
    window = (3, 2, 4, 3)
    h = make_tokens(window)
    first, second = (
        find_drop_probability(factor * h, window, config=StrdConfig()) for factor in (1, 8)
    )
    assert torch.equal(first, second)


def test_padding_is_not_counted():
    window = (2, 2, 2, 4)
    h = make_tokens(window)
    is_padding = torch.arange(32) % 4 == 3
    h[:, is_padding] = 0
    probability = find_drop_probability(h, window, config=StrdConfig(rate=0.2))
    assert (probability[:, is_padding] == 0).all()
    assert probability[:, ~is_padding].mean().item() == pytest.approx(0.2)
    nothing = find_drop_probability(0 * h, window, config=StrdConfig(rate=0.2))
    assert (nothing == 0).all()


def test_chunks_of_windows_give_what_all_at_once_give(monkeypatch):
    window = (3, 2, 2, 3)
    h = make_tokens(window, n_windows=7)
    for kind in ("published", "redundant"):
        whole = find_drop_probability(h, window, config=StrdConfig(kind=kind))
        with monkeypatch.context() as patch:
            patch.setattr("neurostorm_bids.model.strd.CHUNK_VALUES", 2 * 36**2)
            parts = find_drop_probability(h, window, config=StrdConfig(kind=kind))
        torch.testing.assert_close(parts, whole)


def test_tokens_are_dropped_at_the_rate_and_the_others_kept_as_they_are():
    window = (4, 4, 4, 4)
    h = make_tokens(window, n_windows=40)
    generator = torch.Generator().manual_seed(3)
    dropped = drop_tokens(h, window, config=StrdConfig(rate=0.3), generator=generator)
    is_dropped = (dropped == 0).all(-1)
    assert is_dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(dropped[~is_dropped], h[~is_dropped])


@pytest.fixture(scope="module")
def model_config():
    return ModelConfig(
        img_size=(16, 16, 16, 4),
        embed_dim=4,
        depths=(1, 2, 1),
        window_size=(2, 3, 2, 3),
        first_window_size=(4, 3, 4, 2),
        patch_size=(2, 2, 2, 1),
        last_layer_full_msa=True,
    )


@pytest.fixture
def make_backbone(model_config):
    def make(strd=None):
        torch.manual_seed(0)
        backbone = Backbone(model_config)
        if strd is not None:
            attach_strd(backbone, strd)
        return backbone

    return make


@pytest.fixture
def clips(model_config):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, model_config.in_chans, *model_config.img_size, generator=generator)


@pytest.mark.parametrize("kind", ["published", "redundant"])
def test_nothing_is_dropped_in_evaluation(make_backbone, clips, kind):
    with_strd = make_backbone(StrdConfig(kind=kind, rate=0.5)).eval()
    assert torch.equal(with_strd(clips), make_backbone().eval()(clips))
    with torch.no_grad():
        assert torch.equal(with_strd(clips), make_backbone().eval()(clips))


@pytest.mark.parametrize("n_volumes", [4, 3, 1])
def test_every_layer_drops_tokens_in_training(make_backbone, clips, n_volumes):
    backbone = make_backbone(StrdConfig(rate=0.4)).train()
    shares = []

    def note_share(_mixer, inputs, output):
        is_padding, is_zero = ((tokens == 0).all(-1) for tokens in (inputs[0], output))
        shares.append(is_zero[~is_padding].float().mean().item())

    for stage in backbone.layers:
        for block in stage.blocks:
            block.mamba.register_forward_hook(note_share)
    torch.manual_seed(0)
    backbone(clips[..., :n_volumes])
    assert len(shares) == sum(backbone.config.depths)
    assert shares[:2] == pytest.approx([0.4, 0.4], abs=0.07)
    assert all(0 < share < 1 for share in shares)


def test_a_rate_of_0_changes_nothing(make_backbone, clips):
    assert torch.equal(
        make_backbone(StrdConfig(rate=0.0)).train()(clips), make_backbone().train()(clips)
    )


def test_the_saved_weights_are_those_of_the_backbone(make_backbone):
    state, plain = make_backbone(StrdConfig()).state_dict(), make_backbone().state_dict()
    assert state.keys() == plain.keys()


def test_activation_checkpointing_drops_the_same_tokens_again(make_backbone, clips):
    grads = []
    for is_checkpointed in (False, True):
        backbone = make_backbone(StrdConfig(rate=0.3)).train()
        torch.manual_seed(9)
        if is_checkpointed:
            out = checkpoint(backbone, clips, use_reentrant=False)
        else:
            out = backbone(clips)
        out.square().sum().backward()
        grads.append(backbone.patch_embed.fc.weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_values_out_of_range_are_refused():
    with pytest.raises(DataError, match="as rate, found 2"):
        StrdConfig(rate=2.0)
    with pytest.raises(DataError, match="one of published, redundant as kind"):
        StrdConfig(kind="paper")
