from __future__ import annotations

import pytest

from neurostorm_bids.derivatives.attribution import label_atlas


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("AAL3", "AAL3"),
        ("Schaefer2018:200Parcels7Networks", "Schaefer2018200Parcels7Networks"),
        ("tpl-MNI152NLin6Asym_res-02_atlas-HOCPA_desc-th25_dseg", "HOCPATh25"),
        ("atlas_space-MNI152NLin6Asym_dseg", "atlas"),
        ("space-MNI152NLin6Asym_dseg", "spaceMNI152NLin6AsymDseg"),
        ("my own/../atlas", "myOwnAtlas"),
    ],
)
def test_an_atlas_has_a_label_that_is_part_of_a_file_name(name, label):
    assert label_atlas(name) == label
