"""Our series against the one the published preparation made of the same volumes.

The numbers are cut-outs of what the published code computed on synthetic volumes: after its
interpolation in space (``spatial_sub``), after that in time (``temporal_sub``), and at its end, as
8-bit frames with one scale (``frames_sub``, time first). It never reads an affine; the affines here
describe the field of view that it takes each grid to have.
"""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, NamedTuple

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.grid.resample import interpolate_in_time
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec

if TYPE_CHECKING:
    from pathlib import Path

    from neurostorm_bids.grid.series import Series

CASES = [
    "hcp2mm_91x109x91_TR0.72_f32",
    "mni2mm_97x115x97_TR2_f32",
    "mni3mm_65x77x65_TR1.5_i16",
    "tiny_2.4mm_TR0.72_slope0.5",
    "tiny_2mm_TR0.8_identity_nii",
    "tiny_3x3x3.5_TR1.5",
]
LAS_2MM = np.array([[-2, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1.0]])
RAS_2MM = np.array([[2, 0, 0, -96], [0, 2, 0, -132], [0, 0, 2, -78], [0, 0, 0, 1.0]])


class Case(NamedTuple):
    """One synthetic run, and what the published preparation made of it."""

    image: nib.Nifti1Image
    repetition_time_s: float
    published: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=CASES)
def case(request, golden: Path) -> Case:
    return read_case(request.param, golden)


def read_case(name: str, golden: Path, affine: np.ndarray | None = None) -> Case:
    module_spec = importlib.util.spec_from_file_location("synth", golden / "synth_volume.py")
    synth = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(synth)
    with np.load(golden / f"preproc_{name}.npz") as file:
        published = dict(file)
    run = json.loads(str(published["spec"]))
    stored = synth.volume(run["shape"], run["nt"], run["seed"])
    values = stored * np.float32(1 / 8 if run["dtype"] == "float32" else run["slope"])
    image = nib.Nifti1Image(values, np.diag([*run["zooms"], 1.0]) if affine is None else affine)
    image.header.set_zooms((*run["zooms"], run["tr"]))
    return Case(image, run["tr"], published)


def cover(affine: np.ndarray, shape: tuple[int, ...], n_voxels: tuple[int, ...]) -> np.ndarray:
    """Return the affine of another number of voxels in the same field of view."""
    scale = np.array(shape) / n_voxels
    covering = affine @ np.diag([*scale, 1.0])
    covering[:3, 3] = affine[:3] @ [*(scale / 2 - 0.5), 1.0]
    return covering


def make_spec(affine: np.ndarray, shape: np.ndarray) -> GridSpec:
    rows = tuple(map(tuple, affine.tolist()))
    return GridSpec(space="MNI152NLin6Asym", shape=tuple(shape), affine=rows, repetition_time_s=0.8)


def grid_everything(case: Case, spec: GridSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return all voxels, (X, Y, Z, T): at the source repetition time, and on the model's clock."""
    mask = nib.Nifti1Image(np.ones(spec.shape, np.uint8), spec.affine_matrix)
    series = grid_run(case.image, spec, repetition_time_s=case.repetition_time_s, brain_mask=mask)
    in_space = np.zeros((*spec.shape, len(series.frames)))
    in_space[series.brain_mask] = series.frames.T
    in_time = np.zeros((*spec.shape, series.n_volumes))
    in_time[series.brain_mask] = interpolate_in_time(
        series.frames, series.clock, range(series.n_volumes)
    ).T
    return in_space, in_time


def thin_out(values: np.ndarray, strides: np.ndarray) -> np.ndarray:
    return values[tuple(slice(None, None, stride) for stride in strides)]


def grid_as_published(case: Case, spec: GridSpec) -> Series:
    """Grid with negative values set to 0 and, as brain, what is not zero on the grid."""
    everything, _ = grid_everything(case, spec)
    brain = (everything != 0).any(axis=-1).astype(np.uint8)
    return grid_run(
        case.image,
        spec,
        repetition_time_s=case.repetition_time_s,
        brain_mask=nib.Nifti1Image(brain, spec.affine_matrix),
        clip_negatives=True,
    )


def check_statistics(series: Series, published: dict[str, np.ndarray]) -> None:
    found = series.statistics
    assert found.mean == pytest.approx(published["fg_mean_f64"], rel=1e-5)
    assert found.sd == pytest.approx(published["fg_std_f64"], rel=1e-5)
    assert found.background == pytest.approx(published["z_min"], rel=1e-4)


def check_frames(series: np.ndarray, published: dict[str, np.ndarray]) -> None:
    """Compare a series (X, Y, Z, T) with 8-bit frames (T, X, Y, Z), to half a level and a bit."""
    found = thin_out(np.moveaxis(series, -1, 0), published["frames_strides"])
    scale = float(published["scale"])
    expected = published["frames_sub"] * scale
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=0.501 * scale, rtol=0)
    assert series.max() == pytest.approx(published["z_max"], rel=1e-4)


def test_interpolation_in_space_and_time_equals_the_published_one(case: Case) -> None:
    shape = case.published["shape_spatial"][:3]
    spec = make_spec(cover(case.image.affine, case.image.shape[:3], shape), shape)
    in_space, in_time = grid_everything(case, spec)
    for values, name in ((in_space, "spatial"), (in_time, "temporal")):
        expected = case.published[f"{name}_sub"]
        found = thin_out(values, case.published[f"{name}_strides"])
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_series_in_the_published_field_of_view_equals_the_published_frames(case: Case) -> None:
    full, cropped = (case.published[f"shape_{name}"][:3] for name in ("spatial", "crop"))
    affine = cover(case.image.affine, case.image.shape[:3], full)
    affine[:3, 3] = affine[:3] @ [*((full - cropped) // 2), 1]
    series = grid_as_published(case, make_spec(affine, cropped))
    check_statistics(series, case.published)
    check_frames(series.read_all(), case.published)


def test_hcp_run_on_the_model_grid_equals_the_published_series(golden: Path) -> None:
    case = read_case(CASES[0], golden, LAS_2MM)
    series = grid_as_published(case, GridSpec.published())
    check_statistics(series, case.published)
    values = series.read_all()
    check_frames(values[3:-2, :, 3:-2], case.published)
    uncropped = np.pad(values[3:-2, :, 3:-2], ((0, 0), (6, 7), (0, 0), (0, 0)))
    check_before_eight_bits(uncropped, series, case.published)


def test_fmriprep_run_on_the_model_grid_equals_the_published_series_flipped(golden: Path) -> None:
    case = read_case(CASES[1], golden, RAS_2MM)
    series = grid_as_published(case, GridSpec.published())
    check_statistics(series, case.published)
    # The published array starts one voxel further to the left; the last one stands in for it here,
    # and both are background.
    values = np.roll(series.read_all()[::-1], 1, axis=0)
    check_frames(values, case.published)
    uncropped = np.pad(values, ((0, 1), (9, 10), (0, 1), (0, 0)))
    check_before_eight_bits(uncropped, series, case.published)


def check_before_eight_bits(
    values: np.ndarray, series: Series, published: dict[str, np.ndarray]
) -> None:
    """Compare z-scores in the brain, where published and not cropped, to 1e-4 of their range."""
    in_time = published["temporal_sub"].astype(np.float64)
    z = (np.maximum(in_time, 0) - published["fg_mean_f64"]) / published["fg_std_f64"]
    found = thin_out(values, published["temporal_strides"])
    compared = (in_time != 0) & (found != 0)
    assert compared.sum() > 0.9 * (in_time != 0).sum()
    assert np.abs(found - z)[compared].max() < 1e-4 * np.abs(z).max()
    assert series.n_volumes == values.shape[-1]
