"""Image embeddings from files: both forms are the same, and strangers' arrays are only numbers."""

from __future__ import annotations

import io
import zipfile
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.retrieval.stimuli import read_image_embeddings

NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.fixture
def array(tmp_path, vectors):
    pd.DataFrame({"stim_file": NAMES}).to_csv(tmp_path / "clip.tsv", sep="\t", index=False)
    np.save(tmp_path / "clip.npy", vectors)
    return tmp_path / "clip.npy"


def test_an_array_and_a_table_give_the_same(array, tmp_path, vectors):
    table = pd.DataFrame(vectors.astype(float), columns=list("wxyz"))
    table.insert(0, "stim_file", NAMES)
    table.to_csv(tmp_path / "table.tsv", sep="\t", index=False)
    from_array = read_image_embeddings(array)
    from_table = read_image_embeddings(tmp_path / "table.tsv")
    np.testing.assert_allclose(from_array, vectors)
    np.testing.assert_allclose(from_table, vectors, rtol=1e-6)
    assert list(from_array.index) == list(from_table.index) == NAMES
    assert from_array.index.name == "stim_file"


def test_an_array_of_objects_is_never_unpickled(array):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the pickle ran",)

    np.save(array, np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a usable"):
        read_image_embeddings(array)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(array):
    contents = array.read_bytes().replace(b"(3, 4), }  ", b"(3, 4000)}")
    array.write_bytes(contents)
    with pytest.raises(DataError, match="not a usable"):
        read_image_embeddings(array)


def test_a_header_whose_sides_no_integer_holds_is_refused(array):
    contents = array.read_bytes()
    header = b"{'descr': '<U5', 'fortran_order': False, 'shape': (%d,), }" % 10**30
    array.write_bytes(contents[:10] + header.ljust(117) + b"\n" + contents[128:])
    with pytest.raises(DataError, match="not a usable"):
        read_image_embeddings(array)


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04 a zip", b"\x80\x04K\x01."])
def test_what_is_no_array_is_refused(array, contents):
    array.write_bytes(contents)
    with pytest.raises(DataError, match="not a usable"):
        read_image_embeddings(array)


@pytest.mark.parametrize(
    "values", [np.ones(3), np.ones((2, 4)), np.ones((3, 0)), np.array([["a"]] * 3)]
)
def test_an_array_of_another_shape_or_kind_is_refused(array, values):
    np.save(array, values)
    with pytest.raises(DataError, match="Expected"):
        read_image_embeddings(array)


def test_numbers_must_be_finite(array, vectors):
    vectors[1, 1] = np.inf
    np.save(array, vectors)
    with pytest.raises(DataError, match="finite"):
        read_image_embeddings(array)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\tx\na.png\t1\n", "column stim_file"),
        ("stim_file\na.png\n", "no other column"),
        ("stim_file\tx\na.png\t1\na.png\t2\n", "more than once"),
        ("stim_file\tx\na.png\tred\n", "Expected numbers"),
        ("stim_file\tx\na.png\tnan\n", "finite"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, table, message):
    path = tmp_path / "table.tsv"
    path.write_text(table)
    with pytest.raises(DataError, match=message):
        read_image_embeddings(path)


def test_a_missing_table_of_names_is_told(tmp_path, vectors):
    np.save(tmp_path / "clip.npy", vectors)
    with pytest.raises(MissingFileError, match=r"clip\.tsv"):
        read_image_embeddings(tmp_path / "clip.npy")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"weights\.pkl"):
        read_image_embeddings(tmp_path / "weights.pkl")


@pytest.fixture
def archive(tmp_path, vectors):
    np.savez_compressed(tmp_path / "clip.npz", stim_file=np.array(NAMES), embedding=vectors)
    return tmp_path / "clip.npz"


def test_an_archive_holds_both(archive, vectors):
    found = read_image_embeddings(archive)
    np.testing.assert_allclose(found, vectors)
    assert list(found.index) == NAMES
    assert found.index.name == "stim_file"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embedding": np.ones((3, 4))}, "there is no stim_file"),
        ({"stim_file": np.array(NAMES)}, "there is no embedding"),
        ({"stim_file": np.array(NAMES), "embedding": np.ones(3)}, "Expected numbers of shape"),
        ({"stim_file": np.array(NAMES), "embedding": np.ones((2, 4))}, "names of 2 images"),
        ({"stim_file": np.arange(3), "embedding": np.ones((3, 4))}, "names of 3 images"),
        ({"stim_file": np.array(["a"] * 3), "embedding": np.ones((3, 4))}, "more than once"),
        ({"stim_file": np.array(NAMES), "embedding": np.full((3, 4), np.nan)}, "finite"),
        ({"stim_file": np.array(["a" * 5000] * 3), "embedding": np.ones((3, 4))}, "at most 1024"),
    ],
)
def test_an_archive_that_cannot_be_used_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "clip.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_image_embeddings(tmp_path / "clip.npz")


@pytest.mark.parametrize("name", ["stim_file", "embedding"])
def test_an_archive_of_objects_is_never_unpickled(tmp_path, name):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the pickle ran",)

    arrays = {"stim_file": np.array(NAMES), "embedding": np.ones((3, 4))}
    arrays[name] = np.full(arrays[name].shape, Trap(), dtype=object)
    np.savez(tmp_path / "clip.npz", **arrays)
    with pytest.raises(DataError, match="Expected"):
        read_image_embeddings(tmp_path / "clip.npz")


@pytest.mark.parametrize(("old", "new"), [(b"(3, 4)", b"(3, 9)"), (b"(3, 4), ", b"(3, 4**9")])
def test_an_archive_whose_header_lies_is_refused(tmp_path, old, new):
    text = BytesIO()
    np.save(text, np.ones((3, 4)))
    contents = text.getvalue().replace(old, new)
    names = BytesIO()
    np.save(names, np.array(NAMES))
    with zipfile.ZipFile(tmp_path / "clip.npz", "w") as file:
        file.writestr("embedding.npy", contents)
        file.writestr("stim_file.npy", names.getvalue())
    with pytest.raises(DataError, match=r"more than is there|not a usable"):
        read_image_embeddings(tmp_path / "clip.npz")


def test_an_archive_that_promises_too_much_is_refused_before_it_is_read(tmp_path):
    header = BytesIO()
    promise = {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**10)}
    np.lib.format.write_array_header_1_0(header, promise)
    with zipfile.ZipFile(tmp_path / "clip.npz", "w") as file:
        file.writestr("embedding.npy", header.getvalue())
    with pytest.raises(DataError, match=r"found 1,073,741,824\. Keep only"):
        read_image_embeddings(tmp_path / "clip.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_an_archive_damaged_in_its_compression_is_an_error(method, tmp_path):
    path = tmp_path / "images.npz"
    stream = io.BytesIO()
    np.save(stream, np.arange(6.0).reshape(3, 2))
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("embedding.npy", stream.getvalue())
    content = bytearray(path.read_bytes())
    for place in range(45, 70):
        content[place] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a usable"):
        read_image_embeddings(path)
