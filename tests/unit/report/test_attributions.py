from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.report.attributions import draw_attribution, find_attributions

from .conftest import GRID

ENTITIES = {"sub": "01", "task": "rest", "space": "MNI152NLin6Asym", "desc": "preproc"}
STEM = "sub-01_task-rest_space-MNI152NLin6Asym"


@pytest.fixture
def write_attribution(tmp_path):
    def write(rows, *, desc="sex", with_map=True, stem=STEM):
        table = tmp_path / f"{stem}_atlas-Toy_desc-{desc}_attribution.tsv"
        lines = ["index\tname\tattribution", *("\t".join(map(str, row)) for row in rows)]
        table.write_text("\n".join(lines) + "\n")
        about = {"Description": "What drove it.", "Method": "occlusion", "Units": "logit"}
        table.with_suffix(".json").write_text(json.dumps(about))
        if with_map:
            values = np.zeros((*GRID.shape, 1), dtype="f4")
            values[6:9, 12, 12] = 2
            image = nib.Nifti1Image(values, GRID.affine_matrix)
            nib.save(image, tmp_path / f"{stem}_res-8mm_desc-{desc}Attribution_bold.nii.gz")
        return table

    return write


def test_the_files_of_a_run_are_found_and_others_are_not(tmp_path, write_attribution):
    write_attribution([(1, "A", 0.5)])
    write_attribution([(1, "A", 0.5)], desc="age", with_map=False)
    write_attribution([(1, "A", 0.5)], stem=STEM.replace("rest", "nback"))
    sex, age = sorted(find_attributions(tmp_path, ENTITIES), key=lambda one: one.name != "sex")
    assert (sex.name, age.name) == ("sex", "age")
    assert sex.image.name == f"{STEM}_res-8mm_desc-sexAttribution_bold.nii.gz"
    assert age.image is None
    assert list(find_attributions(tmp_path / "absent", ENTITIES)) == []


def test_a_table_has_the_map_of_its_own_atlas_or_none(tmp_path, write_attribution):
    table = write_attribution([(1, "A", 0.5)])
    plain = tmp_path / f"{STEM}_res-8mm_desc-sexAttribution_bold"
    table.with_name(table.name.replace("Toy", "other")).write_bytes(table.read_bytes())
    plain.with_suffix(".json").write_text(json.dumps({"Atlas": "atlas-Toy_dseg"}))

    def find():
        found = find_attributions(tmp_path, ENTITIES)
        return {one.atlas: one.image and one.image.name for one in found}

    assert find() == {"Toy": f"{plain.name}.nii.gz", "other": None}
    own = f"{STEM}_res-8mm_desc-sexOtherAttribution_bold.nii.gz"
    (tmp_path / own).touch()
    assert find() == {"Toy": f"{plain.name}.nii.gz", "other": own}


@pytest.mark.parametrize("with_map", [True, False])
def test_the_strongest_regions_of_either_sign_are_named_first(
    tmp_path, write_attribution, with_map
):
    rows = [(n, f"R{n}", n / 100) for n in range(1, 30)] + [(30, "Low", -9), (31, "None", "n/a")]
    write_attribution(rows, with_map=with_map)
    (files,) = find_attributions(tmp_path, ENTITIES)
    picture = draw_attribution(files)
    assert "The strongest: Low, R29, R28." in picture.alt
    assert "What drove it." in picture.caption
    assert b"attribution (logit)" in picture.content
    assert b"R3<" not in picture.content


def test_a_map_of_nothing_is_drawn(tmp_path, write_attribution):
    write_attribution([(1, "A", 0.0)])
    (files,) = find_attributions(tmp_path, ENTITIES)
    nib.save(nib.Nifti1Image(np.zeros(GRID.shape, dtype="f4"), GRID.affine_matrix), files.image)
    assert draw_attribution(files).content.startswith(b"<?xml")


def test_a_table_without_numbers_is_an_error(tmp_path, write_attribution):
    write_attribution([(1, "A", "n/a")])
    (files,) = find_attributions(tmp_path, ENTITIES)
    with pytest.raises(DataError, match="found none"):
        draw_attribution(files)
