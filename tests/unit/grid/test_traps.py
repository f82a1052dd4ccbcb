"""Runs and masks that look right and are not: an error or a warning says so."""

from __future__ import annotations

import re
import struct

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.brain import make_brain_mask
from neurostorm_bids.grid.normalise import find_statistics
from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.grid.resample import find_clock
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spikes import doubt_spikes


def bring(scan, spec, **changes):
    arguments = {"repetition_time_s": scan.repetition_time_s, "brain_mask": scan.brain_mask}
    return grid_run(scan.bold, spec, **(arguments | changes))


def shift(image, *millimetres):
    affine = image.affine.copy()
    affine[:3, 3] += millimetres
    return nib.Nifti1Image(np.asarray(image.dataobj), affine, image.header)


def test_a_sound_run_raises_no_doubt(scan, spec):
    assert bring(scan(), spec).warnings == ()


def test_a_run_that_is_not_where_an_mni_brain_is_is_doubted(scan, spec):
    made = scan()
    moved = made._replace(
        bold=shift(made.bold, 0, 30, 0), brain_mask=shift(made.brain_mask, 0, 30, 0)
    )
    series = bring(moved, spec)
    assert any("mm from that of the MNI template" in doubt for doubt in series.warnings)


def test_a_run_far_from_the_grid_is_an_error(scan, spec):
    made = scan()
    moved = made._replace(
        bold=shift(made.bold, 0, 90, 0), brain_mask=shift(made.brain_mask, 0, 90, 0)
    )
    with pytest.raises(DataError, match="of the brain lies in view"):
        bring(moved, spec)


def test_a_mask_that_is_much_too_small_for_a_brain_is_doubted(scan, spec):
    made = scan()
    values = np.asarray(made.brain_mask.dataobj).copy()
    values[:, :, :20] = values[:, :, 26:] = values[:, :20] = 0
    series = bring(made, spec, brain_mask=nib.Nifti1Image(values, made.brain_mask.affine))
    assert any("has a volume of" in doubt for doubt in series.warnings)


def test_a_mask_on_other_voxels_than_the_run_is_doubted(scan, spec):
    other = scan(affine=np.diag([5.0, 5, 5, 1]), shape=(40, 48, 40)).brain_mask
    series = bring(scan(), spec, brain_mask=other)
    assert any("other voxels than the run (40 x 48 x 40" in doubt for doubt in series.warnings)


def blank(made, share):
    """Set the lower share of the brain to 0, as a mask of another run would have it."""
    values = np.asarray(made.bold.dataobj).copy()
    inside = np.asarray(made.brain_mask.dataobj) > 0
    lower = inside & (np.arange(inside.shape[2]) < np.quantile(np.argwhere(inside)[:, 2], share))
    values[lower] = 0
    return made._replace(bold=nib.Nifti1Image(values, made.bold.affine, made.bold.header))


def test_brain_voxels_without_a_signal_are_counted(scan, spec):
    series = bring(blank(scan(), 0.25), spec)
    assert any("same value in every volume" in doubt for doubt in series.warnings)


def test_a_brain_mostly_without_a_signal_is_an_error(scan, spec):
    with pytest.raises(DataError, match="same value in every volume; expected at most 50%"):
        bring(blank(scan(), 0.7), spec)


@pytest.mark.parametrize("value", [0.0, 700.0])
def test_a_run_without_any_signal_is_an_error(value, scan, spec):
    made = scan()
    values = np.full(made.bold.shape, value, dtype=np.float32)
    flat = made._replace(bold=nib.Nifti1Image(values, made.bold.affine, made.bold.header))
    with pytest.raises(DataError, match="holds no signal"):
        bring(flat, spec)


def test_the_mask_of_a_denoised_run_is_where_it_varies(scan):
    made = scan(n_volumes=6)
    values = np.asarray(made.bold.dataobj)
    inside = np.asarray(made.brain_mask.dataobj) > 0
    demeaned = (values - values.mean(axis=-1, keepdims=True)).astype(np.float32)
    brain = make_brain_mask(open_volumes(nib.Nifti1Image(demeaned, made.bold.affine)))
    np.testing.assert_array_equal(brain.inside, inside)
    assert "the voxels that vary were taken" in brain.warnings[0]


@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("slope", "is_doubted"), [(0.0, False), (np.nan, False), (2.0, False), (np.inf, True)]
)
def test_a_slope_that_is_no_number_is_told(slope, is_doubted, end, tmp_path):
    path = tmp_path / f"bold{end}"
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 2, 2, 3), np.eye(4)), path)
    raw = bytearray(path.read_bytes() if end == ".nii" else nib.openers.Opener(path).read())
    raw[112:120] = struct.pack("<ff", slope, 0)
    with nib.openers.Opener(path, "wb") as file:
        file.write(bytes(raw))
    volumes = open_volumes(path)
    assert bool(volumes.warnings) == is_doubted
    factor = slope if np.isfinite(slope) and slope else 1
    assert next(iter(volumes.read()))[1] == factor * 12


def test_transforms_of_different_handedness_are_told(scan, spec, tmp_path):
    made = scan()
    bold = nib.Nifti1Image(np.asarray(made.bold.dataobj), made.bold.affine, made.bold.header)
    bold.set_sform(bold.affine, code=4)
    bold.set_qform(bold.affine @ np.diag([-1, 1, 1, 1]), code=1)
    nib.save(bold, tmp_path / "bold.nii.gz")
    series = bring(made._replace(bold=tmp_path / "bold.nii.gz"), spec)
    assert any("disagree about left and right" in doubt for doubt in series.warnings)


@pytest.mark.parametrize(
    ("name", "spikes"),
    [
        ("fmriprep-semireal/**/sub-01*space-MNI*_bold.nii.gz", None),
        ("fmriprep-semireal/**/sub-02*space-MNI*_bold.nii.gz", None),
        ("native4d/nibabel_functional.nii", None),
        # As it left the scanner: 11 % darker in the first volume than in all others.
        ("native4d/nitime_fmri1.nii.gz", "1 of 40 volumes are spikes.*counted from 0: 0"),
    ],
)
def test_real_series_raise_no_false_alarm_of_spikes(shared, name, spikes):
    path = next((shared / "realdata").glob(name))
    values = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    mean = values.mean(axis=3)
    frames = values[mean > 0.3 * np.percentile(mean, 98)].T
    clock = find_clock(len(frames), source_repetition_time_s=2.0, repetition_time_s=2.0)
    statistics = find_statistics(frames, clock, clip_negatives=False, name=path.name)
    doubts = doubt_spikes(frames, statistics)
    assert len(doubts) == (spikes is not None)
    assert spikes is None or re.search(spikes, doubts[0])
