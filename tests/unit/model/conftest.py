"""A small model, files of it as the research code writes them, and numbers that code produced."""

from __future__ import annotations

import hashlib
import importlib.util
import json

import numpy as np
import pytest
import torch

from neurostorm_bids.kernels.library import find_library
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.operations import COMPILED, FAST, REFERENCE, TORCH
from neurostorm_bids.model.shapes import decoder_shapes

OPERATIONS = {"torch": TORCH, "compiled": COMPILED, "reference": REFERENCE}


@pytest.fixture(params=OPERATIONS)
def ops(request):
    """One set of operations after the other, those in C where they were compiled."""
    if request.param == "compiled" and find_library() is None:
        pytest.skip("the C kernels were not compiled (python setup.py build_ext --inplace)")
    return OPERATIONS[request.param]


@pytest.fixture(params=[FAST, TORCH, REFERENCE], ids=["fast", "torch", "reference"])
def exact_ops(request):
    """One set of operations after the other, of those that compute in float64 too."""
    return request.param


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


@pytest.fixture(scope="session")
def recipe(golden):
    """The module that makes the golden weights and inputs from seeds."""
    spec = importlib.util.spec_from_file_location("golden_recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def read_golden(golden, recipe):
    """Read a golden file: its arrays by name, and its input ``x``, which comes from a seed."""

    def read_golden(name):
        with np.load(golden / f"{name}.npz") as file:
            arrays = dict(file)
        shape = arrays.get("x_shape", (1, 1, 96, 96, 96, 20))
        x = recipe.clip(shape, int(arrays["x_seed"]))
        assert hashlib.sha256(x.tobytes()).hexdigest() == str(arrays["x_sha256"])
        arrays["x"] = x.astype(np.float32) * recipe.IN_SCALE
        return arrays

    return read_golden


@pytest.fixture(scope="session")
def build_golden(recipe):
    """Build the backbone of a golden file, with the weights that its seed gives, in eval mode."""

    def build_golden(arrays):
        values = json.loads(str(arrays["config"]))
        values["last_layer_full_msa"] = values.pop("last_layer_full_MSA")
        del values["num_heads"]  # published, without effect
        backbone = Backbone(ModelConfig.from_dict(values))
        shapes = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
        weights = recipe.weights(shapes, int(arrays["weights_seed"]))
        if "weights_sha256" in arrays:
            assert recipe.digest(weights) == str(arrays["weights_sha256"])
        backbone.load_state_dict(
            {key: torch.from_numpy(value.astype(np.float32)) for key, value in weights.items()}
        )
        return backbone.eval()

    return build_golden


@pytest.fixture(scope="session")
def relative_error():
    """The largest difference between two tensors, as a share of the second one's largest value."""

    def relative_error(found, expected):
        expected = torch.as_tensor(expected)
        return ((found.detach() - expected).abs().max() / expected.abs().max()).item()

    return relative_error
