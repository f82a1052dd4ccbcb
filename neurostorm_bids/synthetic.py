"""Made-up brains, images and tables in fMRIPrep's form, for the demo and for synthetic cohorts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from nilearn.image import resample_img

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Template:
    """The grid of an output space.

    Attributes
    ----------
    space : TemplateFlow name of the standard space.
    affine : voxel indices to world millimetres, (4, 4).
    shape : voxels along X, Y, Z.
    """

    space: str
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]


class Brain(NamedTuple):
    """A brain on a grid: intensities from 0 to 1000 and the brain mask, both (X, Y, Z)."""

    anatomy: NDArray[np.float32]
    mask: NDArray[np.bool_]


def read_brain(template: Template) -> Brain:
    """Return nilearn's bundled brain on a grid."""
    grid = {"target_affine": template.affine, "target_shape": template.shape, "copy_header": True}
    anatomy = resample_img(load_mni152_template(resolution=2), force_resample=True, **grid)
    mask = resample_img(
        load_mni152_brain_mask(resolution=2), interpolation="nearest", force_resample=True, **grid
    )
    intensities = np.asarray(anatomy.dataobj, dtype=np.float32)
    return Brain(1000 * intensities / intensities.max(), np.asarray(mask.dataobj) > 0)


def write_image(
    stem: Path,
    values: NDArray[np.int16] | NDArray[np.uint8],
    template: Template,
    *,
    task: str | None = None,
    repetition_time_s: float | None = None,
) -> None:
    """Write ``<stem>.nii.gz`` and its sidecar.

    Parameters
    ----------
    stem : the path without its extension.
    values : (X, Y, Z, T) for BOLD, (X, Y, Z) for a mask.
    template : the grid.
    task, repetition_time_s : of BOLD; None for a mask.
    """
    image = nib.Nifti1Image(values, template.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(template.affine, code="mni")
    image.set_qform(template.affine, code="mni")
    side_mm = image.header.get_zooms()[:3]
    sidecar: dict[str, object] = {"Resolution": f"{side_mm[0]:g} mm"}
    if repetition_time_s is None:
        sidecar["Type"] = "Brain"
    else:
        image.header.set_zooms((*side_mm, repetition_time_s))
        sidecar |= {
            "RepetitionTime": repetition_time_s,
            "SkullStripped": False,
            "TaskName": task,
        }
    nib.save(image, stem.with_name(f"{stem.name}.nii.gz"))
    write_json(stem.with_name(f"{stem.name}.json"), sidecar)


def write_confounds(
    stem: Path, *, n_volumes: int, generator: np.random.Generator, step_mm: float = 0.005
) -> None:
    """Write a confounds table of head motion, with fMRIPrep's column names, and its sidecar.

    Parameters
    ----------
    stem : the path without its extension.
    n_volumes : rows.
    generator : of the motion.
    step_mm : deviation of each motion parameter's step from one volume to the next.
    """
    axes = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    motion = np.cumsum(generator.normal(scale=step_mm, size=(n_volumes, len(axes))), axis=0)
    table = pd.DataFrame(motion, columns=list(axes))
    table["framewise_displacement"] = table.diff().abs().sum(axis=1, min_count=1)
    write_table(stem.with_name(f"{stem.name}.tsv"), table)
    write_json(stem.with_name(f"{stem.name}.json"), {"framewise_displacement": {"Units": "mm"}})


def write_dataset_description(folder: Path, *, name: str) -> None:
    """Write the description of a derivatives dataset that says it is none of fMRIPrep's."""
    write_json(
        folder / "dataset_description.json",
        {
            "Name": f"{name} in fMRIPrep's form (not output of fMRIPrep)",
            "BIDSVersion": "1.10.1",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}],
            "License": "CC0",
        },
    )


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as BIDS wants it: tabs between columns, and ``n/a`` for what is missing."""
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write named values as JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
