"""The file of a run's connectivity: its name, its matrix, and when it counts as finished."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.connectivity import Connectivity, make_spheres
from neurostorm_bids.connectivity.parcellation import Parcellation
from neurostorm_bids.derivatives.connectivity import (
    has_connectivity,
    tabulate_connectivity,
    write_connectivity,
)
from neurostorm_bids.derivatives.names import derive_path
from neurostorm_bids.inputs import BoldRun, SourceDataset

REGIONS = Parcellation(
    name="My atlas:4",
    names=("a", "b", "c", "d"),
    atlas=None,
    centres_mm=np.zeros((4, 3)),
    radii_mm=np.ones(4),
    notes=("A note.",),
)
FOUND = Connectivity(
    values=np.arctanh(np.array([0.5, -0.2, 0.1, 0, 0, 0], dtype=np.float32)),
    is_shown=np.array([True, True, True, False]),
    steps=("averaged",),
)


@pytest.fixture
def run(tmp_path):
    def make(desc="preproc"):
        entities = {"sub": "01", "ses": "A", "task": "rest", "space": "X", "res": "2"}
        return BoldRun(
            path=tmp_path / "in" / "sub-01_bold.nii.gz",
            entities={**entities, "desc": desc},
            space="X",
            repetition_time_s=2.0,
            brain_mask=None,
            confounds=None,
            dataset=SourceDataset(name="fmriprep", path=tmp_path / "in"),
        )

    return make


@pytest.mark.parametrize(
    ("desc", "end"),
    [
        ("preproc", "space-X_seg-MyAtlas4_res-2_stat-pearsoncorrelation_relmat.tsv"),
        ("denoised", "space-X_seg-MyAtlas4_res-2_stat-pearsoncorrelation_desc-denoised_relmat.tsv"),
    ],
)
def test_the_name_holds_all_entities_of_the_run_in_order(run, tmp_path, desc, end):
    path = write_connectivity(
        tmp_path / "out", run(desc), REGIONS, FOUND, configuration_hash="0" * 64
    )
    assert path.name == f"sub-01_ses-A_task-rest_{end}"
    assert path.parent == tmp_path / "out" / "sub-01" / "ses-A" / "func"


def test_a_name_with_our_desc_is_as_before(run, tmp_path):
    path = derive_path(
        tmp_path, run(), suffix="embedding", extension=".tsv", entities={"desc": "scan"}
    )
    assert path.name == "sub-01_ses-A_task-rest_space-X_res-2_desc-scan_embedding.tsv"


def test_the_matrix_is_symmetric_and_every_column_is_declared(run, tmp_path):
    path = write_connectivity(
        tmp_path, run(), REGIONS, FOUND, configuration_hash="0" * 64, warnings=("Beware.",)
    )
    table = pd.read_csv(path, sep="\t", index_col="node")
    assert list(table) == list(table.index) == list("abcd")
    np.testing.assert_allclose(table.iloc[:3, :3], table.iloc[:3, :3].T)
    assert table.loc["b", "a"] == 0.5
    assert table.loc["c", "a"] == -0.2
    assert (np.diag(table)[:3] == 1).all()
    assert table["d"].isna().all()
    assert table.loc["d"].isna().all()
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert {"node", *"abcd"} <= set(sidecar)
    assert sidecar["Warnings"] == ["A note.", "Beware."]
    assert sidecar["NumberOfRegionsNotShown"] == 1


def test_a_file_of_another_configuration_is_not_finished(run, tmp_path):
    write_connectivity(tmp_path, run(), REGIONS, FOUND, configuration_hash="1" * 64)
    for found, expected in (("1", True), ("2", False)):
        is_there = has_connectivity(tmp_path, run(), REGIONS, configuration_hash=found * 64)
        assert is_there is expected
    spheres = make_spheres()
    assert not has_connectivity(tmp_path, run(), spheres, configuration_hash="1" * 64)


@pytest.mark.parametrize("names", [("a", "a"), ("node", "b"), (" ", "b")])
def test_regions_whose_names_cannot_be_columns_are_numbered(names):
    found = Connectivity(np.zeros(1, np.float32), np.ones(2, bool), ())
    columns = tabulate_connectivity(names, found)
    assert [column.name for column in columns] == ["node", "region1", "region2"]
