"""Each way to adapt a model learns what is there, and finds nothing where nothing is.

Half of the participants have a brain that is brighter on the right. A few updates can learn that; a
label that has nothing to do with it cannot be predicted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from neurostorm_bids.inputs.tables import list_table_roots
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.pretrained import Model, Provenance, load_model, save_model
from neurostorm_bids.synthetic import (
    Template,
    read_brain,
    write_dataset_description,
    write_image,
    write_table,
)
from neurostorm_bids.train import learning
from neurostorm_bids.train.examples import find_examples
from neurostorm_bids.train.finetune import discover
from neurostorm_bids.train.finetune_options import FinetuneOptions
from neurostorm_bids.train.learning import (
    evaluate_linear,
    learn_by_gradients,
    learn_linear,
    list_cases,
)
from neurostorm_bids.train.options import TrainOptions
from neurostorm_bids.train.predictor import FitOptions
from neurostorm_bids.train.presets import find_preset
from neurostorm_bids.train.rounds import Material, split
from neurostorm_bids.train.scans import prepare_scans

METHODS = ["linear", "prompt", "lora", "full"]
N_PEOPLE = 32
SHUFFLES = [f"shuffle{number}" for number in range(40)]
# Voxels coincide with those of the models' 24 x 24 x 24 grid, so that nothing is interpolated.
TEMPLATE = Template(
    space="MNI152NLin6Asym",
    affine=nib.affines.from_matvec(np.diag([-8.0, 8.0, 8.0]), [93, -127, -75]),
    shape=(24, 28, 24),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a folder with a run of one clip for each participant, and two columns of labels."""
    folder = tmp_path_factory.mktemp("bright")
    brain, rng = read_brain(TEMPLATE), np.random.default_rng(0)
    right = np.arange(TEMPLATE.shape[0])[:, None, None] < TEMPLATE.shape[0] // 2
    numbers, lots = rng.permutation(N_PEOPLE), np.random.default_rng(1)
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{number:02d}" for number in range(N_PEOPLE)],
            # Either label goes with each of the other as often.
            "side": np.where(numbers % 2, "even", "right"),
            "shuffled": np.where(numbers // 2 % 2, "one", "other"),
            **{name: np.where(lots.permutation(numbers) % 2, "one", "other") for name in SHUFFLES},
        }
    )
    write_dataset_description(folder, name="bright")
    write_table(folder / "participants.tsv", people)
    for label, side in zip(people["participant_id"], people["side"], strict=True):
        func = folder / label / "func"
        func.mkdir(parents=True)
        look = brain.anatomy * np.where(right & (side == "right"), 1.6, 1.0)
        noise = rng.normal(0, 30, (*TEMPLATE.shape, 8))
        bold = (look[..., None] + noise) * brain.mask[..., None]
        stem = f"{label}_task-rest_space-{TEMPLATE.space}_desc"
        write_image(
            func / f"{stem}-preproc_bold",
            bold.astype(np.int16),
            TEMPLATE,
            task="rest",
            repetition_time_s=0.8,
        )
        write_image(func / f"{stem}-brain_mask", brain.mask.astype(np.uint8), TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of an encoder of the tiny preset, with random weights."""
    torch.manual_seed(0)
    preset, folder = find_preset("tiny"), tmp_path_factory.mktemp("tiny") / "random"
    made = Model(
        config=preset.config,
        head_config=None,
        backbone=Backbone(preset.config),
        head=None,
        grid=preset.grid,
        target=None,
        provenance=Provenance(name="random", source="a test", sha256="", format="folder"),
    )
    save_model(made, folder)
    return folder


@pytest.fixture(scope="module")
def learn(dataset, model, tmp_path_factory):
    """Return a function that learns a column by a method; gives examples, split and predictions."""
    work = tmp_path_factory.mktemp("work")
    scans = {}

    def run(method, target, *, start=model, keeps=True, **changes):
        train = {
            "max_steps": 8,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "evaluate_every": 4,
            "accelerator": "cpu",
            "devices": 1,
            "workers": 1,
        } | changes
        options = FinetuneOptions(
            bids_dir=dataset,
            output_dir=work / "out",
            model=str(start),
            target=target,
            adapt=method,
            splits="held-out",
            held_out_share=0.5,
            prompt_len=4 if method == "prompt" else None,
            train=TrainOptions(**train),
        )
        loaded = replace(load_model(str(start)), calibration=None)
        if "usable" not in scans:
            found = discover(options).runs
            scans["usable"] = prepare_scans(
                found,
                loaded.grid,
                work / "store",
                clip_length=loaded.clip_length,
                n_workers=1,
                n_bits=8,
            ).usable
        roots = list_table_roots([dataset])
        usable = scans["usable"]
        examples = find_examples(options, usable, clip_length=loaded.clip_length, roots=roots)
        material = Material(
            model=loaded,
            examples=examples,
            cases=list_cases(options, examples, roots),
            roots=roots,
            sites=None,
            groups=None,
            connectivity=None,
            activity=None,
            nuisance=pd.DataFrame(),
        )
        splits = split(options, material)
        if method == "linear":
            given = (options, loaded, examples, material.cases, splits)
            found = (learn_linear if keeps else evaluate_linear)(*given, groups=None)
            return examples, splits, found
        given = (options, loaded, examples, splits)
        return examples, splits, learn_by_gradients(*given, roots=roots, groups=None)

    return run


def measure_auroc(examples, splits, evaluation):
    """Score the participants that were tested; none of them was learnt from."""
    (fold,) = splits.folds
    is_tested = np.isfinite(evaluation.outputs[:, 1])
    tested = {label for label, is_in in zip(examples.participants, is_tested, strict=True) if is_in}
    assert tested == set(fold.test)
    assert not tested & {*fold.train, *fold.validation}
    assert len(tested) == N_PEOPLE // 2
    return roc_auc_score(examples.truth[is_tested], evaluation.outputs[is_tested, 1])


@pytest.mark.parametrize("method", METHODS)
def test_each_method_predicts_what_is_there_for_participants_it_has_not_seen(learn, method):
    examples, splits, learnt = learn(method, "side")
    assert measure_auroc(examples, splits, learnt.evaluation) > 0.9


def test_shuffled_labels_are_at_chance_on_average(learn, monkeypatch):
    one_penalty = partial(FitOptions, penalties=(0.1,))  # choosing takes nine tenths of the time
    monkeypatch.setattr(learning, "FitOptions", one_penalty)
    areas = [measure_auroc(*learn("linear", name, keeps=False)) for name in SHUFFLES]
    # The deviation of one is 0.15 with 16 tested participants, that of the mean of 40 is 0.02.
    assert 0.4 < np.mean(areas) < 0.6


@pytest.mark.parametrize("method", METHODS[1:])
def test_each_method_is_at_chance_where_nothing_is(learn, method):
    # 16 tested participants: the deviation of a guess is 0.15.
    examples, splits, learnt = learn(method, "shuffled")
    assert 0.15 < measure_auroc(examples, splits, learnt.evaluation) < 0.85


def test_all_methods_run_from_a_published_checkpoint_and_count_their_parameters(learn, golden):
    start = golden / "official_sex.ckpt"
    config = load_model(str(start)).config
    dims = [
        config.embed_dim * config.c_multiplier**stage
        for stage, depth in enumerate(config.depths)
        for _ in range(depth)
    ]
    n_head = dims[-1] + 1
    backbone = Backbone(config)
    by_hand = {
        "linear": n_head,
        "prompt": n_head + 4 * sum(dims),
        "lora": n_head + sum(map(count_updates, dims)),
        "full": n_head + sum(weight.numel() for weight in backbone.parameters()),
    }
    for method, expected in by_hand.items():
        *_, learnt = learn(method, "side", start=start, max_steps=1, evaluate_every=1)
        assert learnt.parameters.trainable == expected, method
        assert learnt.model.target.classes == ("even", "right")


def test_fifty_prompts_of_the_published_sizes_are_82800_parameters():
    config = find_preset("base").config
    dims = [config.embed_dim * config.c_multiplier**stage for stage in range(config.n_stages)]
    n_prompts = sum(depth * dim for depth, dim in zip(config.depths, dims, strict=True))
    assert 50 * n_prompts == 50 * (2 * 36 + 2 * 72 + 6 * 144 + 2 * 288) == 82_800


def count_updates(dim, rank=8, d_state=16):
    """Count low-rank updates of one block: of the mixer's three projections, and of the MLP."""
    step_rank = -(-dim // 16)
    shapes = [
        (dim, 4 * dim),
        (2 * dim, step_rank + 2 * d_state),
        (2 * dim, dim),
        (dim, 4 * dim),
        (4 * dim, dim),
    ]
    return sum(min(rank, *shape) * sum(shape) for shape in shapes)
