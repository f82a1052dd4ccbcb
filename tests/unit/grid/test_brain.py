from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import DataError, MissingFileError
from neurostorm_bids.grid.brain import make_brain_mask, place_brain_mask, read_brain_mask
from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.grid.spec import GridSpec


def place(scan, spec, **changes):
    changed = scan._replace(**changes)
    return place_brain_mask(read_brain_mask(changed.brain_mask), open_volumes(changed.bold), spec)


def move(image: nib.Nifti1Image, shift_mm: tuple[float, ...]) -> nib.Nifti1Image:
    affine = np.array(image.affine)
    affine[:3, 3] += shift_mm
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def flip(image: nib.Nifti1Image, axis: int) -> nib.Nifti1Image:
    affine = np.array(image.affine)
    affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
    affine[:3, axis] *= -1
    return nib.Nifti1Image(np.flip(np.asarray(image.dataobj), axis), affine)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("inside", [1, 255])
def test_brain_is_where_the_mask_is_above_zero(scan, dtype, inside) -> None:
    brain = scan().brain_mask
    values = np.asarray(brain.dataobj)
    image = nib.Nifti1Image(values.astype(dtype) * dtype(inside), brain.affine)
    np.testing.assert_array_equal(read_brain_mask(image).inside, values > 0)


def test_nan_in_a_mask_is_background(scan) -> None:
    brain = scan().brain_mask
    values = np.asarray(brain.dataobj)
    holed = nib.Nifti1Image(np.where(values > 0, 1, np.nan), brain.affine)
    np.testing.assert_array_equal(read_brain_mask(holed).inside, values > 0)


def test_empty_mask_is_refused(scan) -> None:
    brain = scan().brain_mask
    with pytest.raises(DataError, match="the brain mask in memory is empty"):
        read_brain_mask(nib.Nifti1Image(np.zeros(brain.shape, np.uint8), brain.affine))


def test_mask_of_several_volumes_is_refused(scan) -> None:
    with pytest.raises(DataError, match="one volume in a brain mask; found 3"):
        read_brain_mask(scan().bold)


def test_missing_mask_is_named(tmp_path) -> None:
    with pytest.raises(MissingFileError, match=r"gone_mask\.nii\.gz"):
        read_brain_mask(tmp_path / "gone_mask.nii.gz")


def test_mask_of_ones_is_every_voxel_in_view_and_is_told(scan, spec) -> None:
    bold = scan().bold
    ones = nib.Nifti1Image(np.ones(spec.shape, np.uint8), spec.affine_matrix)
    mask = read_brain_mask(ones)
    assert "marks every voxel" in mask.warnings[0]
    assert place_brain_mask(mask, open_volumes(bold), spec).mask.all()


@pytest.mark.parametrize("size_mm", [4, 8, 2.5])
def test_mask_on_any_grid_gives_the_same_answer_flipped(scan, spec, size_mm) -> None:
    shape = tuple(int(n) for n in np.ceil(np.array([196, 232, 196]) / size_mm))
    run = scan(np.diag([size_mm, size_mm, size_mm, 1]), shape, n_volumes=1)
    # Of the grid's voxels, many lie half-way between two of a mask that begins here.
    tied = move(run.brain_mask, (-96 + size_mm / 2 + 93 + 0.0, 0, 0))
    expected = place(run, spec, brain_mask=tied).mask
    for axis in range(3):
        found = place(run, spec, brain_mask=flip(tied, axis)).mask
        np.testing.assert_array_equal(found, expected)


def test_positions_are_those_of_the_brain_in_the_run(scan, spec) -> None:
    run = scan()
    placed = place(run, spec)
    voxels = np.argwhere(placed.mask)
    in_world = voxels @ spec.affine_matrix[:3, :3].T + spec.affine_matrix[:3, 3]
    affine = np.array(run.bold.affine)
    np.testing.assert_allclose(placed.positions @ affine[:3, :3].T + affine[:3, 3], in_world)


def test_voxels_outside_the_run_leave_the_brain(scan, spec) -> None:
    run = scan()
    low = nib.Nifti1Image(np.asarray(run.bold.dataobj)[:, :, :32], run.bold.affine)
    whole, cut = place(run, spec), place(run, spec, bold=low)
    z_mm = spec.affine_matrix[2, 3] + 8 * np.arange(24)
    in_view = z_mm <= -78 + 4 * 31.5
    np.testing.assert_array_equal(cut.mask, whole.mask & in_view)
    assert 0.8 <= cut.coverage < 1


@pytest.mark.parametrize("shift_mm", [(0, 70, 0), (0, 0, -80), (500, 0, 0)])
def test_brain_outside_the_grid_is_refused(scan, spec, shift_mm) -> None:
    run = scan()
    moved = {name: move(getattr(run, name), shift_mm) for name in ("bold", "brain_mask")}
    with pytest.raises(DataError, match=r"Only \d+% of the brain lies in view.*100% in the image"):
        place(run, spec, **moved)


@pytest.mark.parametrize("shift_mm", [(0, 0, 90), (900, 0, 0)])
def test_mask_beside_the_run_is_refused(scan, spec, shift_mm) -> None:
    run = scan()
    with pytest.raises(DataError, match="that the mask belongs to it"):
        place(run, spec, bold=move(run.bold, shift_mm))


def test_mask_too_small_for_the_grid_to_meet_is_refused(scan, spec) -> None:
    run = scan()
    dot = np.zeros((3, 3, 3), np.uint8)
    dot[1, 1, 1] = 1
    affine = np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = 0.7
    with pytest.raises(DataError, match="No voxel of the model's grid"):
        place(run, spec, brain_mask=nib.Nifti1Image(dot, affine))


def test_mask_made_from_a_run_shows_its_brain_and_is_told(scan) -> None:
    run = scan()
    noise = np.random.default_rng(1).normal(10, 3, size=run.bold.shape)
    values = np.asarray(run.bold.dataobj) + np.abs(noise)
    made = make_brain_mask(open_volumes(nib.Nifti1Image(values, run.bold.affine)))
    given = np.asarray(run.brain_mask.dataobj) > 0
    assert 2 * (made.inside & given).sum() / (made.inside.sum() + given.sum()) > 0.85
    assert "No brain mask was given" in made.warnings[0]


@pytest.mark.parametrize("value", [0, 5, np.nan])
def test_no_mask_can_be_made_of_a_run_that_shows_no_brain(scan, value) -> None:
    run = scan(shape=(12, 12, 12))
    flat = nib.Nifti1Image(np.full(run.bold.shape, value, np.float32), run.bold.affine)
    with pytest.raises(DataError, match="Give the brain mask that belongs to it"):
        make_brain_mask(open_volumes(flat))


@pytest.mark.parametrize("bad", [(np.nan, np.nan), (np.inf, -np.inf), (1e300, 1e308)])
def test_mask_is_made_although_some_voxels_are_not_finite(scan, bad) -> None:
    run = scan()
    values = np.asarray(run.bold.dataobj, dtype=np.float64)
    expected = make_brain_mask(open_volumes(nib.Nifti1Image(values.copy(), np.eye(4))))
    values[0, 0, 0, :2] = bad
    found = make_brain_mask(open_volumes(nib.Nifti1Image(values, np.eye(4))))
    np.testing.assert_array_equal(found.inside, expected.inside)


def test_no_mask_can_be_made_of_a_run_whose_mean_was_removed() -> None:
    noise = np.random.default_rng(1).normal(size=(20, 20, 20, 9))
    residuals = nib.Nifti1Image(noise - noise.mean(axis=-1, keepdims=True), np.eye(4))
    with pytest.raises(DataError, match="Give the brain mask that belongs to it"):
        make_brain_mask(open_volumes(residuals))


def test_whole_brain_of_the_mni_template_lies_in_the_published_grid() -> None:
    datasets = pytest.importorskip("nilearn.datasets")
    template = datasets.load_mni152_brain_mask(resolution=2)
    brain = read_brain_mask(template)
    placed = place_brain_mask(brain, open_volumes(template), GridSpec.published())
    assert placed.coverage > 0.99
