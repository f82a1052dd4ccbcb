from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError, MissingFileError, ReadError, UserError
from neurostorm_bids.grid import series
from neurostorm_bids.grid.read import (
    IN_TURN,
    Reading,
    open_volumes,
    read_header_repetition_time,
)
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (5, 4, 3, 6)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
HEADER_BYTES = 348
IN_THREAD = Reading(in_thread=True)

either_way = pytest.mark.parametrize("reading", [IN_TURN, IN_THREAD], ids=["in turn", "in thread"])


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(3).integers(-300, 300, size=SHAPE).astype(np.int16)


@pytest.fixture
def image(values) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_zooms((2, 2, 2, 1.5))
    image.header.set_xyzt_units("mm", "sec")
    return image


def read_all(source: Path | nib.Nifti1Image, reading: Reading = IN_TURN) -> np.ndarray:
    volumes = open_volumes(source)
    each = volumes.read(reading)
    stacked = [np.array(volume).reshape(volumes.shape, order="F") for volume in each]
    return np.stack(stacked, axis=-1)


def change_header(path: Path, **fields) -> None:
    """Overwrite header fields of an uncompressed file, without nibabel's corrections."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:HEADER_BYTES]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:HEADER_BYTES] = header.binaryblock
    path.write_bytes(content)


@either_way
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "u2", "f4", "f8", ">i2", ">f4"])
def test_file_holds_what_was_written_in_any_type_and_byte_order(
    tmp_path, values, suffix, dtype, reading
) -> None:
    path = tmp_path / f"run{suffix}"
    values = np.abs(values) // 2 if dtype[0] == "u" else values
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(np.dtype(dtype))
    nib.Nifti1Image(values.astype(dtype), AFFINE, header, dtype=np.dtype(dtype)).to_filename(path)
    np.testing.assert_array_equal(read_all(path, reading), values)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_image_in_memory_equals_its_file_whether_loaded_or_not(tmp_path, image, suffix) -> None:
    path = tmp_path / f"run{suffix}"
    nib.save(image, path)
    in_bytes = nib.Nifti1Image.from_bytes(image.to_bytes())
    for source in (image, nib.load(path), in_bytes, nib.Nifti2Image(image.dataobj, AFFINE)):
        np.testing.assert_array_equal(read_all(source), read_all(path))


def test_3d_image_is_one_volume(values) -> None:
    single = nib.Nifti1Image(values[..., 0], AFFINE)
    assert open_volumes(single).n_volumes == 1
    np.testing.assert_array_equal(read_all(single)[..., 0], values[..., 0])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((0.5, 0), (0.5, 0)),
        ((2, -7), (2, -7)),
        ((1, 3), (1, 3)),
        ((0, 9), (1, 0)),
        ((np.nan, 5), (1, 0)),
    ],
)
def test_values_are_scaled_as_the_header_says_unless_it_says_nothing(
    tmp_path, image, values, stored, expected
) -> None:
    path = tmp_path / "run.nii"
    nib.save(image, path)
    change_header(path, scl_slope=stored[0], scl_inter=stored[1])
    np.testing.assert_allclose(read_all(path), values * expected[0] + expected[1])


def test_shape_affine_and_repetition_time_come_from_the_header(tmp_path, image) -> None:
    path = tmp_path / "run.nii.gz"
    nib.save(image, path)
    volumes = open_volumes(path)
    assert (volumes.shape, volumes.n_volumes) == (SHAPE[:3], SHAPE[3])
    np.testing.assert_array_equal(volumes.affine, AFFINE)
    assert volumes.repetition_time_s == 1.5
    assert volumes.warnings == ()


@pytest.mark.parametrize(
    ("unit", "number", "seconds"),
    [("sec", 2, 2), ("msec", 720, 0.72), ("usec", 8e5, 0.8), ("unknown", 3, 3)],
)
def test_repetition_time_of_a_header_is_in_its_own_unit(image, unit, number, seconds) -> None:
    image.header.set_zooms((2, 2, 2, number))
    image.header.set_xyzt_units("mm", unit)
    assert read_header_repetition_time(image) == pytest.approx(seconds)


@pytest.mark.parametrize("number", [0, np.nan, np.inf])
def test_header_without_a_repetition_time_is_an_error(image, number) -> None:
    image.header["pixdim"][4] = number
    with pytest.raises(DataError, match="Give the repetition time"):
        read_header_repetition_time(image)


def test_3d_header_has_no_repetition_time(values) -> None:
    with pytest.raises(DataError, match="Give the repetition time"):
        read_header_repetition_time(nib.Nifti1Image(values[..., 0], AFFINE))


def test_unit_of_hertz_is_no_repetition_time(image) -> None:
    image.header.set_xyzt_units("mm", "hz")
    with pytest.raises(DataError, match="repetition time of nan"):
        read_header_repetition_time(image)


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.nii\.gz"):
        open_volumes(tmp_path / "gone.nii.gz")


@pytest.mark.parametrize("name", ["run.mgz", "run.img", "run.nii.bz2", "run"])
def test_file_of_another_name_is_refused(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(b"0" * 1000)
    with pytest.raises(DataError, match=r"ends in \.nii or \.nii\.gz"):
        open_volumes(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"text, not an image" * 40, bytes(2000)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_file_that_is_no_nifti_is_refused(tmp_path, content, suffix, compress) -> None:
    path = tmp_path / f"run{suffix}"
    path.write_bytes(compress(content))
    with pytest.raises(DataError, match="not a NIfTI file that can be read"):
        open_volumes(path)


@either_way
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.999, 0.6])
def test_file_that_ends_early_is_damaged(tmp_path, suffix, share, reading) -> None:
    path = tmp_path / f"run{suffix}"
    noise = np.random.default_rng(0).normal(size=(16, 16, 16, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, AFFINE), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_all(path, reading)


@either_way
@pytest.mark.parametrize("side", [8, 80])
def test_compressed_file_with_a_wrong_checksum_is_damaged(tmp_path, side, reading) -> None:
    path = tmp_path / "run.nii.gz"
    noise = np.random.default_rng(0).integers(99, size=(side, side, side, 2)).astype(np.int16)
    content = bytearray(gzip.compress(nib.Nifti1Image(noise, AFFINE).to_bytes(), 1))
    content[-8] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or cut short"):
        read_all(path, reading)


class Enough(Exception):  # noqa: N818 - no error
    """Ends a reading."""


@either_way
@pytest.mark.parametrize("n_wanted", [1, 30])
def test_reading_ends_when_it_is_told_to_and_leaves_no_thread(tmp_path, n_wanted, reading) -> None:
    """The file is larger than what a thread may be ahead."""
    path = tmp_path / "run.nii.gz"
    noise = np.random.default_rng(0).integers(99, size=(64, 64, 64, 40), dtype=np.int16)
    path.write_bytes(gzip.compress(nib.Nifti1Image(noise, AFFINE).to_bytes(), 1))
    read = []

    def check() -> None:
        if len(read) == n_wanted:
            raise Enough

    before = set(threading.enumerate())
    with pytest.raises(Enough):
        read.extend(open_volumes(path).read(reading._replace(check=check)))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_small_file_that_promises_much_is_refused_before_anything_is_read(
    tmp_path, image, compress
) -> None:
    path = tmp_path / ("run.nii" if compress is bytes else "run.nii.gz")
    header = image.header.copy()
    header.set_data_shape((500, 500, 500, 800))
    path.write_bytes(compress(header.binaryblock + bytes(4)))
    with pytest.raises(DataError, match="cannot hold them"):
        open_volumes(path)


def test_volume_of_too_many_voxels_is_refused() -> None:
    huge = nib.Nifti1Image(np.broadcast_to(np.int8(0), (1000, 1000, 1000, 2)), AFFINE)
    with pytest.raises(DataError, match="expected at most 134217728 voxels"):
        open_volumes(huge)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 1, 6), (5, 4, 0, 6), (5, 4, 3, 0)])
def test_image_without_three_axes_of_space_and_one_of_time_is_refused(shape) -> None:
    with pytest.raises(DataError, match="expected three axes of space, and time"):
        open_volumes(nib.Nifti1Image(np.zeros(shape, np.int16), AFFINE))


@pytest.mark.parametrize(
    "dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=["complex", "colours"]
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_image_that_holds_no_real_numbers_is_refused(tmp_path, dtype, in_memory) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, dtype), AFFINE)
    nib.save(image, tmp_path / "run.nii.gz")
    with pytest.raises(DataError, match="expected real numbers"):
        read_all(image if in_memory else tmp_path / "run.nii.gz")


def test_image_without_a_position_in_the_world_is_refused(tmp_path, image) -> None:
    path = tmp_path / "run.nii"
    nib.save(image, path)
    change_header(path, sform_code=0, qform_code=0)
    with pytest.raises(DataError, match="sform and qform codes are 0"):
        open_volumes(path)


@pytest.mark.parametrize("row", [(0, 0, 0, 0), (np.nan, 0, 0, 0), (0, 2, 0, 0)])
def test_affine_that_cannot_be_inverted_is_refused(tmp_path, image, row) -> None:
    path = tmp_path / "run.nii"
    nib.save(image, path)
    change_header(path, srow_x=row, sform_code=4)
    with pytest.raises(DataError, match="cannot be inverted"):
        open_volumes(path)


def test_qform_alone_places_the_image(image) -> None:
    image.set_qform(AFFINE, code=4)
    image.set_sform(None, code=0)
    np.testing.assert_allclose(open_volumes(image).affine, AFFINE)


@pytest.mark.parametrize(("flip", "n_warnings"), [(-1, 1), (1, 0)])
def test_sform_and_qform_that_disagree_about_left_and_right_are_told(
    tmp_path, image, flip, n_warnings
) -> None:
    path = tmp_path / "run.nii"
    image.set_sform(AFFINE, code=4)
    image.set_qform(AFFINE @ np.diag([flip, 1, 1, 1]), code=1)
    nib.save(image, path)
    volumes = open_volumes(path)
    np.testing.assert_array_equal(volumes.affine, AFFINE)
    assert len(volumes.warnings) == n_warnings
    assert all("left and right" in warning for warning in volumes.warnings)


@either_way
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_failing_disk_is_a_read_error(tmp_path, image, suffix, reading) -> None:
    path = tmp_path / f"run{suffix}"
    nib.save(image, path)
    volumes = open_volumes(path)
    path.unlink()
    with pytest.raises(ReadError, match=r"Reading .*run\.nii.* failed"):
        list(volumes.read(reading))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.integers(0, HEADER_BYTES + 3), st.integers(0, 255), max_size=6))
def test_damaged_header_gives_a_user_error_or_an_image(tmp_path, image, changes) -> None:
    content = bytearray(image.to_bytes())
    for position, value in changes.items():
        content[position] = value
    path = tmp_path / "run.nii"
    path.write_bytes(content)
    try:
        volumes = open_volumes(path)
        n_read = sum(volume.size for volume in volumes.read())
    except UserError:
        return
    assert n_read == volumes.n_volumes * np.prod(volumes.shape)


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    affine = np.diag([90.0, 90, 90, 1])
    affine[:3, 3] = [-45, -64, -28]
    path = tmp_path / "bold.nii.gz"
    image = nib.Nifti2Image(np.tile([0, 1], (2, 2, 2, 20_000)).astype(np.uint8), affine)
    image.set_sform(affine, 1)
    image.to_filename(path)
    mask = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), affine)
    assert path.stat().st_size < 5000
    with pytest.raises(DataError, match="times as many"):
        grid_run(path, GridSpec.published(24), repetition_time_s=2.0, brain_mask=mask)
    with pytest.raises(DataError, match="more than 10000000"):
        series._lay_clock(open_volumes(path), 10_000_000, GridSpec.published(4), 50.0)
