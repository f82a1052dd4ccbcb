"""Tables of region names: found where they belong, and doubted where they do not fit."""

import pytest

from neurostorm_bids.errors import DataError, MissingFileError
from neurostorm_bids.grid.labels import find_label_table, match_names, read_label_table

IMAGE = "tpl-MNI152NLin6Asym_res-02_atlas-Schaefer2018_desc-200Parcels7Networks_dseg.nii.gz"
INHERITED = "tpl-MNI152NLin6Asym_atlas-Schaefer2018_desc-200Parcels7Networks_dseg.tsv"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a table of a name."""

    def write(name, text="index\tname\n1\tleft\n2\tright\n"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def doubt(regions, rows):
    names, (warning,) = match_names(regions, rows, table="labels.tsv")
    assert names == {region: f"region {region}" for region in sorted(regions)}
    assert "labels.tsv" in warning
    return warning


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "index\tname\tcolor\n1\tleft\t#fff\n7\tright side\t#000\n"),
        ("a.tsv", "\ufeffindex\tname\n1\tleft\n7\tright side\n"),
        ("a.tsv", "Component\tDifumo_names\tGM\n1\tleft\t0.6\n7\tright side\t0.7\n"),
        ("a.csv", "name,Index\nleft,1\nright side,7\n"),
        ("a.csv", 'index,label\n1,left\n7,"right side "\n'),
    ],
)
def test_index_and_name_are_read_from_whatever_columns_hold_them(write, name, text):
    assert read_label_table(write(name, text)) == [(1, "left"), (7, "right side")]


def test_text_has_index_and_name_at_the_start_of_each_line(write):
    path = write("AAL3v1.nii.txt", "1 Precentral_L 1\n2 Precentral_R 2\n\n")
    assert read_label_table(path) == [(1, "Precentral_L"), (2, "Precentral_R")]


@pytest.mark.parametrize(
    "text",
    [
        *("", "index\n1\n", "name\nleft\n", "index\tname\none\tleft\n", "no table at all"),
        "name\tindex\nleft\n",
    ],
)
def test_what_is_no_table_is_refused(write, text):
    with pytest.raises(DataError, match=r"a\.tsv is not a table of regions"):
        read_label_table(write("a.tsv", text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"\xff\xfe\x00index")
    with pytest.raises(DataError, match="not a table of regions"):
        read_label_table(tmp_path / "a.tsv")


def test_a_missing_table_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingFileError, match=r"a\.tsv"):
        read_label_table(tmp_path / "a.tsv")


@pytest.mark.parametrize(
    ("image", "table"),
    [
        ("atlas.nii.gz", "atlas.tsv"),
        ("atlas.nii", "atlas.csv"),
        ("AAL3v1.nii.gz", "AAL3v1.nii.txt"),
        ("atlas.nii.gz", "labels.csv"),
        (IMAGE, IMAGE.replace(".nii.gz", ".tsv")),
        (IMAGE, INHERITED),
        (IMAGE, "atlas-Schaefer2018_dseg.tsv"),
    ],
)
def test_a_table_is_found_beside_its_image(tmp_path, write, image, table):
    path = write(table)
    assert find_label_table(tmp_path / image) == path


@pytest.mark.parametrize(
    "table",
    [
        "other.tsv",
        INHERITED.replace("200", "100"),
        INHERITED.replace("dseg", "probseg"),
        INHERITED.replace("atlas-", "hemi-L_atlas-"),
    ],
)
def test_the_table_of_another_image_is_not_taken(tmp_path, write, table):
    write(table)
    assert find_label_table(tmp_path / IMAGE) is None


def test_the_table_with_more_of_the_image_in_its_name_is_taken(tmp_path, write):
    write("atlas-Schaefer2018_dseg.tsv")
    nearest = write(INHERITED)
    write("labels.tsv")
    assert find_label_table(tmp_path / IMAGE) == nearest


def test_an_empty_file_is_no_table(tmp_path, write):
    write("atlas.tsv", "")
    assert find_label_table(tmp_path / "atlas.nii.gz") is None


def test_names_that_fit_are_used():
    rows = [(0, "Background"), (1, "left"), (2, "gone in resampling"), (5, "right")]
    assert match_names([5, 1], rows, table="labels.tsv") == ({1: "left", 5: "right"}, ())


def test_a_table_whose_background_is_a_region_is_doubted():
    rows = [(1, "Background"), (2, "left"), (3, "right")]
    assert "1 in the image are regions, not 'Background'" in doubt([1, 2], rows)


def test_a_table_that_counts_from_0_is_doubted():
    warning = doubt([1, 2], [(0, "left"), (1, "right")])
    assert "the table counts from 0" in warning
    assert "1 regions of the image are not in it (2)" in warning


def test_a_table_that_leaves_regions_out_is_doubted():
    warning = doubt(range(1, 9), [(1, "left"), (2, "right")])
    assert "6 regions of the image are not in it (3, 4, 5, 6, 7, …)" in warning


@pytest.mark.parametrize("prefix", ["ROI_", "", "region ", "Parcel-"])
def test_a_table_without_real_names_is_doubted(prefix):
    rows = [(1, f"{prefix}0"), (2, f"{prefix}1")]
    assert f"they name nothing ('{prefix}0', '{prefix}1')" in doubt([1, 2], rows)


def test_a_table_that_names_a_region_twice_is_doubted():
    assert "more than one row" in doubt([1], [(1, "left"), (1, "right")])


def test_without_a_table_regions_are_called_by_their_numbers():
    assert "there are none" in doubt([3, 4], ())
