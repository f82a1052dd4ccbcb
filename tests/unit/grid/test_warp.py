"""TemplateFlow's transforms move things the right way, in the file format of ITK."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import h5py
import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import DataError, MissingFileError
from neurostorm_bids.grid.bring import find_space, return_to_run
from neurostorm_bids.grid.nearest import look_up_nearest
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.warp import find_warp, locate_grid
from neurostorm_bids.inputs.cleaning import Cleaning

SOURCE, TARGET = "MNI152NLin2009cAsym", "MNI152NLin6Asym"
LPS = np.array([-1, -1, 1])
FIELD_SHAPE = (50, 60, 50)
FIELD_ORIGIN = np.array([-98.0, -134.0, -72.0])  # RAS, mm
FIELD_STEP = 4.0


def write_transform(home, parts):
    """Write a composite transform as ITK does: in LPS, and with the part that is last used first.

    A part is a translation, or a function that gives displacements (n, 3) at places (n, 3); both
    in RAS and in the direction in which points are sent, from the target to the source.
    """
    path = home / f"tpl-{TARGET}" / f"tpl-{TARGET}_from-{SOURCE}_mode-image_xfm.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["ITKVersion"] = np.array([b"5.3.0"])
        group = file.create_group("TransformGroup")
        group.create_group("0")["TransformType"] = np.array([b"CompositeTransform_double_3_3"])
        for number, part in enumerate(reversed(parts), start=1):
            own = group.create_group(str(number))
            if callable(part):
                kind = b"DisplacementFieldTransform_float_3_3"
                voxels = np.moveaxis(np.indices(FIELD_SHAPE), 0, -1)
                moves = part((voxels * FIELD_STEP + FIELD_ORIGIN).reshape(-1, 3)) * LPS
                # ITK counts voxels of an RAS grid along -x and -y of its own axes.
                fixed = [
                    *FIELD_SHAPE,
                    *(FIELD_ORIGIN * LPS),
                    *([FIELD_STEP] * 3),
                    *np.diag(LPS).ravel(),
                ]
                values = moves.reshape(*FIELD_SHAPE, 3).transpose(2, 1, 0, 3).ravel()
            else:
                kind = b"AffineTransform_double_3_3"
                fixed, values = [0, 0, 0], [*np.eye(3).ravel(), *(np.array(part) * LPS)]
            own["TransformType"] = np.array([kind])
            own["TransformFixedParameters"] = np.array(fixed, dtype=np.float64)
            own["TransformParameters"] = np.array(values, dtype=np.float64)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def blob():
    """A run in the source space whose only structure is a blob, and its mask."""
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = (-96, -132, -78)
    shape = (49, 58, 49)
    places = np.moveaxis(np.indices(shape), 0, -1) * 4.0 + affine[:3, 3]
    brain = (((places - (0, -18, 10)) / (64, 80, 60)) ** 2).sum(axis=-1) < 1
    distance = np.linalg.norm(places - (20, 12, 28), axis=-1)
    volume = brain * (100 + 1000 * np.exp(-((distance / 10) ** 2)))
    bold = nib.Nifti1Image(
        np.stack([volume, volume * 1.01, volume], axis=-1).astype(np.float32), affine
    )
    bold.header.set_zooms((4, 4, 4, 0.8))
    bold.header.set_xyzt_units("mm", "sec")
    return bold, nib.Nifti1Image(brain.astype(np.uint8), affine)


def find_blob_mm(bold, mask, spec, *, warp):
    """Return where the blob lies on the grid, in millimetres."""
    series = grid_run(
        bold,
        spec,
        repetition_time_s=0.8,
        brain_mask=mask,
        source_space=SOURCE,
        warp=warp,
    )
    values = series.read_all()[..., 0]
    weights = np.clip(values - np.quantile(values[series.brain_mask], 0.97), 0, None)
    weights *= series.brain_mask
    voxels = np.argwhere(weights > 0)
    centre = np.average(voxels, axis=0, weights=weights[weights > 0])
    return series, (spec.affine_matrix @ [*centre, 1])[:3]


@pytest.fixture(scope="module")
def fine():
    return GridSpec.published(48)


SHIFT = np.array([9.0, -6.0, 4.0])  # RAS: right, back, up


@pytest.mark.parametrize(
    "parts",
    [
        [-SHIFT],
        [lambda places: 0 * places - SHIFT],
        [lambda places: 0 * places - SHIFT / 2, -SHIFT / 2],
    ],
    ids=["affine", "field", "both"],
)
def test_a_blob_moves_right_back_and_up_when_points_are_sent_the_other_way(parts, home, blob, fine):
    write_transform(home, parts)
    warp = find_warp(SOURCE, TARGET, mode="auto")
    _, before = find_blob_mm(*blob, fine, warp=None)
    series, after = find_blob_mm(*blob, fine, warp=warp)
    np.testing.assert_allclose(after - before, SHIFT, atol=0.5)
    assert any("Warped from" in step for step in series.steps)
    assert not any("used as it is" in doubt for doubt in series.warnings)


def test_parts_are_used_in_the_order_of_itk(home):
    # First the field, whose moves depend on the place, then the affine: not the same the other way.
    def stretch(places):
        return np.where(places[:, [0]] > 0, [[4.0, 0, 0]], [[0.0, 0, 0]])

    write_transform(home, [stretch, (-100.0, 0, 0)])
    spec = GridSpec(
        space=TARGET,
        shape=(2, 1, 1),
        affine=((40, 0, 0, 22), (0, 4, 0, 0), (0, 0, 4, 0), (0, 0, 0, 1)),
        repetition_time_s=0.8,
    )
    world = locate_grid(find_warp(SOURCE, TARGET, mode="auto"), spec)
    np.testing.assert_allclose(world[:, 0, 0], [[-74, 0, 0], [-34, 0, 0]], atol=1e-3)


def test_a_transform_that_moves_nothing_changes_nothing(home, scan, spec):
    write_transform(home, [(0.0, 0, 0), np.zeros_like])
    warp = find_warp(SOURCE, TARGET, mode="auto")
    bold, mask, seconds = scan()
    plain, warped = (
        grid_run(bold, spec, repetition_time_s=seconds, brain_mask=mask, warp=one)
        for one in (None, warp)
    )
    np.testing.assert_array_equal(warped.brain_mask, plain.brain_mask)
    np.testing.assert_allclose(warped.frames, plain.frames, rtol=1e-4)


def test_places_outside_of_the_field_stay_where_they_are(home):
    write_transform(home, [lambda places: np.full_like(places, 8.0)])
    spec = GridSpec(
        space=TARGET,
        shape=(3, 1, 1),
        affine=((200, 0, 0, -198), (0, 4, 0, -2), (0, 0, 4, 0), (0, 0, 0, 1)),
        repetition_time_s=0.8,
    )
    world = locate_grid(find_warp(SOURCE, TARGET, mode="auto"), spec)
    expected = [[-198, -2, 0], [10, 6, 8], [202, -2, 0]]
    np.testing.assert_allclose(world[:, 0, 0], expected, atol=1e-3)


def test_a_transform_is_read_once_for_a_grid(home, spec, caplog):
    write_transform(home, [(3.0, 0, 0)])
    warp = find_warp(SOURCE, TARGET, mode="auto")
    with caplog.at_level(logging.INFO):
        first, second = locate_grid(warp, spec), locate_grid(warp, spec)
    assert first is second
    assert caplog.text.count("Reading the transform") == 1


def test_nothing_is_found_where_nothing_is_wanted_needed_or_fetched(home):
    path = write_transform(home, [(3.0, 0, 0)])
    assert find_warp(SOURCE, TARGET, mode="off") is None
    assert find_warp(TARGET, TARGET, mode="auto") is None
    assert find_warp(None, TARGET, mode="auto") is None
    path.write_bytes(b"")
    assert find_warp(SOURCE, TARGET, mode="auto") is None
    path.unlink()
    path.symlink_to("absent")
    assert find_warp(SOURCE, TARGET, mode="auto") is None


def test_a_file_that_is_no_transform_is_an_error(home, spec):
    path = write_transform(home, [(3.0, 0, 0)])
    path.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="not a composite transform"):
        locate_grid(find_warp(SOURCE, TARGET, mode="auto"), spec)


@pytest.mark.usefixtures("home")
def test_a_download_that_fails_is_an_error_with_advice(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    api = SimpleNamespace(get=fail)  # TemplateFlow's own would look for its archive
    monkeypatch.setitem(sys.modules, "templateflow", SimpleNamespace(api=api))
    with pytest.raises(MissingFileError, match=r"no network.*--warp off"):
        find_warp(SOURCE, TARGET, mode="download")


def test_values_on_the_grid_come_back_to_where_the_run_has_them(home, blob, fine, tmp_path):
    write_transform(home, [-SHIFT])
    bold, mask = blob
    path = tmp_path / "bold.nii.gz"
    nib.save(bold, path)
    run = SimpleNamespace(path=path, space=SOURCE, cleaning=Cleaning())
    series, _ = find_blob_mm(*blob, fine, warp=find_warp(SOURCE, TARGET, mode="auto"))
    values = np.where(series.brain_mask, series.read_all()[..., 0], 0).astype(np.float32)
    found = return_to_run(values, run, fine)
    original = np.asarray(bold.dataobj)[..., 0]
    assert found.shape == original.shape
    brain = np.asarray(mask.dataobj) > 0
    assert ((found != 0) == brain).mean() > 0.97
    both = brain & (found != 0)
    assert np.corrcoef(found[both], original[both])[0, 1] > 0.9
    assert find_space(run, fine) == TARGET
    away = look_up_nearest(
        values, fine.affine_matrix, at_shape=original.shape, at_affine=bold.affine
    )
    assert np.corrcoef(away[both], original[both])[0, 1] < 0.8  # without the way back
