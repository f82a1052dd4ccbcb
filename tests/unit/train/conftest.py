"""What the tests of training share: a tiny training, and what a pretraining may have come to."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.train.fit import FitResult
from neurostorm_bids.train.reconstruction import Baselines, Example
from neurostorm_bids.train.sampling import TrainingRun
from neurostorm_bids.train.summary import PretrainingSummary, ReconstructionSummary, RunNote

SCRIPT = Path(__file__).with_name("tiny_training.py")


@pytest.fixture(scope="session")
def tiny():
    """Return the module that holds a tiny training."""
    spec = importlib.util.spec_from_file_location("tiny_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_training"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_script():
    """Return the path of the tiny training as a script."""
    return SCRIPT


@pytest.fixture(scope="session")
def example():
    """Return a ball in a volume of the grid of 8 mm, half of it masked."""
    places = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")) - 11.5
    original = np.clip(10 - np.linalg.norm(places, axis=0), 0, None).astype(np.float32)
    masked = np.broadcast_to(places[1] > 0, original.shape)
    reconstructed = np.where(masked, original + 0.5, original).astype(np.float32)
    return Example(
        label="sub-03_task-rest",
        volume=2,
        n_volumes=8,
        original=original,
        masked=masked,
        reconstructed=reconstructed,
        error=reconstructed - original,
    )


@pytest.fixture(scope="session")
def make_summary(example):
    """Return a function that makes the summary of a pretraining, with fields changed."""

    def list_runs(participants):
        return [
            TrainingRun(
                dataset=dataset,
                participant=label,
                label=f"sub-{label}_task-rest",
                path=Path(label),
                n_volumes=100,
            )
            for label, dataset in participants
        ]

    result = FitResult(
        n_steps=40,
        n_planned=40,
        best_step=20,
        best_loss=0.3,
        training=tuple(
            {"step": step, "loss": 1 / step, "gradient_norm": 1.0, "learning_rate": 0.01}
            for step in range(1, 41)
        ),
        validation=(
            {"step": 0, "loss": 1.5},
            {"step": 20, "loss": 0.3},
            {"step": 40, "loss": 0.4},
        ),
        micro_batch_size=4,
    )
    regions = pd.DataFrame(
        {
            "index": [-1, 4, 7],
            "name": ["outside all regions", "Precuneus", "Lost"],
            "n_patches": [3, 12, 0],
            "error": [0.75, 0.25, np.nan],
            "variance": [0.0, 0.5, np.nan],
            "relative_error": [np.nan, 0.5, np.nan],
        }
    )
    survivors = pd.DataFrame(
        {
            "index": [4, 7],
            "name": ["Precuneus", "Lost"],
            "n_voxels_atlas": [500, 90],
            "n_voxels_grid": [90, 10],
            "n_patches": [6, 0],
            "n_voxels_patches": [60, 0],
        }
    )
    defaults = {
        "name": "tiny_mae",
        "preset": "tiny",
        "objective": "masked autoencoder",
        "config": ModelConfig(
            img_size=(24, 24, 24, 8),
            embed_dim=12,
            depths=(2, 1),
            window_size=(4, 4, 4, 4),
            first_window_size=(4, 4, 4, 4),
            patch_size=(3, 3, 3, 1),
            last_layer_full_msa=True,
        ),
        "grid": GridSpec.published(24),
        "n_parameters": {"encoder": 451_464},
        "result": result,
        "training_runs": list_runs([("01", "one"), ("01", "two"), ("02", "one")]),
        "validation_runs": list_runs([("03", "one"), ("04", "one")]),
        "left_out": [RunNote(f"sub-9{i}_task-rest", "Another space was chosen.") for i in range(9)],
        "failed": [RunNote("sub-05_task-rest", "There is no repetition time.")],
        "reconstruction": ReconstructionSummary(
            baselines=Baselines(patch_mean=1.25, voxel_mean=0.6),
            example=example,
            atlas="AAL3",
            regions=regions,
            survivors=survivors,
        ),
        "options": {"preset": "tiny", "train": {"seed": 3, "clip_norm": None}},
        "facts": {"Device": "CPU"},
        "warnings": ["The atlas is in another space."],
    }
    return lambda **changes: PretrainingSummary(**{**defaults, **changes})
