"""Image embeddings from files: both forms are the same, and strangers' arrays are only numbers."""

from __future__ import annotations

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
