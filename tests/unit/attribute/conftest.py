"""A small network that was taught one region, and runs that show it or do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from neurostorm_bids.connectivity import Parcellation
from neurostorm_bids.grid.atlas import Atlas
from neurostorm_bids.grid.normalise import Statistics
from neurostorm_bids.grid.resample import find_clock
from neurostorm_bids.grid.series import Series
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.pretrained import Model, Provenance

SIDE, LENGTH = 16, 4
PLANTED = 60  # the atlas's number of the region that the network was taught
BACKGROUND = -3.0
CONFIG = ModelConfig(
    img_size=(SIDE, SIDE, SIDE, LENGTH),
    embed_dim=6,
    depths=(1, 1),
    window_size=(2, 2, 2, 2),
    first_window_size=(2, 2, 2, 2),
    patch_size=(4, 4, 4, 1),
    last_layer_full_msa=True,
    d_state=4,
)
GRID = GridSpec.published(SIDE)
SEX = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
AGE = TargetSpec(name="age", kind="regression", unit="years", mean=40.0, sd=10.0)


def make_brain() -> np.ndarray:
    brain = np.zeros(GRID.shape, dtype=bool)
    brain[2:14, 2:14, 2:14] = True
    return brain


def make_labels() -> np.ndarray:
    """Number the brain's octants 10, 20 ... 80, but leave a slice of it outside all regions."""
    halves = np.indices(GRID.shape) // 8
    labels = 10 * (1 + 4 * halves[0] + 2 * halves[1] + halves[2])
    labels[:, :, 12:] = 0
    return np.where(make_brain(), labels, 0).astype(np.int32)


def make_parcellation(labels=None, affine=None) -> Parcellation:
    labels = make_labels() if labels is None else labels
    names = {int(number): f"octant{number // 10}" for number in np.unique(labels[labels > 0])}
    names[90] = "nowhere"
    atlas = Atlas(
        name="octants",
        path=Path("octants.nii.gz"),
        labels=labels,
        affine=GRID.affine_matrix if affine is None else affine,
        names=names,
    )
    return Parcellation(
        name=atlas.name,
        names=tuple(names[number] for number in sorted(names)),
        atlas=atlas,
        centres_mm=np.empty((0, 3)),
        radii_mm=np.empty(0),
    )


def make_volumes(n_volumes, *, has_effect, generator) -> torch.Tensor:
    """Return noise in the brain (X, Y, Z, T), in the planted region around 1.5 or around 0."""
    volumes = torch.randn(*GRID.shape, n_volumes, generator=generator)
    volumes[torch.from_numpy(make_labels() == PLANTED)] += 1.5 * has_effect
    volumes[~torch.from_numpy(make_brain())] = BACKGROUND
    return volumes


def make_series(*, has_effect=True, n_volumes=10, seed=0, brain=None) -> Series:
    generator = torch.Generator().manual_seed(seed)
    volumes = make_volumes(n_volumes, has_effect=has_effect, generator=generator).numpy()
    brain = make_brain() if brain is None else brain
    return Series(
        spec=GRID,
        brain_mask=brain,
        frames=np.ascontiguousarray(volumes[brain].T),
        clock=find_clock(n_volumes, source_repetition_time_s=0.8, repetition_time_s=0.8),
        statistics=Statistics(mean=0.0, sd=1.0, minimum=BACKGROUND, n_values=1000),
        source_affine=GRID.affine_matrix,
        source_repetition_time_s=0.8,
        brain_coverage=1.0,
        steps=(),
        warnings=(),
    )


def make_model(target=SEX, *, seed=0) -> Model:
    torch.manual_seed(seed)
    version = "v1" if target is not None and target.kind == "classification" else "regression"
    n_outputs = 1 if target is None or target.n_outputs == 2 else target.n_outputs
    head = None if target is None else HeadConfig(version=version, n_outputs=n_outputs)
    return Model(
        config=CONFIG,
        head_config=head,
        backbone=Backbone(CONFIG).eval(),
        head=None if head is None else build_head(head, CONFIG.n_features).eval(),
        grid=GRID,
        target=target,
        provenance=Provenance(name="tiny", source="tiny", sha256="ab", format="folder"),
    )


@pytest.fixture(scope="session")
def taught() -> Model:
    """Teach a tiny network which of two kinds of runs has the planted effect."""
    model = make_model(seed=3)
    generator = torch.Generator().manual_seed(4)
    weights = [*model.backbone.parameters(), *model.head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-2)
    for _ in range(25):
        labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
        clips = torch.stack(
            [make_volumes(LENGTH, has_effect=bool(x), generator=generator) for x in labels]
        )[:, None]
        logits = model.head(model.backbone(clips))[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3, "the network did not learn what was planted"
    return model


@pytest.fixture
def planted() -> SimpleNamespace:
    """Return the makers of runs, regions and models, for tests to vary."""
    return SimpleNamespace(
        series=make_series,
        parcellation=make_parcellation,
        labels=make_labels,
        brain=make_brain,
        model=make_model,
        region=PLANTED,
        grid=GRID,
        sex=SEX,
        age=AGE,
    )
