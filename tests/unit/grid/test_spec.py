from __future__ import annotations

import json
import math

import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.spec import GridSpec

IDENTITY = ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0))


@pytest.fixture
def fields() -> dict[str, object]:
    return GridSpec.published().to_dict()


def test_published_grid_is_that_of_the_training_data() -> None:
    spec = GridSpec.published()
    assert (spec.space, spec.shape, spec.repetition_time_s) == (
        "MNI152NLin6Asym",
        (96, 96, 96),
        0.8,
    )
    expected = [[-2, 0, 0, 96], [0, 2, 0, -114], [0, 0, 2, -78], [0, 0, 0, 1]]
    assert spec.affine_matrix.tolist() == expected


@pytest.mark.parametrize("n_voxels", [96, 48, 24, 100, (48, 96, 32)])
def test_published_field_of_view_keeps_its_edges_for_any_number_of_voxels(n_voxels) -> None:
    spec = GridSpec.published(n_voxels)
    first = spec.affine_matrix @ [-0.5, -0.5, -0.5, 1]
    last = spec.affine_matrix @ [*(np.array(spec.shape) - 0.5), 1]
    np.testing.assert_allclose(first[:3], (97, -115, -79))
    np.testing.assert_allclose(last[:3], (-95, 77, 113))


def test_grid_survives_json(fields) -> None:
    assert GridSpec.from_dict(json.loads(json.dumps(fields))) == GridSpec.published()


def test_grid_made_from_arrays_equals_and_hashes_as_one_made_from_lists() -> None:
    from_array = GridSpec(
        space="X", shape=(2, 3, 4), affine=np.array(IDENTITY), repetition_time_s=np.float64(1)
    )
    from_lists = GridSpec(space="X", shape=[2, 3, 4], affine=IDENTITY, repetition_time_s=1)
    assert from_array == from_lists
    assert hash(from_array) == hash(from_lists)


@pytest.mark.parametrize(
    ("n_voxels", "label"),
    [(96, "2mm"), (24, "8mm"), (128, "1p5mm"), ((48, 96, 96), "4x2x2mm"), (100, "1p92mm")],
)
def test_label_names_the_voxel_size_in_letters_and_digits(n_voxels, label) -> None:
    assert GridSpec.published(n_voxels).label == label
    assert label.isalnum()


@pytest.mark.parametrize("missing", ["space", "shape", "affine", "repetition_time_s"])
def test_dict_without_a_field_is_refused(fields, missing) -> None:
    del fields[missing]
    with pytest.raises(DataError, match="A grid has the fields"):
        GridSpec.from_dict(fields)


@pytest.mark.parametrize("wrong", [[], "grid", None, {"more": 1}])
def test_dict_of_other_fields_is_refused(wrong) -> None:
    with pytest.raises(DataError, match="A grid has the fields"):
        GridSpec.from_dict(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("space", ""),
        ("space", "../x"),
        ("space", 3),
        ("shape", [96, 96]),
        ("shape", [96, 96, 0]),
        ("shape", [96, 96, -1]),
        ("shape", [96.0, 96.0, 96.0]),
        ("shape", [10**6, 96, 96]),
        ("shape", [10**30, 96, 96]),
        ("shape", [True, True, True]),
        ("shape", [[96], [96, 96]]),
        ("shape", "969"),
        ("affine", 2),
        ("affine", [[1, 0], [0, 1]]),
        ("affine", [[0] * 4] * 4),
        ("affine", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]),
        ("affine", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]),
        ("affine", [[math.nan, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ("repetition_time_s", 0),
        ("repetition_time_s", -0.8),
        ("repetition_time_s", 1e-9),
        ("repetition_time_s", math.nan),
        ("repetition_time_s", 800),
        ("repetition_time_s", "0.8"),
        ("repetition_time_s", True),
    ],
)
def test_impossible_field_is_refused_by_name(fields, field, value) -> None:
    names = {"repetition_time_s": "repetition time"}
    with pytest.raises(DataError, match=f"The {names.get(field, field)} of a grid"):
        GridSpec.from_dict(fields | {field: value})


def test_a_clock_that_no_float_can_hold_is_refused():
    fields = GridSpec.published(12).to_dict()
    with pytest.raises(DataError, match="repetition time"):
        GridSpec.from_dict({**fields, "repetition_time_s": 10**400})
