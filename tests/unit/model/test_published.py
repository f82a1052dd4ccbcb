"""Published checkpoints: old and new keys, strict, and with nothing guessed."""

from __future__ import annotations

import os
import random
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch

from neurostorm_bids.errors import DataError, ReadError, UsageError
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.model.published import read_published
from neurostorm_bids.model.shapes import backbone_shapes, decoder_shapes


class NotInstalled:
    """Stands for a class of another program; the reader never looks it up."""

    def __init__(self):
        self.inside = [1, 2]


class HostileCall:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def equal(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in found
    )


def bare(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def with_head(state, head, prefix="output_head.head."):
    others = {k: v for k, v in state.items() if not k.startswith("output_head.")}
    return others | {prefix + key: value for key, value in head.items()}


def test_every_weight_comes_back_under_its_own_key(publish, tiny_state, tiny_config):
    checkpoint = read_published(publish())
    assert checkpoint.config == tiny_config
    assert equal(checkpoint.weights, bare(tiny_state, "model."))
    assert equal(checkpoint.head_weights, bare(tiny_state, "output_head.head."))
    assert not checkpoint.decoder_weights
    assert checkpoint.grid is None
    assert checkpoint.provenance.name == "tiny"
    assert checkpoint.provenance.source == "tiny.ckpt"
    assert len(checkpoint.provenance.sha256) == 64


def test_the_order_and_the_class_of_the_dicts_do_not_matter(publish, tiny_state, tiny_hyper):
    plain = read_published(publish())
    state = OrderedDict(reversed(tiny_state.items()))
    state._metadata = {"": {"version": 1}}
    other = read_published(publish(state=state, hyper=Namespace(**tiny_hyper)))
    assert other.config == plain.config
    assert other.target == plain.target
    assert equal(other.weights, plain.weights)


def test_objects_of_unknown_classes_do_not_matter(publish, tiny_hyper, tiny_config):
    hyper = {**tiny_hyper, "logger": NotInstalled(), "callbacks": [NotInstalled()]}
    checkpoint = read_published(publish(hyper=hyper, callbacks={NotInstalled: NotInstalled()}))
    assert checkpoint.config == tiny_config


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "beside"])
def test_nothing_in_a_file_is_run(publish, tmp_path, tiny_state, tiny_hyper, place):
    call = HostileCall(tmp_path / "sentinel")
    files = {
        "hyper_parameters": {"hyper": {**tiny_hyper, "logger": [call]}},
        "state_dict": {"state": {**tiny_state, "model.extra": call}},
        "beside": {"callbacks": {"a": (call,)}},
    }
    path = publish(**files[place])
    if place == "state_dict":
        with pytest.raises(DataError, match=r"something else than tensors: 'model\.extra'"):
            read_published(path)
    else:
        read_published(path)
    assert not (tmp_path / "sentinel").exists()


def test_a_two_class_head_has_one_output_and_numbered_classes(publish):
    checkpoint = read_published(publish())
    assert (checkpoint.head.version, checkpoint.head.n_outputs) == ("v1", 1)
    assert checkpoint.target == TargetSpec(name="sex", kind="classification", classes=("0", "1"))
    assert checkpoint.provenance.notes == ("The published file does not name the classes of sex.",)


def test_more_classes_have_one_output_each(publish, tiny_state, tiny_hyper):
    head = {"head.weight": torch.ones(5, 16), "head.bias": torch.ones(5)}
    path = publish(state=with_head(tiny_state, head), hyper={**tiny_hyper, "num_classes": 5})
    checkpoint = read_published(path)
    assert checkpoint.head.n_outputs == 5
    assert checkpoint.target.classes == ("0", "1", "2", "3", "4")


def test_a_regression_target_without_a_scale_stays_a_z_score(publish, tiny_hyper):
    hyper = {**tiny_hyper, "downstream_task_type": "regression", "task_name": "age"}
    checkpoint = read_published(publish(hyper=hyper))
    assert checkpoint.head.version == "regression"
    assert checkpoint.target == TargetSpec(name="age", kind="regression")
    assert "neither mean nor deviation of age" in checkpoint.provenance.notes[0]


def test_targets_scaled_otherwise_than_to_z_scores_are_named(publish, tiny_hyper):
    hyper = {
        **tiny_hyper,
        "downstream_task_type": "regression",
        "task_name": "age",
        "label_scaling_method": "minmax",
    }
    notes = read_published(publish(hyper=hyper)).provenance.notes
    assert "from 0 to 1, not to z-scores" in notes[0]


@pytest.mark.parametrize(
    ("task", "kind"),
    [("sex", "classification"), ("age", "regression"), ("int_total", "regression")],
)
def test_older_files_tell_the_kind_by_the_task(publish, tiny_hyper, task, kind):
    hyper = {k: v for k, v in tiny_hyper.items() if k not in {"task_name", "downstream_task_type"}}
    target = read_published(publish(hyper={**hyper, "downstream_task": task})).target
    assert (target.name, target.kind) == (task, kind)


def test_older_files_have_the_head_one_level_higher(publish, tiny_state):
    head = bare(tiny_state, "output_head.head.")
    new = read_published(publish())
    old = read_published(publish(state=with_head(tiny_state, head, "output_head.")))
    assert old.head == new.head
    assert equal(old.head_weights, new.head_weights)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_version_of_a_head_shows_in_its_keys(publish, tiny_state, tiny_hyper, version):
    config = HeadConfig(version=version, n_outputs=3, n_tokens=300, n_layers=2, n_heads=8)
    head = build_head(config, 16).state_dict()
    hyper = {**tiny_hyper, "num_classes": 3, "clf_head_version": version}
    checkpoint = read_published(publish(state=with_head(tiny_state, head), hyper=hyper))
    assert checkpoint.head.version == version
    assert checkpoint.head.n_outputs == 3
    assert equal(checkpoint.head_weights, head)
    if version == "v3":
        assert checkpoint.head == config
        assert "8 attention heads" in checkpoint.provenance.notes[0]


def test_a_head_whose_task_is_not_named_asks_for_it(publish, tiny_hyper):
    hyper = {k: v for k, v in tiny_hyper.items() if k != "task_name"}
    with pytest.raises(DataError, match="--target-name NAME --target-kind"):
        read_published(publish(hyper=hyper))
    target = TargetSpec(name="diagnosis", kind="classification", classes=("no", "yes"))
    checkpoint = read_published(publish(hyper=hyper), target=target)
    assert checkpoint.target == target
    assert not checkpoint.provenance.notes


def test_a_target_with_other_outputs_than_the_head_is_refused(publish):
    target = TargetSpec(name="group", kind="classification", classes=("a", "b", "c"))
    with pytest.raises(DataError, match="does not fit the head"):
        read_published(publish(), target=target)


def test_an_autoencoder_gives_its_encoder_and_keeps_its_decoder(
    publish, tiny_autoencoder_state, tiny_hyper
):
    hyper = {**tiny_hyper, "pretraining": True}
    checkpoint = read_published(publish(state=tiny_autoencoder_state, hyper=hyper))
    assert checkpoint.head is None
    assert checkpoint.target is None
    kept = checkpoint.weights | checkpoint.decoder_weights
    assert equal(kept, bare(tiny_autoencoder_state, "model."))
    assert checkpoint.decoder_weights["window_mask_token"].shape == (64, 4)
    assert not any(key.startswith(("layers_up", "mask")) for key in checkpoint.weights)


def test_older_autoencoders_have_one_mask_token_per_patch(
    publish, tiny_autoencoder_state, tiny_hyper
):
    state = {k: v for k, v in tiny_autoencoder_state.items() if "_mask_token" not in k}
    state["model.mask_token"] = torch.randn(16, 4)
    checkpoint = read_published(publish(state=state, hyper={**tiny_hyper, "pretraining": True}))
    assert checkpoint.decoder_weights["mask_token"].shape == (16, 4)


def test_the_atlas_of_an_autoencoder_and_heads_of_pretraining_are_left_out_with_a_note(
    publish, tiny_autoencoder_state, tiny_hyper
):
    state = tiny_autoencoder_state | {
        "model.atlas_map": torch.zeros(8, 8, 8, dtype=torch.int32),
        "output_head.fc1.weight": torch.ones(128, 16),
    }
    checkpoint = read_published(publish(state=state, hyper={**tiny_hyper, "pretraining": True}))
    assert checkpoint.head is None
    assert len(checkpoint.provenance.notes) == 2
    assert "without affines" in checkpoint.provenance.notes[0]


@pytest.mark.parametrize(
    "key", ["model.norm_up.bias", "model.layers_up.1.blocks.0.mamba.D", "model.atlas_mask_token"]
)
def test_an_autoencoder_must_be_whole(publish, tiny_autoencoder_state, tiny_hyper, key):
    state = {k: v for k, v in tiny_autoencoder_state.items() if k != key}
    with pytest.raises(DataError, match=f"missing {key}"):
        read_published(publish(state=state, hyper={**tiny_hyper, "pretraining": True}))


def test_prompts_are_read_when_prompt_tuning_is_on(publish, tiny_state, tiny_hyper, tiny_config):
    blocks = [(i, j) for i, depth in enumerate(tiny_config.depths) for j in range(depth)]
    prompts = {
        f"model.layers.{i}.blocks.{j}.prompt": torch.randn(1, 5, tiny_config.stage_dim(i))
        for i, j in blocks
    }
    hyper = {**tiny_hyper, "use_prompt_tuning": True, "prompt_len": 5}
    checkpoint = read_published(publish(state=tiny_state | prompts, hyper=hyper))
    assert checkpoint.config.prompt_len == 5
    assert equal(checkpoint.weights, bare(tiny_state | prompts, "model."))


def test_a_stored_prompt_length_without_prompt_tuning_means_nothing(publish):
    assert read_published(publish()).config.prompt_len == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_floating_types_become_float32(publish, tiny_state, dtype):
    state = {key: value.to(dtype) for key, value in tiny_state.items()}
    checkpoint = read_published(publish(state=state))
    assert equal(checkpoint.weights, {k: v.float() for k, v in bare(state, "model.").items()})


def test_missing_and_unexpected_keys_are_listed(publish, tiny_state):
    state = {k: v for k, v in tiny_state.items() if "norm1" not in k}
    state |= {"model.layers.0.blocks.0.attn.qkv.weight": torch.ones(2), "teacher.x": torch.ones(1)}
    with pytest.raises(DataError) as error:
        read_published(publish(state=state))
    text = str(error.value)
    assert "missing model.layers.0.blocks.0.norm1.bias" in text
    assert "and 2 more" in text
    assert "unexpected model.layers.0.blocks.0.attn.qkv.weight, teacher.x" in text


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 8},
        {"depths": [1, 1, 1]},
        {"depths": [1, 3, 1]},
        {"patch_size": [4, 4, 4, 1]},
        {"img_size": [32, 16, 16, 4]},
        {"img_size": [16, 16, 16, 5]},
        {"in_chans": 2},
        {"use_prompt_tuning": True},
    ],
)
def test_sizes_that_are_not_those_of_the_weights_are_refused(publish, tiny_hyper, change):
    with pytest.raises(DataError, match="are not those of its configuration"):
        read_published(publish(hyper=tiny_hyper | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_size": NotInstalled()}, "as img_size"),
        ({"depths": "many"}, "as depths"),
        ({"embed_dim": 2**40}, "as embed_dim"),
        ({"img_size": [4096, 4096, 4096, 4096]}, "values in a clip"),
        ({"last_layer_full_MSA": 1}, "true or false"),
        ({"use_prompt_tuning": True, "prompt_len": None}, "as prompt_len"),
    ],
)
def test_impossible_sizes_are_refused_before_memory_is_taken(publish, tiny_hyper, change, message):
    with pytest.raises(DataError, match=message) as error:
        read_published(publish(hyper=tiny_hyper | change))
    assert "tiny.ckpt" in str(error.value)


@pytest.mark.parametrize(
    "key", ["last_layer_full_MSA", "window_size", "first_window_size", "img_size"]
)
def test_what_the_weights_do_not_tell_is_asked_for(publish, tiny_hyper, key):
    hyper = {k: v for k, v in tiny_hyper.items() if k != key}
    with pytest.raises(DataError, match=f"do not say {key}.*--config"):
        read_published(publish(hyper=hyper))


def test_a_configuration_given_by_hand_stands_in(publish, tiny_config):
    target = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
    bare_file = publish(hyper=None, hyper_parameters=None)
    with pytest.raises(DataError, match="do not say"):
        read_published(bare_file)
    checkpoint = read_published(bare_file, config=tiny_config, target=target)
    assert checkpoint.config == tiny_config
    assert checkpoint.provenance.notes == ("The sizes of the backbone were given by hand.",)


def test_a_target_for_a_file_without_a_head_is_refused(publish, tiny_autoencoder_state, tiny_hyper):
    path = publish(state=tiny_autoencoder_state, hyper={**tiny_hyper, "pretraining": True})
    with pytest.raises(UsageError, match="no head, so it cannot predict 'age'"):
        read_published(path, target=TargetSpec(name="age", kind="regression"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(publish, tiny_state, value):
    broken = tiny_state["model.patch_embed.fc.bias"].clone()
    broken[1] = value
    with pytest.raises(DataError, match=r"NaN or infinite: patch_embed\.fc\.bias"):
        read_published(publish(state={**tiny_state, "model.patch_embed.fc.bias": broken}))


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_read_or_refused_and_never_a_surprise(publish, tmp_path, seed):
    raw = publish().read_bytes()
    draw = random.Random(seed)
    outcomes = set()
    for _ in range(40):
        damaged = bytearray(raw)
        for _ in range(draw.choice([1, 3, 20])):
            # Most of them where the pickle and the table of contents lie.
            near = draw.choice([(0, len(raw)), (0, 8000), (len(raw) - 8000, len(raw))])
            damaged[draw.randrange(*near)] = draw.randrange(256)
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        try:
            outcomes.add(read_published(tmp_path / "damaged.ckpt").provenance.format)
        except (DataError, ReadError) as err:
            outcomes.add(type(err))
    assert outcomes >= {DataError}


@pytest.mark.parametrize(
    "contents",
    [[1, 2], {"model": {}}, {"state_dict": [torch.ones(1)]}, {"state_dict": {1: torch.ones(1)}}],
)
def test_a_file_with_something_else_in_it_is_refused(tmp_path, contents):
    torch.save(contents, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match=r"a\.ckpt"):
        read_published(tmp_path / "a.ckpt")


def test_every_key_of_the_published_models_is_expected(shared):
    def read(name):
        lines = (shared / name).read_text().splitlines()
        rows = [line.split("\t") for line in lines if not line.startswith("#")]
        return {key: eval(shape) for key, shape, _ in rows}

    config = ModelConfig.published()
    encoder, autoencoder = read("base_keys.txt"), read("base_mae_keys.txt")
    assert backbone_shapes(config) == encoder
    assert decoder_shapes(config, autoencoder) | encoder == autoencoder
