"""Regions land where the world has them, however an atlas is stored."""

from collections import Counter
from itertools import product

import nibabel as nib
import numpy as np
import pytest
from templateflow import api

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.grid.atlas import (
    Atlas,
    describe_survivors,
    find_atlas,
    place_on_grid,
    place_on_tokens,
)
from neurostorm_bids.grid.spec import GridSpec

SPACE = "MNI152NLin6Asym"
REAL = ["aal3_166", "schaefer_100_7net", "schaefer_200_7net"]


def make_atlas(labels, affine):
    labels = np.asarray(labels, dtype=np.int32)
    names = {region: f"region {region}" for region in np.unique(labels[labels > 0]).tolist()}
    return Atlas(name="made up", path=None, labels=labels, affine=np.array(affine), names=names)


@pytest.fixture
def random_atlas():
    """Return an atlas of 4 mm blocks over the whole field of view of the model, and beyond."""
    rng = np.random.default_rng(3)
    affine = [[4, 0, 0, -110], [0, 4, 0, -130], [0, 0, 4, -90], [0, 0, 0, 1.0]]
    return make_atlas(rng.integers(0, 6, (55, 56, 57)), affine)


@pytest.fixture
def write_atlas(tmp_path):
    """Return a function that writes an image of values."""

    def write_atlas(values, name="atlas-X_space-MNI152NLin6Asym_dseg.nii.gz"):
        image = nib.Nifti1Image(values, np.diag([2, 2, 2, 1]))
        image.set_sform(image.affine, code=4)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write_atlas


def flip(atlas, axis):
    """Count an atlas's voxels from the other end, affine included."""
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, atlas.labels.shape[axis] - 1
    return make_atlas(np.flip(atlas.labels, axis), atlas.affine @ turn)


def look_up(world, labels, affine):
    """Return the label at a position of the world: an oracle of nothing but numpy."""
    i, j, k, _ = np.rint(np.linalg.inv(affine) @ (*world, 1)).astype(int)
    inside = all(0 <= n < size for n, size in zip((i, j, k), labels.shape, strict=True))
    return int(labels[i, j, k]) if inside else 0


@pytest.mark.parametrize("name", REAL)
def test_tokens_agree_with_a_look_up_by_world_coordinates(shared, name):
    path = shared / "realdata" / "atlases" / name / "atlas.nii.gz"
    spec = GridSpec.published()
    tokens = place_on_tokens(place_on_grid(find_atlas(path, SPACE), spec), (6, 6, 6, 1))
    image = nib.load(path)
    labels = np.asarray(image.dataobj).astype(int)
    rng = np.random.default_rng(4)
    inner = rng.permutation(np.argwhere(tokens > 0))[:30]
    anywhere = rng.integers(0, 16, (20, 3))
    for token in (*inner, *anywhere):
        votes = Counter()
        for offset in product(range(6), repeat=3):
            world = spec.affine_matrix @ [*(6 * token + offset), 1]
            votes[look_up(world[:3], labels, image.affine)] += 1
        n_background = votes.pop(0, 0)
        winner = min(votes, key=lambda region: (-votes[region], region), default=-1)
        expected = winner if 216 - n_background >= 54 else -1
        assert tokens[tuple(token)] == expected


@pytest.mark.parametrize("name", REAL)
def test_every_voxel_of_a_real_atlas_reaches_the_published_grid(shared, name):
    atlas = find_atlas(shared / "realdata" / "atlases" / name / "atlas.nii.gz", SPACE)
    on_grid = place_on_grid(atlas, GridSpec.published())
    np.testing.assert_array_equal(np.bincount(on_grid.flat)[1:], np.bincount(atlas.labels.flat)[1:])


@pytest.mark.parametrize("n_voxels", [96, 48, 40, (32, 20, 12)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipping_an_atlas_and_its_affine_together_changes_nothing(random_atlas, n_voxels, axis):
    spec = GridSpec.published(n_voxels)
    np.testing.assert_array_equal(
        place_on_grid(flip(random_atlas, axis), spec), place_on_grid(random_atlas, spec)
    )


def test_exchanging_axes_of_an_atlas_and_its_affine_changes_nothing(random_atlas):
    spec = GridSpec.published(48)
    turned = make_atlas(
        random_atlas.labels.transpose(2, 0, 1), random_atlas.affine[:, [2, 0, 1, 3]]
    )
    np.testing.assert_array_equal(place_on_grid(turned, spec), place_on_grid(random_atlas, spec))


def test_an_atlas_on_the_grid_itself_comes_back_as_it_is():
    spec = GridSpec.published((8, 10, 12))
    labels = np.random.default_rng(5).integers(0, 9, spec.shape)
    atlas = make_atlas(labels, spec.affine_matrix)
    np.testing.assert_array_equal(place_on_grid(atlas, spec), labels)


def test_left_of_the_world_is_left_on_the_grid():
    labels = np.ones((100, 120, 120))  # stored from left to right, around x = 0
    labels[50:] = 2
    atlas = make_atlas(labels, [[2, 0, 0, -99], [0, 2, 0, -130], [0, 0, 2, -90], [0, 0, 0, 1]])
    spec = GridSpec.published(32)
    on_grid = place_on_grid(atlas, spec)
    x = spec.affine_matrix[0, 0] * np.arange(32) + spec.affine_matrix[0, 3]
    assert set(on_grid[x < 0].flat) == {1}
    assert set(on_grid[x > 0].flat) == {2}


def test_outside_of_an_atlas_there_are_no_regions():
    atlas = make_atlas(np.ones((3, 3, 3)), np.diag([2, 2, 2, 1]))
    spec = GridSpec.published()
    on_grid = place_on_grid(atlas, spec)
    voxels = np.argwhere(on_grid == 1)
    world = voxels @ spec.affine_matrix[:3, :3].T + spec.affine_matrix[:3, 3]
    assert sorted(map(tuple, world)) == sorted(product((0, 2, 4), repeat=3))


@pytest.mark.parametrize(
    ("voxels", "region"),
    [
        ([1, 1, 1, 1, 1, 2, 2, 2], 1),
        ([1, 1, 1, 2, 2, 2, 2, 2], 2),
        ([0, 0, 0, 0, 0, 3, 2, 2], 2),  # background does not vote
        ([0, 0, 7, 7, 7, 5, 5, 5], 5),  # equal: the smaller number
        ([0, 0, 0, 0, 0, 0, 4, 6], 4),  # a quarter is enough
        ([0, 0, 0, 0, 0, 0, 0, 4], -1),
        ([0, 0, 0, 0, 0, 0, 0, 0], -1),
    ],
)
def test_a_patch_belongs_to_the_region_most_of_its_labelled_voxels_do(voxels, region):
    voxels = np.random.default_rng(6).permutation(voxels)
    on_grid = np.zeros((2, 4, 6), dtype=np.int32)
    on_grid[:, 2:, 4:] = voxels.reshape(2, 2, 2)
    tokens = place_on_tokens(on_grid, (2, 2, 2))
    assert tokens.dtype == np.int64
    assert tokens.shape == (1, 2, 3)
    assert tokens[0, 1, 2] == region
    assert np.all(tokens.ravel()[:-1] == -1)


def test_patches_of_one_voxel_are_the_grid_with_its_background_marked(random_atlas):
    on_grid = place_on_grid(random_atlas, GridSpec.published(12))
    tokens = place_on_tokens(on_grid, (1, 1, 1, 1))
    np.testing.assert_array_equal(tokens, np.where(on_grid == 0, -1, on_grid))


@pytest.mark.parametrize("patch_size", [(5, 6, 6), (6, 6), (0, 6, 6), (6, 6, 7, 1)])
def test_patches_that_do_not_divide_the_grid_are_refused(patch_size):
    with pytest.raises(UsageError, match="sides divide the grid"):
        place_on_tokens(np.zeros((12, 12, 12), dtype=np.int32), patch_size)


def test_survivors_are_counted_by_region():
    labels = np.zeros((8, 4, 4))
    labels[:4] = 3
    labels[0, 0, 0] = 9  # too small for a patch
    labels[7, 0, 0] = 4  # outside of the grid
    spec = GridSpec(
        space=SPACE,
        shape=(4, 4, 4),
        affine=np.diag([2.0, 2.0, 2.0, 1.0]).tolist(),
        repetition_time_s=1.0,
    )
    atlas = make_atlas(labels, spec.affine_matrix)
    on_grid = place_on_grid(atlas, spec)
    table = describe_survivors(atlas, on_grid, place_on_tokens(on_grid, (2, 2, 2)))
    assert table.to_dict("list") == {
        "index": [3, 4, 9],
        "name": ["region 3", "region 4", "region 9"],
        "n_voxels_atlas": [63, 1, 1],
        "n_voxels_grid": [63, 0, 1],
        "n_patches": [8, 0, 0],
        "n_voxels_patches": [63, 0, 0],
    }


def test_most_of_the_real_regions_survive_as_patches(shared):
    for name, n_regions, n_survivors in [("aal3_166", 166, 126), ("schaefer_200_7net", 200, 197)]:
        atlas = find_atlas(shared / "realdata" / "atlases" / name / "atlas.nii.gz", SPACE)
        on_grid = place_on_grid(atlas, GridSpec.published())
        table = describe_survivors(atlas, on_grid, place_on_tokens(on_grid, (6, 6, 6)))
        assert len(table) == n_regions
        assert (table["n_patches"] > 0).sum() == n_survivors
        assert (table["n_voxels_patches"] <= table["n_voxels_grid"]).all()


def test_real_tables_that_do_not_fit_are_not_believed(shared):
    for name, doubt in [("aal3_166", "they name nothing"), ("schaefer_100_7net", "seems shifted")]:
        atlas = find_atlas(shared / "realdata" / "atlases" / name / "atlas.nii.gz", SPACE)
        assert doubt in atlas.warnings[-1]
        assert atlas.names[1] == "region 1"


def test_templateflow_names_the_regions_of_a_real_atlas(shared):
    table = f"tpl-{SPACE}_atlas-Schaefer2018_desc-200Parcels7Networks_dseg.tsv"
    [table] = [path for path in api.ls(SPACE, extension=".tsv") if path.name == table]
    image = shared / "realdata" / "atlases" / "schaefer_200_7net" / "atlas.nii.gz"
    atlas = find_atlas(image, SPACE, table=table)
    assert len(atlas.names) == 200
    assert atlas.names[1] == "7Networks_LH_Vis_1"
    for region in (1, 100, 101, 200):  # names and the world agree about left and right
        x = nib.affines.apply_affine(atlas.affine, np.argwhere(atlas.labels == region))[:, 0]
        assert atlas.names[region][10:12] == ("LH" if x.mean() < 0 else "RH")


def test_an_atlas_is_read_with_the_names_beside_it(tmp_path, write_atlas):
    labels = np.arange(27, dtype=np.int16).reshape(3, 3, 3) // 9
    path = write_atlas(labels)
    (tmp_path / "atlas-X_dseg.tsv").write_text("index\tname\n1\tmiddle\n2\tlast\n")
    atlas = find_atlas(str(path), SPACE)
    np.testing.assert_array_equal(atlas.labels, labels)
    np.testing.assert_array_equal(atlas.affine, np.diag([2, 2, 2, 1]))
    assert atlas.names == {1: "middle", 2: "last"}
    assert atlas.warnings == ()


def test_an_atlas_of_weights_gives_each_voxel_to_the_largest(write_atlas):
    weights = np.zeros((2, 2, 2, 3), dtype=np.float32)
    weights[0, 0, 0] = [0.1, 0.5, 0.2]
    weights[0, 0, 1] = [0.3, 0.1, 0.3]
    weights[1, 1, 1] = [0, np.nan, 1e-6]
    path = write_atlas(weights, "atlas-X_space-MNI152NLin6Asym_probseg.nii.gz")
    atlas = find_atlas(path, SPACE)
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 0], expected[0, 0, 1], expected[1, 1, 1] = 2, 1, 3
    np.testing.assert_array_equal(atlas.labels, expected)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf, 2.0**24 + 2])
def test_values_that_are_no_numbers_of_regions_are_refused(write_atlas, value):
    values = np.ones((3, 3, 3))
    values[1, 1, 1] = value
    with pytest.raises(DataError, match="Expected an atlas, whole numbers"):
        find_atlas(write_atlas(values), SPACE)


def test_an_empty_atlas_is_refused(write_atlas):
    with pytest.raises(DataError, match="only background"):
        find_atlas(write_atlas(np.zeros((3, 3, 3), dtype=np.uint8)), SPACE)


def test_a_missing_atlas_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.nii"):
        find_atlas(tmp_path / "nowhere.nii", SPACE)


@pytest.mark.parametrize(
    ("name", "doubt"),
    [
        ("atlas-X_dseg.nii.gz", "does not say its space"),
        ("tpl-MNI305_atlas-X_dseg.nii.gz", f"It is in MNI305, the grid in {SPACE}"),
    ],
)
def test_an_atlas_of_another_space_is_doubted(write_atlas, name, doubt):
    atlas = find_atlas(write_atlas(np.ones((3, 3, 3), dtype=np.uint8), name), SPACE)
    assert doubt in atlas.warnings[0]
