from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.derivatives.atomic import write_files
from neurostorm_bids.derivatives.images import encode_image

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2.5, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])


@pytest.fixture
def values():
    return np.random.default_rng(0).standard_normal((5, 4, 3, 6)).astype(np.float32)


def encode(values):
    volumes = (values[..., t] for t in range(values.shape[3]))
    return encode_image(
        volumes,
        shape=values.shape[:3],
        n_volumes=values.shape[3],
        affine=AFFINE,
        space="MNI152NLin6Asym",
        repetition_time_s=0.8,
    )


def test_an_image_written_piece_by_piece_is_read_as_it_was(tmp_path, values):
    path = tmp_path / "image.nii.gz"
    write_files({path: encode(values)})
    image = nib.load(path)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values)
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(image.header.get_zooms(), (2, 2.5, 3, 0.8), rtol=1e-6)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert (image.header["qform_code"], image.header["sform_code"]) == (4, 4)


def test_the_same_image_has_the_same_bytes_without_name_and_time(values):
    first, second = b"".join(encode(values)), b"".join(encode(values))
    assert first == second
    assert first[:4] == b"\x1f\x8b\x08\x00"
    assert first[4:8] == bytes(4)


def test_volumes_are_asked_for_as_they_are_written(values):
    asked = []

    def volumes():
        for t in range(values.shape[3]):
            asked.append(t)
            yield values[..., t]

    pieces = encode_image(
        volumes(),
        shape=values.shape[:3],
        n_volumes=6,
        affine=AFFINE,
        space="MNI152NLin6Asym",
        repetition_time_s=0.8,
    )
    next(pieces)
    assert asked == []
    next(pieces)
    assert asked == [0]


def test_an_image_that_fails_half_way_leaves_the_old_file(tmp_path, values):
    path = tmp_path / "image.nii.gz"
    path.write_bytes(b"old")

    def broken():
        yield from list(encode(values))[:2]
        raise MemoryError

    with pytest.raises(MemoryError):
        write_files({path: broken()})
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
