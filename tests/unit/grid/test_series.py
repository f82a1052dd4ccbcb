"""A run on the grid: where things land, and what becomes of runs that are not as they should be."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.grid.series import Series, grid_run
from neurostorm_bids.grid.spec import GridSpec

COINCIDING = np.array([[8.0, 0, 0, -91], [0, 8, 0, -127], [0, 0, 8, -75], [0, 0, 0, 1]])
APART = np.array([[7.0, 0, 0, -91], [0, 9, 0, -130], [0, 0, 6, -75], [0, 0, 0, 1]])
SHAPE = (25, 29, 27)


def grid(scan, spec: GridSpec, **changes) -> Series:
    arguments = {"repetition_time_s": scan.repetition_time_s, "brain_mask": scan.brain_mask}
    return grid_run(scan.bold, spec, **(arguments | changes))


def reorient(image: nib.Nifti1Image, axes: tuple[int, ...], signs: tuple[int, ...]):
    """Permute and flip the axes of an image's array, and its affine with them."""
    values = np.asarray(image.dataobj)
    values = values.transpose(*axes, *range(3, values.ndim))
    affine = np.array(image.affine)
    affine[:3, :3] = affine[:3, axes]
    for axis, sign in enumerate(signs):
        if sign < 0:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    turned = nib.Nifti1Image(values, affine)
    turned.header.set_zooms((*turned.header.get_zooms()[:3], *image.header.get_zooms()[3:]))
    return turned


def replace_values(scan, values: np.ndarray):
    bold = nib.Nifti1Image(values, scan.bold.affine, scan.bold.header)
    bold.set_data_dtype(values.dtype)
    return scan._replace(bold=bold)


def find_centre_mm(series: Series) -> np.ndarray:
    voxels = np.argwhere(series.brain_mask).mean(axis=0)
    return (series.spec.affine_matrix @ [*voxels, 1])[:3]


def find_dice(one: Series, other: Series) -> float:
    both = (one.brain_mask & other.brain_mask).sum()
    return 2 * both / (one.brain_mask.sum() + other.brain_mask.sum())


def find_correlation(one: Series, other: Series) -> float:
    """Correlate two series away from the brain's edge, where a voxel is part background."""
    inside = binary_erosion(one.brain_mask & other.brain_mask, iterations=2)
    clips = [series.read_clip(0, 2)[inside].ravel() for series in (one, other)]
    return np.corrcoef(clips)[0, 1]


@pytest.fixture
def brain(scan):
    return scan(COINCIDING, SHAPE)


@pytest.mark.parametrize("affine", [COINCIDING, APART], ids=["picked", "interpolated"])
def test_turning_array_and_affine_together_changes_nothing(scan, spec, affine) -> None:
    straight = scan(affine, SHAPE)
    expected = grid(straight, spec)
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = straight._replace(
            bold=reorient(straight.bold, axes, signs),
            brain_mask=reorient(straight.brain_mask, axes[::-1], signs),
        )
        found = grid(turned, spec)
        np.testing.assert_array_equal(found.brain_mask, expected.brain_mask)
        np.testing.assert_allclose(found.frames, expected.frames, rtol=1e-6)


def test_flipping_the_array_alone_moves_the_brain(brain, spec) -> None:
    values = np.asarray(brain.bold.dataobj)[::-1]
    flipped = replace_values(brain, values)
    assert not np.allclose(grid(flipped, spec).frames, grid(brain, spec).frames, rtol=0.05)


@pytest.mark.parametrize("shift_mm", [(8, 0, 0), (0, -16, 8)])
def test_shifted_affine_moves_the_brain_by_as_much(brain, spec, shift_mm) -> None:
    shifted_affine = np.array(COINCIDING)
    shifted_affine[:3, 3] += shift_mm
    shifted = brain._replace(
        bold=nib.Nifti1Image(np.asarray(brain.bold.dataobj), shifted_affine),
        brain_mask=nib.Nifti1Image(np.asarray(brain.brain_mask.dataobj), shifted_affine),
    )
    here, there = grid(brain, spec), grid(shifted, spec)
    voxels = tuple((shift_mm * np.array([-1, 1, 1])) // 8)  # the grid counts X to the left
    np.testing.assert_array_equal(
        there.read_all(), np.roll(here.read_all(), voxels, axis=(0, 1, 2))
    )


def test_versions_of_one_brain_in_other_voxel_sizes_land_on_each_other(scan) -> None:
    spec = GridSpec.published()
    versions = [
        grid(scan(np.diag([size, size, size, 1]), shape, n_volumes=2), spec)
        for size, shape in [(3, (65, 77, 65)), (2, (97, 115, 97)), (1.998, (98, 116, 98))]
    ]
    for version in versions:
        assert find_dice(version, versions[1]) > 0.95
        assert np.abs(find_centre_mm(version) - find_centre_mm(versions[1])).max() < 2
        assert find_correlation(version, versions[1]) > 0.99


def test_oblique_scan_lands_where_the_straight_one_does(scan, spec) -> None:
    angle = np.deg2rad(17)
    oblique = np.diag([5.0, 5, 5, 1])
    rotation = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique[1:3, 1:3] = oblique[1:3, 1:3] @ rotation
    oblique[:3, 3] = (-100, -102, -136)
    turned = grid(scan(oblique, (41, 50, 50)), spec)
    straight = grid(scan(np.diag([5.0, 5, 5, 1]), (40, 47, 40)), spec)
    assert find_dice(turned, straight) > 0.95
    assert np.abs(find_centre_mm(turned) - find_centre_mm(straight)).max() < 2
    assert find_correlation(turned, straight) > 0.99


def test_brain_mask_on_a_finer_grid_marks_the_same_brain(scan, spec) -> None:
    coarse, fine = scan(APART, SHAPE), scan(np.diag([2.0, 2, 2, 1]), (97, 115, 97), n_volumes=1)
    assert find_dice(grid(coarse, spec), grid(coarse._replace(brain_mask=fine[1]), spec)) > 0.9


def test_file_gives_what_the_image_in_memory_gives(tmp_path, brain, spec) -> None:
    nib.save(brain.bold, tmp_path / "run_bold.nii.gz")
    nib.save(brain.brain_mask, tmp_path / "run_mask.nii")
    in_file = brain._replace(
        bold=tmp_path / "run_bold.nii.gz", brain_mask=tmp_path / "run_mask.nii"
    )
    np.testing.assert_array_equal(grid(in_file, spec).read_all(), grid(brain, spec).read_all())


def test_series_is_z_scored_over_the_brain_and_background_is_its_minimum(brain, spec) -> None:
    series = grid(brain, spec)
    values = series.read_all()
    inside = values[series.brain_mask].astype(np.float64)
    assert values.dtype == np.float32
    assert values.shape == (*spec.shape, series.n_volumes)
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    assert inside.std(ddof=1) == pytest.approx(1, rel=1e-5)
    assert set(values[~series.brain_mask].ravel().tolist()) == {values.min()}
    assert values.min() == pytest.approx(inside.min(), abs=1e-5)


def test_clips_are_cuts_of_the_whole(scan, spec) -> None:
    series = grid(scan(COINCIDING, SHAPE, n_volumes=8), spec)
    assert series.n_volumes == 20
    np.testing.assert_array_equal(series.read_clip(7, 9), series.read_all()[..., 7:16])


def test_run_shorter_than_a_clip_is_reflected_in_time_and_says_so(brain, spec) -> None:
    series = grid(brain, spec)
    clip = series.read_clip(0, 20)
    expected = np.pad(series.read_all(), [(0, 0)] * 3 + [(0, 20 - series.n_volumes)], "reflect")
    np.testing.assert_array_equal(clip, expected)
    assert "padded in time by reflection" in series.describe_padding(20)
    assert series.describe_padding(series.n_volumes) is None


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 0), (5, 4), (1, 20)])
def test_clip_outside_the_run_is_refused(brain, spec, start, length) -> None:
    with pytest.raises(UsageError, match="lies inside the run's 8 volumes"):
        grid(brain, spec).read_clip(start, length)


def test_negative_values_are_kept_and_said_to_be(brain, spec) -> None:
    values = np.asarray(brain.bold.dataobj)
    inside = values > 0
    demeaned = replace_values(brain, np.where(inside, values - values[inside].mean(), 0))
    series = grid(demeaned, spec)
    np.testing.assert_allclose(series.read_all(), grid(brain, spec).read_all(), atol=1e-3)
    assert series.statistics.minimum < 0
    assert any("Negative values were kept" in step for step in series.steps)


def test_clipping_negatives_sets_them_to_zero_and_says_so(brain, spec) -> None:
    values = np.asarray(brain.bold.dataobj) - 1000
    clipped = grid(replace_values(brain, values), spec, clip_negatives=True)
    by_hand = grid(replace_values(brain, values), spec)
    in_time = np.maximum(
        by_hand.read_all()[by_hand.brain_mask] * by_hand.statistics.sd + by_hand.statistics.mean, 0
    )
    assert clipped.statistics.mean == pytest.approx(in_time.mean(), rel=1e-4)
    assert clipped.statistics.minimum == 0
    assert clipped.read_all().min() == pytest.approx(clipped.statistics.background)
    assert any("Negative values were set to 0" in step for step in clipped.steps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("affine", [COINCIDING, APART], ids=["picked", "interpolated"])
def test_voxels_that_are_not_finite_leave_the_brain_with_a_warning(scan, spec, bad, affine) -> None:
    whole = scan(affine, SHAPE)
    values = np.array(whole.bold.dataobj)
    values[12, 14, 12, 1] = bad
    series, expected = grid(replace_values(whole, values), spec), grid(whole, spec)
    n_lost = expected.brain_mask.sum() - series.brain_mask.sum()
    assert 1 <= n_lost <= 8
    assert len(series.frames[0]) == series.brain_mask.sum()
    assert any(f"{n_lost} of {expected.brain_mask.sum()}" in text for text in series.warnings)
    kept = series.brain_mask[expected.brain_mask]
    np.testing.assert_array_equal(series.frames, expected.frames[:, kept])
    assert np.isfinite(series.read_all()).all()


def test_values_outside_the_brain_may_be_nan(brain, spec) -> None:
    values = np.array(brain.bold.dataobj)
    values[np.asarray(brain.brain_mask.dataobj) == 0] = np.nan
    series = grid(replace_values(brain, values), spec)
    np.testing.assert_array_equal(series.read_all(), grid(brain, spec).read_all())
    assert series.warnings == ()


def test_brain_with_a_volume_of_nan_is_unusable(brain, spec) -> None:
    values = np.array(brain.bold.dataobj)
    values[..., 2] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        grid(replace_values(brain, values), spec)


def test_constant_voxel_is_kept(brain, spec) -> None:
    values = np.array(brain.bold.dataobj)
    values[12, 14, 12] = 777
    series = grid(replace_values(brain, values), spec)
    np.testing.assert_array_equal(series.brain_mask, grid(brain, spec).brain_mask)
    assert (series.frames == 777).all(axis=0).any()


@pytest.mark.parametrize("value", [0, 1e-3, 1000.1, -5])
@pytest.mark.parametrize("affine", [COINCIDING, APART], ids=["picked", "interpolated"])
def test_constant_run_holds_no_signal(scan, spec, value, affine) -> None:
    constant = scan(affine, SHAPE)
    values = np.full_like(np.asarray(constant.bold.dataobj), value)
    with pytest.raises(DataError, match="holds no signal"):
        grid(replace_values(constant, values), spec)


def test_values_beyond_float32_are_unusable_and_not_a_crash(brain, spec) -> None:
    values = np.asarray(brain.bold.dataobj, dtype=np.float64) * 1e300
    with pytest.raises(DataError, match="NaN or infinite"):
        grid(replace_values(brain, values), spec)


def test_values_at_the_edge_of_float32_are_unusable_and_not_a_crash(brain, spec) -> None:
    values = np.asarray(brain.bold.dataobj) * np.float32(2e35) * np.float32([1, -1, 1])
    with pytest.raises(DataError, match="beyond range"):
        grid(replace_values(brain, values), spec)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 1)])
def test_single_image_is_no_run(brain, spec, shape) -> None:
    values = np.asarray(brain.bold.dataobj)[..., 0].reshape(shape)
    with pytest.raises(DataError, match="expected a series of at least 2"):
        grid(replace_values(brain, values), spec)


def test_run_too_short_for_two_volumes_of_the_model_is_refused(brain, spec) -> None:
    with pytest.raises(DataError, match=r"3 volume\(s\) of 0\.3 s, which make 1 of 0\.8 s"):
        grid(brain, spec, repetition_time_s=0.3)


@pytest.mark.parametrize("seconds", [0, -2, np.nan, np.inf, 2000])
def test_impossible_repetition_time_is_refused(brain, spec, seconds) -> None:
    with pytest.raises(DataError, match="Correct RepetitionTime in the sidecar"):
        grid(brain, spec, repetition_time_s=seconds)


@pytest.mark.parametrize(("seconds", "n_warnings"), [(2.0, 0), (2.01, 0), (2.1, 1), (0.72, 1)])
def test_header_that_contradicts_the_sidecar_is_told_and_not_followed(
    brain, spec, seconds, n_warnings
) -> None:
    series = grid(brain, spec, repetition_time_s=seconds)
    assert series.n_volumes == round(3 * seconds / 0.8)
    assert sum("the sidecar's was used" in text for text in series.warnings) == n_warnings


def test_header_without_a_repetition_time_is_told(brain, spec) -> None:
    brain.bold.header["pixdim"][4] = 0
    assert "0 s in the header and 2 s in the sidecar" in grid(brain, spec).warnings[0]


@pytest.mark.parametrize(
    ("space", "n_warnings"), [(None, 0), ("MNI152NLin6Asym", 0), ("MNI152NLin2009cAsym", 1)]
)
def test_run_in_another_space_is_used_as_it_is_with_a_warning(
    brain, spec, space, n_warnings
) -> None:
    series = grid(brain, spec, source_space=space)
    np.testing.assert_array_equal(series.frames, grid(brain, spec).frames)
    assert sum("used as it is" in text for text in series.warnings) == n_warnings


@pytest.mark.parametrize(
    ("affine", "words"), [(COINCIDING, "were picked"), (APART, "Trilinear interpolation")]
)
def test_steps_tell_how_the_run_came_to_the_grid(scan, spec, affine, words) -> None:
    steps = grid(scan(affine, SHAPE), spec).steps
    assert all(step.endswith(".") for step in steps)
    assert steps[0] == "Read 3 volumes of 25 x 29 x 27 voxels, one every 2 s."
    assert words in steps[2]
    assert "24 x 24 x 24 of 8 x 8 x 8 mm in MNI152NLin6Asym" in steps[2]
    assert steps[3].endswith("8 volumes, one every 0.8 s.")


@pytest.mark.parametrize(
    ("bold", "repetition_time_s"),
    [
        ("sub-01/func/sub-01_task-mixedgamblestask_run-1", 2.0),
        ("sub-02/ses-A/func/sub-02_ses-A_task-rest", 3.0),
    ],
)
def test_real_run_of_fmriprep_lies_in_the_grid(shared, bold, repetition_time_s) -> None:
    stem = f"{bold}_space-MNI152NLin2009cAsym_desc"
    folder = shared / "realdata" / "fmriprep-semireal"
    series = grid_run(
        folder / f"{stem}-preproc_bold.nii.gz",
        GridSpec.published(48),
        repetition_time_s=repetition_time_s,
        brain_mask=folder / f"{stem}-brain_mask.nii.gz",
    )
    assert series.brain_coverage > 0.99
    assert series.warnings == ()
    assert np.isfinite(series.read_clip(0, 20)).all()
