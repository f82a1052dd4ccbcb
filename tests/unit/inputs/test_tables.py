from __future__ import annotations

from neurostorm_bids.inputs.tables import list_table_roots


def test_tables_are_looked_for_in_the_folders_given_then_in_the_raw_dataset_above(tmp_path):
    raw = tmp_path / "raw"
    new, old = raw / "derivatives" / "fmriprep", raw / "derivatives" / "prep" / "fmriprep"
    assert list_table_roots([new, old, new]) == [new, old, raw]
    assert list_table_roots([raw]) == [raw]


def test_a_folder_far_below_derivatives_belongs_to_nobody(tmp_path):
    far = tmp_path / "derivatives" / "a" / "b" / "c"
    assert list_table_roots([far]) == [far]
