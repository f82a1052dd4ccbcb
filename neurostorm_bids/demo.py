"""A small dataset in fMRIPrep's form and two small models, made on the spot, and one run over them.

``python -m neurostorm_bids.demo FOLDER`` is what ``make demo`` calls. The brains are nilearn's
bundled template with fluctuations added, and the weights of the models are random: the demo shows
what goes in and what comes out, not what the numbers mean.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from nilearn.image import resample_img

from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.pretrained import Model, Provenance, save_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_NETWORKS = 6


@dataclass(frozen=True, kw_only=True)
class Template:
    """The brain on the grid of one output space of fMRIPrep, at 4 mm."""

    space: str
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]


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
    _write_json(
        folder / "dataset_description.json",
        {
            "Name": "Demonstration data in fMRIPrep's form (not output of fMRIPrep)",
            "BIDSVersion": "1.10.1",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}],
            "License": "CC0",
        },
    )
    participants = pd.DataFrame(
        {
            "participant_id": ["sub-01", "sub-02", "sub-03"],
            "age": [24, 31, 58],
            "sex": ["F", "M", "F"],
        }
    )
    participants.to_csv(folder / "participants.tsv", sep="\t", index=False)
    brains = [_brain(template) for template in TEMPLATES]
    for name, repetition_time_s in RUNS:
        parts = name.split("_")
        func = folder.joinpath(*parts[:-1], "func")
        func.mkdir(parents=True, exist_ok=True)
        courses = _time_courses(n_volumes, repetition_time_s, generator=generator)
        for template, (anatomy, mask) in zip(TEMPLATES, brains, strict=True):
            stem = func / f"{name}_space-{template.space}_res-2"
            bold = _bold(anatomy, mask, courses, generator=generator)
            _write_image(f"{stem}_desc-preproc_bold", bold, template, repetition_time_s)
            _write_image(f"{stem}_desc-brain_mask", mask.astype(np.uint8), template)
        _write_confounds(func / f"{name}_desc-confounds_timeseries", n_volumes, generator)


def write_models(folder: Path, *, seed: int = 0) -> list[Path]:
    """Write two small models with random weights, one for sex and one for age.

    Returns
    -------
    list of Path
        The two model folders.
    """
    config = ModelConfig(
        img_size=(48, 48, 48, 10),
        in_chans=1,
        embed_dim=12,
        depths=(2, 2, 2, 2),
        window_size=(4, 4, 4, 4),
        first_window_size=(4, 4, 4, 4),
        patch_size=(6, 6, 6, 1),
        last_layer_full_msa=True,
    )
    sex = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
    age = TargetSpec(name="age", kind="regression", unit="years", mean=40.0, sd=15.0)
    folders = []
    for target, head in (
        (sex, HeadConfig(version="v1", n_outputs=1)),
        (age, HeadConfig(version="regression", n_outputs=1)),
    ):
        torch.manual_seed(seed)
        backbone = Backbone(config)
        model = Model(
            config=config,
            head_config=head,
            backbone=backbone,
            head=build_head(head, config.n_features),
            grid=GridSpec.published(48),
            target=target,
            provenance=Provenance(
                name=f"demo-{target.name}",
                source="neurostorm_bids.demo",
                sha256="",
                format="folder",
                notes=("Random weights: its predictions mean nothing.",),
            ),
        )
        save_model(model, folder / f"demo-{target.name}", overwrite=True)
        folders.append(folder / f"demo-{target.name}")
    return folders


def _brain(template: Template) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return intensities (X, Y, Z) and brain mask (X, Y, Z) of nilearn's template on a grid."""
    grid = {"target_affine": template.affine, "target_shape": template.shape, "copy_header": True}
    anatomy = resample_img(load_mni152_template(resolution=2), force_resample=True, **grid)
    mask = resample_img(
        load_mni152_brain_mask(resolution=2), interpolation="nearest", force_resample=True, **grid
    )
    intensities = np.asarray(anatomy.dataobj, dtype=np.float32)
    return 1000 * intensities / intensities.max(), np.asarray(mask.dataobj) > 0


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
    slab = np.arange(anatomy.shape[1]) * N_NETWORKS // anatomy.shape[1]
    fluctuation = 0.02 * courses[slab][None, :, None, :]  # (1, Y, 1, T)
    noise = 0.01 * generator.standard_normal((*anatomy.shape, courses.shape[1]), dtype=np.float32)
    bold = anatomy[..., None] * (1 + (fluctuation + noise) * mask[..., None])
    stored: NDArray[np.int16] = np.rint(bold).astype(np.int16)
    return stored


def _write_image(
    stem: str,
    values: NDArray[np.int16] | NDArray[np.uint8],
    template: Template,
    repetition_time_s: float | None = None,
) -> None:
    """Write ``<stem>.nii.gz`` and its sidecar."""
    image = nib.Nifti1Image(values, template.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(template.affine, code="mni")
    image.set_qform(template.affine, code="mni")
    sidecar: dict[str, object] = {"Type": "Brain", "Resolution": "4 mm"}
    if repetition_time_s is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], repetition_time_s))
        sidecar = {
            "RepetitionTime": repetition_time_s,
            "SkullStripped": False,
            "TaskName": "rest",
            "Resolution": "4 mm",
        }
    nib.save(image, f"{stem}.nii.gz")
    _write_json(Path(f"{stem}.json"), sidecar)


def _write_confounds(stem: Path, n_volumes: int, generator: np.random.Generator) -> None:
    """Write a confounds table of head motion, with fMRIPrep's column names."""
    axes = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    motion = np.cumsum(generator.normal(scale=0.005, size=(n_volumes, len(axes))), axis=0)
    table = pd.DataFrame(motion, columns=list(axes))
    table["framewise_displacement"] = table.diff().abs().sum(axis=1, min_count=1)
    table.to_csv(f"{stem}.tsv", sep="\t", index=False, na_rep="n/a")
    _write_json(Path(f"{stem}.json"), {"framewise_displacement": {"Units": "mm"}})


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def run(folder: Path) -> int:
    """Make the data and the models below `folder`, run the participant level, say what lies where.

    Returns
    -------
    int
        Exit status of the command.
    """
    click.echo(f"Making three participants and two small models below {folder} ...")
    write_dataset(folder / "fmriprep")
    models = [str(path) for path in write_models(folder / "models")]
    call = [str(folder / "fmriprep"), str(folder / "neurostorm"), "participant", "--model", *models]
    click.echo("neurostorm " + " ".join(call))
    status = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "neurostorm_bids", *call], check=False
    ).returncode
    if status == 0:
        _describe(folder / "neurostorm")
    return status


def _describe(output_dir: Path) -> None:
    """Print what the output folder holds, with one table of each kind."""
    click.echo(f"\nResults: {output_dir}  (a BIDS derivatives dataset; start with its README.md)")
    kinds = (
        ("desc-scan*_embedding.tsv", "one row per run: the embedding"),
        ("desc-clip*_embedding.tsv", "one row per clip of 8 s: onset, duration, the embedding"),
        ("desc-*_predictions.tsv", "clips and the whole run: class or value, and its spread"),
    )
    for pattern, meaning in kinds:
        paths = sorted(output_dir.rglob(f"sub-*_{pattern}"))
        click.echo(f"\n{len(paths)} x {pattern}: {meaning}")
        table = pd.read_csv(paths[0], sep="\t")
        click.echo(f"{paths[0].relative_to(output_dir)}, {table.shape[0]} x {table.shape[1]}:")
        click.echo(table.iloc[:, :6].tail(3).to_string(index=False))
    click.echo("\nThe weights are random: these numbers show the form of the results, no more.")


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")))
