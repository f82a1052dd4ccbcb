"""Small datasets in fMRIPrep's form and small models with random weights, for the demo.

The brains are nilearn's bundled template with fluctuations added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.pretrained import Model, Provenance, save_model
from neurostorm_bids.synthetic import (
    Template,
    read_brain,
    write_confounds,
    write_dataset_description,
    write_image,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N_NETWORKS = 6

# Origins and orientations are those of fMRIPrep's outputs in these spaces.
TEMPLATES = (
    Template(
        space="MNI152NLin2009cAsym",
        affine=nib.affines.from_matvec(np.diag([4.0, 4.0, 4.0]), [-96, -132, -78]),
        shape=(49, 58, 49),
    ),
    Template(
        space="MNI152NLin6Asym",
        affine=nib.affines.from_matvec(np.diag([-4.0, 4.0, 4.0]), [90, -126, -72]),
        shape=(46, 55, 46),
    ),
)

COARSE = Template(
    space="MNI152NLin6Asym",
    affine=nib.affines.from_matvec(np.diag([-8.0, 8.0, 8.0]), [93, -127, -75]),
    shape=(23, 28, 23),
)

RUNS = (
    ("sub-01_task-rest", 2.0),
    ("sub-02_task-rest", 2.0),
    ("sub-03_ses-A_task-rest", 0.8),
    ("sub-03_ses-B_task-rest", 0.8),
)


def write_dataset(folder: Path, *, n_volumes: int = 40, seed: int = 0) -> None:
    """Write three participants' BOLD in two standard spaces, as fMRIPrep would.

    Parameters
    ----------
    folder : becomes the derivatives dataset.
    n_volumes : volumes per run.
    seed : of the fluctuations.
    """
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset_description(folder, name="Demonstration data")
    participants = pd.DataFrame(
        {
            "participant_id": ["sub-01", "sub-02", "sub-03"],
            "age": [24, 31, 58],
            "sex": ["F", "M", "F"],
        }
    )
    write_table(folder / "participants.tsv", participants)
    brains = [read_brain(template) for template in TEMPLATES]
    for name, repetition_time_s in RUNS:
        parts = name.split("_")
        func = folder.joinpath(*parts[:-1], "func")
        func.mkdir(parents=True, exist_ok=True)
        courses = _time_courses(n_volumes, repetition_time_s, generator=generator)
        for template, (anatomy, mask) in zip(TEMPLATES, brains, strict=True):
            stem = f"{name}_space-{template.space}_res-2"
            bold = _bold(anatomy, mask, courses, generator=generator)
            write_image(
                func / f"{stem}_desc-preproc_bold",
                bold,
                template,
                task="rest",
                repetition_time_s=repetition_time_s,
            )
            write_image(func / f"{stem}_desc-brain_mask", mask.astype(np.uint8), template)
        write_confounds(
            func / f"{name}_desc-confounds_timeseries", n_volumes=n_volumes, generator=generator
        )


def write_cohort(folder: Path, *, n_people: int, n_volumes: int = 60, seed: int = 0) -> Path:
    """Write people whose fluctuations grow with age, one run each at 8 mm, and an atlas.

    Parameters
    ----------
    folder : becomes the derivatives dataset.
    n_people : with labels 01, 02, ...
    n_volumes : volumes per run.
    seed : of ages and fluctuations.

    Returns
    -------
    Path
        The atlas: the slabs along Y that fluctuate together.
    """
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset_description(folder, name="Demonstration cohort")
    ages = generator.permutation(np.linspace(20, 80, n_people).round())
    labels = [f"sub-{number:02d}" for number in range(1, n_people + 1)]
    write_table(folder / "participants.tsv", pd.DataFrame({"participant_id": labels, "age": ages}))
    write_json(folder / "participants.json", {"age": {"Units": "years"}})
    anatomy, mask = read_brain(COARSE)
    for label, age in zip(labels, ages, strict=True):
        func = folder / label / "func"
        func.mkdir(parents=True, exist_ok=True)
        stem = f"{label}_task-rest_space-{COARSE.space}"
        courses = age / 50 * _time_courses(n_volumes, 2.0, generator=generator)
        write_image(
            func / f"{stem}_desc-preproc_bold",
            _bold(anatomy, mask, courses, generator=generator),
            COARSE,
            task="rest",
            repetition_time_s=2.0,
        )
        write_image(func / f"{stem}_desc-brain_mask", mask.astype(np.uint8), COARSE)
        write_confounds(
            func / f"{label}_task-rest_desc-confounds_timeseries",
            n_volumes=n_volumes,
            generator=generator,
        )
    return _write_atlas(folder, mask)


def write_models(folder: Path, *, seed: int = 0) -> list[Path]:
    """Write two small models with random weights, one for sex and one for age.

    Returns
    -------
    list of Path
        The two model folders.
    """
    sex = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
    age = TargetSpec(name="age", kind="regression", unit="years", mean=40.0, sd=15.0)
    config = _configure(48, patch_side=6, n_volumes=10)
    return [
        _write_model(folder / f"demo-{target.name}", config, head=head, target=target, seed=seed)
        for target, head in (
            (sex, HeadConfig(version="v1", n_outputs=1)),
            (age, HeadConfig(version="regression", n_outputs=1)),
        )
    ]


def write_encoder(folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny model with random weights and no head, to be taught something."""
    config = _configure(24, patch_side=3, n_volumes=8)
    return _write_model(folder / "demo-encoder", config, head=None, target=None, seed=seed)


def _write_atlas(folder: Path, mask: NDArray[np.bool_]) -> Path:
    """Write the slabs in the brain (X, Y, Z) and their names; return the image's path."""
    stem = folder / f"atlas_space-{COARSE.space}_dseg"
    regions = (_number_slabs(mask.shape[1]) + 1)[None, :, None] * mask
    write_image(stem, regions.astype(np.uint8), COARSE)
    numbers = range(1, N_NETWORKS + 1)
    names = pd.DataFrame({"index": numbers, "name": [f"slab{number}" for number in numbers]})
    write_table(stem.with_name(f"{stem.name}.tsv"), names)
    return stem.with_name(f"{stem.name}.nii.gz")


def _configure(side: int, *, patch_side: int, n_volumes: int) -> ModelConfig:
    """Return the sizes of a small network that reads a grid of `side` voxels per axis."""
    return ModelConfig(
        img_size=(side, side, side, n_volumes),
        in_chans=1,
        embed_dim=12,
        depths=(2, 2, 2, 2),
        window_size=(4, 4, 4, 4),
        first_window_size=(4, 4, 4, 4),
        patch_size=(patch_side, patch_side, patch_side, 1),
        last_layer_full_msa=True,
    )


def _write_model(
    folder: Path,
    config: ModelConfig,
    *,
    head: HeadConfig | None,
    target: TargetSpec | None,
    seed: int,
) -> Path:
    """Write a model with random weights, and return its folder."""
    torch.manual_seed(seed)
    backbone = Backbone(config)
    model = Model(
        config=config,
        head_config=head,
        backbone=backbone,
        head=None if head is None else build_head(head, config.n_features),
        grid=GridSpec.published(config.img_size[0]),
        target=target,
        provenance=Provenance(
            name=folder.name,
            source="neurostorm_bids.demo",
            sha256="",
            format="folder",
            notes=("Random weights: its predictions mean nothing.",),
        ),
    )
    save_model(model, folder, overwrite=True)
    return folder


def _time_courses(
    n_volumes: int, repetition_time_s: float, *, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return slow oscillations (networks, T), 0.01 to 0.1 Hz."""
    frequency_hz = generator.uniform(0.01, 0.1, size=(N_NETWORKS, 1))
    phase = generator.uniform(0, 2 * np.pi, size=(N_NETWORKS, 1))
    time_s = np.arange(n_volumes) * repetition_time_s
    courses: NDArray[np.float64] = np.sin(2 * np.pi * frequency_hz * time_s + phase)
    return courses


def _bold(
    anatomy: NDArray[np.float32],
    mask: NDArray[np.bool_],
    courses: NDArray[np.float64],
    *,
    generator: np.random.Generator,
) -> NDArray[np.int16]:
    """Return a series (X, Y, Z, T): anatomy, 2 % fluctuation in slabs along Y, 1 % noise."""
    slab = _number_slabs(anatomy.shape[1])
    fluctuation = 0.02 * courses[slab][None, :, None, :]  # (1, Y, 1, T)
    noise = 0.01 * generator.standard_normal((*anatomy.shape, courses.shape[1]), dtype=np.float32)
    bold = anatomy[..., None] * (1 + (fluctuation + noise) * mask[..., None])
    stored: NDArray[np.int16] = np.rint(bold).astype(np.int16)
    return stored


def _number_slabs(length: int) -> NDArray[np.int64]:
    """Return the network, from 0, of each of `length` voxels along Y."""
    slabs: NDArray[np.int64] = np.arange(length) * N_NETWORKS // length
    return slabs
