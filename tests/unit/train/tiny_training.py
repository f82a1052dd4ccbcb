"""A training of a second: fake runs, a model of some hundred weights; also a script of its own.

As a script: ``python tiny_training.py FOLDER JSON``, where JSON holds changed options and

- ``end``: a signal, the call of the objective at which a process sends it to itself, and the rank;
- ``crowded``: the rank of a process whose device has room for one sample at once;
- ``joint``: true for the joint training of real, but small, networks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neurostorm_bids.errors import UserError
from neurostorm_bids.model.augment import AugmentConfig
from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.train.clips import ClipDataset
from neurostorm_bids.train.devices import gather_rows, start_fabric
from neurostorm_bids.train.fit import fit
from neurostorm_bids.train.networks import JointNetwork
from neurostorm_bids.train.objectives import Contrasting, MaskedReconstruction, WeightedSum
from neurostorm_bids.train.options import TrainOptions
from neurostorm_bids.train.sampling import Purpose, SampleOrder, TrainingRun
from neurostorm_bids.train.step import Loss

CLIP_LENGTH = 5
SHAPE = (4, 4, 4)
CONFIG = ModelConfig(
    img_size=(*SHAPE, CLIP_LENGTH),
    embed_dim=4,
    depths=(1, 1),
    window_size=(2, 2, 2, 2),
    first_window_size=(2, 2, 2, 2),
    patch_size=(2, 2, 2, 1),
    last_layer_full_msa=True,
    d_state=2,
)
SCHEME = MaskScheme(space="random", time="random")
AUGMENT = AugmentConfig(noise_probability=1.0)


class FakeRun:
    """Noise around a pattern, both given by the run's name."""

    def __init__(self, path):
        self.seed = int(path.name)

    def read_clip(self, start, length):
        rng = np.random.default_rng(self.seed)
        pattern = rng.normal(size=(*SHAPE, 1))
        noise = np.random.default_rng([self.seed, 1]).normal(size=(*SHAPE, 100))
        return (pattern + 0.3 * noise[..., start : start + length]).astype(np.float32)


class TinyModel(nn.Module):
    """A linear map there and back; `unused` stands for weights that a loss does not reach."""

    def __init__(self, dropout=0.0):
        super().__init__()
        n_voxels = int(np.prod(SHAPE))
        self.encode = nn.Linear(n_voxels, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.decode = nn.Linear(8, n_voxels)
        self.unused = nn.Linear(3, 3)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, clips):
        tokens = clips[:, 0].flatten(1, 3).transpose(1, 2)  # (B, T, voxels)
        out = self.decode(self.dropout(self.norm(self.encode(tokens))))
        return out.transpose(1, 2).reshape(clips.shape)


class Reconstruct:
    """Guess the voxels that each sample's own generator hides."""

    min_samples = 1

    def __call__(self, model, batch):
        clips = batch.clips[0]
        hidden = torch.stack(
            [
                torch.rand(clips.shape[1:], generator=sample.make_generator(Purpose.MASK)) < 0.5
                for sample in batch.samples
            ]
        ).to(clips.device)
        error = (model(clips * ~hidden) - clips).square() * hidden
        per_clip = error.flatten(1).sum(1) / hidden.flatten(1).sum(1)
        return Loss(per_clip.mean(), {"largest": per_clip.detach().mean() + 1})


class Meddle:
    """Do something at the n-th call of an objective."""

    def __init__(self, objective, at, action):
        self.objective, self.min_samples = objective, objective.min_samples
        self.n_calls, self.at, self.action = 0, at, action

    def __call__(self, model, batch):
        self.n_calls += 1
        loss = self.objective(model, batch)
        return self.action(loss) if self.n_calls == self.at else loss


def make_runs(participants, n_volumes=40):
    return [
        TrainingRun(
            dataset="ds",
            participant=str(number),
            label=f"sub-{number}_task-rest",
            path=Path(str(number)),
            n_volumes=n_volumes,
        )
        for number in participants
    ]


def make_dataset(runs, *, clips_per_sample=1, seed=0):
    order = SampleOrder(runs, clip_length=CLIP_LENGTH, clips_per_sample=clips_per_sample, seed=seed)
    return ClipDataset(order, clip_length=CLIP_LENGTH, open_run=FakeRun)


def make_options(**changes):
    defaults = {
        "max_steps": 12,
        "batch_size": 4,
        "learning_rate": 0.01,
        "seed": 7,
        "evaluate_every": 5,
        "evaluation_clips": 8,
        "checkpoint_every": 4,
        "accelerator": "cpu",
        "devices": 1,
        "workers": 1,
    }
    return TrainOptions(**{**defaults, **changes})


def train_jointly(folder, **changes):
    """Train a small masked autoencoder that also tells participants and clips apart."""
    options = make_options(**changes)
    fabric = start_fabric(options)
    gather = partial(gather_rows, fabric)
    model = JointNetwork(MaskedAutoencoder(CONFIG, scheme=SCHEME), gather=gather)
    mae = MaskedReconstruction(CONFIG, scheme=SCHEME, ratio=0.5, augment=AUGMENT)
    contrastive = Contrasting(augment=AUGMENT, gather=gather)
    result = fit(
        fabric,
        model,
        WeightedSum({"mae": (1.0, mae), "contrastive": (0.5, contrastive)}),
        train=make_dataset(make_runs(range(1, 5)), clips_per_sample=2),
        validation=make_dataset(make_runs([5, 6]), clips_per_sample=2),
        options=options,
        folder=folder,
    )
    return result, model


def train(folder, *, objective=None, dropout=0.0, model=None, runs=None, **changes):
    """Train, and return the result and the model."""
    options = make_options(**changes)
    fabric = start_fabric(options)
    model = TinyModel(dropout) if model is None else model
    result = fit(
        fabric,
        model,
        Reconstruct() if objective is None else objective,
        train=make_dataset(make_runs(range(1, 5)) if runs is None else runs),
        validation=make_dataset(make_runs([5, 6])),
        options=options,
        folder=folder,
    )
    return result, model


class Crowded(nn.Module):
    """A model on a device that has room for so many samples, from the fourth forward pass on."""

    def __init__(self, model, room):
        super().__init__()
        self.model, self.room, self.n_calls = model, room, 0

    def forward(self, clips):
        self.n_calls += 1
        if self.n_calls > 3 and len(clips) > self.room:
            raise torch.OutOfMemoryError("simulated")
        return self.model(clips)


def main(folder, end=(), *, crowded=None, joint=False, **changes):
    if joint:
        train_jointly(folder, **changes)
        return
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    objective = Reconstruct()
    if end and end[2] == rank:

        def send(loss):
            os.kill(os.getpid(), getattr(signal, end[0]))
            return loss

        objective = Meddle(objective, end[1], send)
    torch.manual_seed(make_options(**changes).seed)  # as the training does
    model = Crowded(TinyModel(), room=1 if crowded == rank else 100)
    try:
        result, _ = train(folder, objective=objective, model=model, **changes)
    except UserError as err:
        sys.exit(err.exit_status)
    torch.save(model.model.state_dict(), folder / f"final{rank}.pt")
    (folder / f"micro_batch_size{rank}").write_text(str(result.micro_batch_size))


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
