"""Adapting: what trains, what stands still, and that a merged update is the update."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.adapt import (
    LORA_LAYERS,
    Adaptation,
    adapt,
    configure_head,
    count,
    list_trainable,
    make_linear_head,
    merge_lora,
)
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.pretrained import load_model, save_model

METHODS = ("linear", "prompt", "lora", "full")


@pytest.fixture
def backbone(tiny_config):
    torch.manual_seed(3)
    return Backbone(tiny_config).eval()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


@pytest.fixture
def clip(tiny_config):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(2, 1, *tiny_config.img_size, generator=generator)


@pytest.fixture(scope="session")
def recipe(golden):
    """Return the module that makes the golden weights and clips from seeds."""
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(backbone, clip):
    with torch.inference_mode():
        return backbone(clip)


def step(backbone, clip):
    """Train for one step on whatever trains."""
    parameters = [part for part in backbone.parameters() if part.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    backbone(clip).square().mean().backward()
    optimizer.step()


def with_random_updates(adapted):
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.1, generator=generator)
    return adapted


def expected_lora(config, rank):
    """Return the parameters of the updates, summed by hand over the five matrices of a block."""
    total = 0
    for stage, depth in enumerate(config.depths):
        dim = config.stage_dim(stage)
        inner, step_rank = config.expand * dim, math.ceil(dim / 16)
        shapes = [
            (2 * inner, dim),
            (step_rank + 2 * config.d_state, inner),
            (dim, inner),
            (4 * dim, dim),
            (dim, 4 * dim),
        ]
        total += depth * sum(min(rank, a, b) * (a + b) for a, b in shapes)
    return total


@pytest.mark.parametrize("method", ["linear", "lora", "full"])
def test_adapting_at_first_changes_no_output(backbone, clip, generator, method):
    adapted = adapt(backbone, Adaptation(method=method), generator=generator)
    assert torch.equal(run(adapted, clip), run(backbone, clip))


@pytest.mark.parametrize("method", METHODS)
def test_the_pretrained_backbone_stays_as_it_is(backbone, clip, generator, method):
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    adapted = adapt(backbone, Adaptation(method=method, prompt_len=3, rank=2), generator=generator)
    if method != "linear":
        step(adapted, clip)
    assert backbone.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.config.prompt_len == 0


@pytest.mark.parametrize(
    ("method", "kind"), [("prompt", ".prompt"), ("lora", (".up", ".down")), ("full", "")]
)
def test_a_step_moves_what_trains_and_nothing_else(backbone, clip, generator, method, kind):
    adapted = adapt(backbone, Adaptation(method=method, prompt_len=3, rank=2), generator=generator)
    with_random_updates(adapted)
    before = {name: part.detach().clone() for name, part in adapted.named_parameters()}
    step(adapted, clip)
    for name, parameter in adapted.named_parameters():
        trains = name.endswith(kind)
        assert (parameter.grad is not None) == trains, name
        assert torch.equal(parameter, before[name]) != trains, name


def test_linear_trains_no_weight_of_the_backbone(backbone, clip, generator):
    adapted = adapt(backbone, Adaptation(method="linear"), generator=generator)
    assert list_trainable(adapted) == []
    assert not adapted(clip).requires_grad


def test_a_first_step_of_lora_moves_its_zero_side(backbone, clip, generator):
    adapted = adapt(backbone, Adaptation(method="lora", rank=2), generator=generator)
    step(adapted, clip)
    for name, parameter in adapted.named_parameters():
        if name.endswith(".up"):
            assert parameter.abs().max() > 0, name


def test_a_merged_update_gives_what_the_update_gave(backbone, clip, generator):
    adapted = with_random_updates(adapt(backbone, Adaptation(method="lora"), generator=generator))
    expected = run(adapted, clip)
    merged = run(merge_lora(adapted), clip)
    assert (expected - run(backbone, clip)).abs().max() > 1e-3 * expected.abs().max()
    assert (merged - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_an_update_counts_alpha_over_rank(backbone, generator):
    layers = {}
    for alpha, rank in ((0.0, 2), (4.0, 2), (8.0, 2), (8.0, 4)):
        adaptation = Adaptation(method="lora", alpha=alpha, rank=rank)
        adapted = with_random_updates(adapt(backbone, adaptation, generator=generator))
        layer = adapted.layers[0].blocks[0].mamba.in_proj
        update = layer.parametrizations.weight[0]
        product = update.up @ update.down
        layers[alpha, rank] = (layer.weight - layer.parametrizations.weight.original, product)
    for (alpha, rank), (change, product) in layers.items():
        assert torch.allclose(change, alpha / rank * product, atol=1e-6)


@pytest.mark.parametrize("trains", [False, True])
def test_a_copy_is_in_the_mode_of_the_original(backbone, generator, trains):
    backbone.train(trains)
    adapted = adapt(backbone, Adaptation(method="lora"), generator=generator)
    assert adapted.training is trains
    assert merge_lora(adapted).layers[0].blocks[0].training is trains


def test_a_merged_backbone_has_the_published_keys_and_loads_strictly(backbone, generator):
    merged = merge_lora(adapt(backbone, Adaptation(method="lora"), generator=generator))
    assert list(merged.state_dict()) == list(backbone.state_dict())
    Backbone(merged.config).load_state_dict(merged.state_dict(), strict=True)
    assert count(merged) == (count(backbone).total, count(backbone).total)


def test_training_and_inference_see_the_same_update(backbone, clip, generator):
    adapted = with_random_updates(adapt(backbone, Adaptation(method="lora"), generator=generator))
    whole, in_chunks = adapted(clip).detach(), run(adapted, clip)
    assert (whole - in_chunks).abs().max() <= 1e-5 * whole.abs().max()


def test_an_update_is_added_in_full_precision_under_autocast(backbone, generator):
    adapted = with_random_updates(adapt(backbone, Adaptation(method="lora"), generator=generator))
    layer = adapted.layers[0].blocks[0].mamba.in_proj
    expected = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, expected)


def test_adapting_an_adapted_backbone_starts_from_its_merged_weights(backbone, clip, generator):
    once = with_random_updates(adapt(backbone, Adaptation(method="lora"), generator=generator))
    twice = adapt(once, Adaptation(method="lora", rank=1), generator=generator)
    assert torch.equal(run(twice, clip), run(once, clip))
    assert count(twice).trainable == expected_lora(backbone.config, 1)


def test_the_same_generator_gives_the_same_new_parameters(backbone):
    for method in ("prompt", "lora"):
        states = [
            adapt(
                backbone, Adaptation(method=method), generator=torch.Generator().manual_seed(seed)
            ).state_dict()
            for seed in (1, 1, 2)
        ]
        changed = [key for key in states[0] if not torch.equal(states[0][key], states[2][key])]
        assert changed
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert all(key.endswith((".prompt", ".down")) for key in changed)


def test_a_backbone_with_new_prompts_is_one_of_its_own_configuration(backbone, clip, generator):
    adapted = adapt(backbone, Adaptation(method="prompt", prompt_len=3), generator=generator)
    assert adapted.config == replace(backbone.config, prompt_len=3)
    again = Backbone(adapted.config).eval()
    again.load_state_dict(adapted.state_dict(), strict=True)
    assert torch.equal(run(again, clip), run(adapted, clip))


def test_prompts_that_are_there_train_on(backbone, clip, generator):
    prompt = Adaptation(method="prompt", prompt_len=3)
    first = adapt(backbone, prompt, generator=generator)
    second = adapt(first, prompt, generator=generator)
    assert torch.equal(run(second, clip), run(first, clip))
    assert list_trainable(second) == list_trainable(first)
    assert not any("prompt" in name for name in list_trainable(adapt_by(first, "lora")))
    with pytest.raises(UsageError, match="has 3 prompts per window already, but 50"):
        adapt(first, Adaptation(method="prompt"), generator=generator)


def adapt_by(backbone, method):
    return adapt(backbone, Adaptation(method=method), generator=torch.Generator())


def test_prompts_give_the_numbers_of_the_research_code(golden, recipe):
    with np.load(golden / "prompt_tuning.npz") as stored:
        expected, seed = torch.from_numpy(stored["out"]), int(stored["weights_seed"])
        clip = recipe.clip((1, 1, 24, 24, 24, 8), int(stored["clip_seed"]))
        length = int(stored["prompt_len"])
    config = ModelConfig(
        img_size=(24, 24, 24, 8),
        embed_dim=8,
        depths=(2, 2, 2, 2),
        window_size=(4, 4, 4, 4),
        first_window_size=(4, 4, 4, 4),
        patch_size=(3, 3, 3, 1),
        last_layer_full_msa=True,
    )
    adapted = adapt(
        Backbone(config),
        Adaptation(method="prompt", prompt_len=length),
        generator=torch.Generator(),
    ).eval()
    shapes = {key: value.shape for key, value in adapted.state_dict().items()}
    weights = {
        key: torch.from_numpy(value.astype(np.float32))
        for key, value in recipe.weights(shapes, seed).items()
    }
    adapted.load_state_dict(weights, strict=True)
    out = run(adapted, torch.from_numpy(clip.astype(np.float32) * recipe.IN_SCALE))
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("method", METHODS)
def test_an_adapted_model_goes_into_a_folder_and_comes_back(golden, generator, tmp_path, method):
    model = load_model(golden / "official_sex.ckpt")
    adapted = with_random_updates(
        adapt(model.backbone, Adaptation(method=method, prompt_len=2), generator=generator)
    )
    clip = torch.randn(1, 1, 24, 24, 24, 8, generator=generator)
    save_model(
        replace(model, backbone=merge_lora(adapted), config=adapted.config), tmp_path / "folder"
    )
    again = load_model(tmp_path / "folder")
    expected = run(adapted, clip)
    assert (run(again.backbone, clip) - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.fixture(scope="module")
def base():
    return Backbone(ModelConfig.published())


def test_fifty_prompts_of_the_base_model_are_82800_parameters(base, generator):
    adapted = adapt(base, Adaptation(method="prompt"), generator=generator)
    assert count(adapted) == (82_800, 5_173_020 + 82_800)
    assert str(count(adapted)) == "82,800 of 5,255,820 parameters (1.58 %)"


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_low_rank_updates_of_the_base_model_have_the_parameters_of_their_formula(
    base, generator, rank
):
    adapted = adapt(base, Adaptation(method="lora", rank=rank), generator=generator)
    expected = expected_lora(base.config, rank)
    assert count(adapted) == (expected, 5_173_020 + expected)
    n_blocks = sum(base.config.depths)
    assert len(list_trainable(adapted)) == 2 * len(LORA_LAYERS) * n_blocks


def test_linear_and_full_train_nothing_and_everything_of_the_base_model(base, generator):
    linear = adapt(base, Adaptation(method="linear"), generator=generator)
    full = adapt(base, Adaptation(method="full"), generator=generator)
    assert count(linear) == (0, 5_173_020)
    assert count(full) == (5_173_020, 5_173_020)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "magic"}, "one of linear, prompt, lora, full"),
        ({"rank": 0}, "rank"),
        ({"prompt_len": 0}, "prompt_len"),
        ({"alpha": float("nan")}, "alpha"),
    ],
)
def test_an_impossible_adaptation_is_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        Adaptation(**wrong)


@pytest.mark.parametrize(("n_classes", "n_outputs"), [(2, 1), (5, 5)])
@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_a_head_has_the_outputs_that_its_target_needs(
    backbone, clip, version, n_classes, n_outputs
):
    target = TargetSpec(name="t", kind="classification", classes=tuple("abcde"[:n_classes]))
    config = configure_head(backbone.config, target, version=version)
    head = build_head(config, backbone.config.n_features)
    assert head(backbone(clip)).shape == (2, n_outputs)


def test_a_value_gets_the_regression_head(tiny_config):
    config = configure_head(tiny_config, TargetSpec(name="age", kind="regression"))
    assert (config.version, config.n_outputs) == ("regression", 1)


def test_an_embedding_head_predicts_no_classes(tiny_config):
    target = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
    with pytest.raises(UsageError, match="does not predict classes"):
        configure_head(tiny_config, target, version="embedding")


@pytest.mark.parametrize("model", [LogisticRegression(), Ridge()])
def test_a_linear_head_does_what_the_fitted_model_does(model):
    rng = np.random.default_rng(0)
    features = rng.normal(5.0, 3.0, size=(40, 6))
    truth = features[:, 0] > 5
    fitted = make_pipeline(StandardScaler(), model).fit(features, truth)
    scaler, model = fitted
    head = make_linear_head(
        np.atleast_2d(model.coef_),
        np.atleast_1d(model.intercept_),
        feature_means=scaler.mean_,
        feature_sds=scaler.scale_,
    )
    tokens = torch.from_numpy(features).float()[..., None, None, None, None]  # (n, C, 1, 1, 1, 1)
    decide = fitted.decision_function if hasattr(fitted, "decision_function") else fitted.predict
    np.testing.assert_allclose(head(tokens)[:, 0].detach(), decide(features), rtol=1e-4, atol=1e-4)
