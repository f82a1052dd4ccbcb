"""A small model, and files of it as the research code writes them."""

from __future__ import annotations

import pytest
import torch

from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.shapes import decoder_shapes


@pytest.fixture(scope="session")
def tiny_config():
    return ModelConfig(
        img_size=(16, 16, 16, 4),
        embed_dim=4,
        depths=(1, 2, 1),
        window_size=(2, 2, 2, 2),
        first_window_size=(4, 4, 4, 2),
        patch_size=(2, 2, 2, 1),
        last_layer_full_msa=True,
    )


@pytest.fixture(scope="session")
def tiny_hyper(tiny_config):
    """Hyper-parameters that describe the small model, among others that do not matter."""
    values = tiny_config.to_dict()
    names = [
        *("img_size", "in_chans", "embed_dim", "depths", "window_size", "first_window_size"),
        *("patch_size", "c_multiplier"),
    ]
    return {name: values[name] for name in names} | {
        "last_layer_full_MSA": True,
        "use_prompt_tuning": False,
        "prompt_len": 50,
        "clf_head_version": "v1",
        "num_classes": 2,
        "downstream_task_type": "classification",
        "task_name": "sex",
        "pretraining": False,
        "num_heads": [3, 6, 12],
        "output_dir": "./out",
    }


@pytest.fixture(scope="session")
def tiny_state(tiny_config):
    """The small model's weights with a v1 head of one output, by their published keys."""
    torch.manual_seed(1)
    state = {f"model.{k}": v for k, v in Backbone(tiny_config).state_dict().items()}
    state["output_head.head.head.weight"] = torch.randn(1, tiny_config.n_features)
    state["output_head.head.head.bias"] = torch.randn(1)
    return state


@pytest.fixture(scope="session")
def tiny_autoencoder_state(tiny_config, tiny_state):
    """The small model's weights with those of a decoder, by their published keys."""
    torch.manual_seed(2)
    tokens = {"window_mask_token": (64, tiny_config.embed_dim)}
    shapes = decoder_shapes(tiny_config, tokens)
    encoder = {k: v for k, v in tiny_state.items() if k.startswith("model.")}
    return encoder | {f"model.{key}": torch.randn(shape) for key, shape in shapes.items()}


@pytest.fixture
def publish(tmp_path, tiny_state, tiny_hyper):
    """Write a file as the research code does, with any of its parts changed."""

    def publish(name="tiny.ckpt", *, state=None, hyper=None, **others):
        contents = {
            "epoch": 3,
            "state_dict": tiny_state if state is None else state,
            "hyper_parameters": tiny_hyper if hyper is None else hyper,
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        }
        contents |= others
        path = tmp_path / name
        torch.save({k: v for k, v in contents.items() if v is not None}, path)
        return path

    return publish
