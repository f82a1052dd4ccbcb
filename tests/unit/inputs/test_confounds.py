"""Confounds become regressors, censored volumes and dropped ones; whatever is odd is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.inputs import BoldRun, Cleaning, SourceDataset
from neurostorm_bids.inputs.cleaning import parse_denoise, parse_dummy_scans
from neurostorm_bids.inputs.confounds import read_nuisance
from neurostorm_bids.inputs.old_confounds import modernise_columns

AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
T = 60


def write_table(path, table):
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


@pytest.fixture
def table():
    """Six motion parameters with derivatives and squares, tissues, cosines, displacement."""
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=T) for name in (*AXES, "csf", "white_matter")}
    frame = pd.DataFrame(columns)
    for name in list(frame):
        frame[f"{name}_derivative1"] = frame[name].diff()
        frame[f"{name}_power2"] = frame[name] ** 2
        frame[f"{name}_derivative1_power2"] = frame[f"{name}_derivative1"] ** 2
    frame["cosine00"] = np.cos(np.arange(T) / 10)
    frame["global_signal"] = rng.normal(size=T)
    frame["std_dvars"] = 1.0
    frame["framewise_displacement"] = [np.nan, *np.full(T - 1, 0.1)]
    frame["framewise_displacement"] = frame["framewise_displacement"].where(
        ~frame.index.isin([20, 21, 40]), 0.9
    )
    for number in range(3):
        frame[f"non_steady_state_outlier{number:02}"] = (frame.index == number).astype(int)
    return frame


@pytest.fixture
def read(tmp_path):
    """Return a function that reads the nuisance of a run with a given table."""

    def read_one(table, *, n_volumes=T, **cleaning):
        path = write_table(tmp_path / "sub-01_desc-confounds_timeseries.tsv", table)
        run = BoldRun(
            path=tmp_path / "sub-01_bold.nii.gz",
            entities={"sub": "01"},
            space="MNI152NLin6Asym",
            repetition_time_s=2.0,
            brain_mask=None,
            confounds=path,
            dataset=SourceDataset(name="fmriprep", path=tmp_path),
            cleaning=Cleaning(**cleaning),
        )
        return read_nuisance(run, n_volumes=n_volumes)

    return read_one


def test_the_simple_strategy_is_that_of_nilearn(table, read):
    found = read(table, denoise="simple")
    assert found.regressors.shape == (T, 24 + 2 + 1)
    assert set(found.names) >= {*AXES, "csf", "white_matter", "cosine00", "rot_z_power2"}
    assert np.isfinite(found.regressors).all()
    assert found.is_censored is None
    assert np.flatnonzero(~found.is_fitted).tolist() == [0, 1, 2]
    assert "3 volumes that the confounds mark as not in steady state were kept" in found.notes[0]


def test_scrubbing_censors_what_nilearn_scrubs_and_fits_without_it(table, read):
    found = read(table, denoise="scrubbing")
    censored = np.flatnonzero(found.is_censored)
    assert {20, 21, 40} <= set(censored.tolist())
    assert not found.is_fitted[censored].any()
    assert not found.is_censored[:3].any()


def test_arguments_of_load_confounds_can_be_given_as_json(table, read, tmp_path):
    text = '{"strategy": ["motion", "global_signal"], "motion": "basic"}'
    path = tmp_path / "my.json"
    path.write_text(text)
    assert parse_denoise(text) == parse_denoise(str(path))
    found = read(table, denoise=parse_denoise(text))
    assert set(found.names) == {*AXES, "global_signal"}


def test_aroma_components_are_regressed_out_of_the_series_that_aroma_did_not_clean(table, read):
    table["aroma_motion_02"] = np.sin(np.arange(T))
    assert "aroma_motion_02" in read(table, denoise="ica_aroma").names


def test_compcor_takes_the_components_that_the_sidecar_describes(table, read, tmp_path):
    meta = {}
    for number in range(3):
        name = f"a_comp_cor_{number:02}"
        table[name] = np.sin(np.arange(T) * (number + 1) / 7)
        meta[name] = {"Method": "aCompCor", "Mask": "combined", "Retained": True}
    path = tmp_path / "sub-01_desc-confounds_timeseries.json"
    path.write_text(json.dumps(meta))
    assert {"a_comp_cor_00", "a_comp_cor_02"} <= set(read(table, denoise="compcor").names)
    path.unlink()
    with pytest.raises(DataError, match="--denoise compcor cannot be done"):
        read(table, denoise="compcor")


@pytest.mark.parametrize(
    "sidecar", [f'{{"a": {"[" * 5000}{"]" * 5000}}}', "[1, 2]", '{"a_comp_cor_00": 3}', "{", "null"]
)
def test_a_sidecar_that_is_none_is_an_error(table, read, tmp_path, sidecar):
    table["a_comp_cor_00"] = 0.5
    (tmp_path / "sub-01_desc-confounds_timeseries.json").write_text(sidecar)
    with pytest.raises(DataError, match="--denoise compcor cannot be done"):
        read(table, denoise="compcor")


def test_another_number_of_rows_than_volumes_is_an_error_with_both_numbers(table, read):
    for cleaning in ({"denoise": "simple"}, {"fd_threshold_mm": 0.5}, {"dummy_scans": "auto"}):
        with pytest.raises(DataError, match=r"each of the 61 volumes .* found 60 rows"):
            read(table, n_volumes=61, **cleaning)


def test_volumes_above_the_threshold_are_censored_and_the_first_is_not(table, read):
    found = read(table, fd_threshold_mm=0.5)
    assert np.flatnonzero(found.is_censored).tolist() == [20, 21, 40]
    assert found.regressors is None
    assert not read(table, fd_threshold_mm=1.0).is_censored.any()


def test_the_volumes_not_in_steady_state_at_the_beginning_are_dropped(table, read):
    table["non_steady_state_outlier03"] = (table.index == 50).astype(int)
    found = read(table, dummy_scans="auto")
    assert found.n_dummy == 3
    assert "1 volumes" in found.notes[0]
    assert read(table, dummy_scans=5).n_dummy == 5
    without = table[[name for name in table if "steady" not in name]]
    assert read(without, dummy_scans="auto").n_dummy == 0


def test_dropping_all_volumes_is_an_error(table, read):
    with pytest.raises(DataError, match="59 volumes were to be dropped"):
        read(table, dummy_scans=59)


def test_more_regressors_than_volumes_are_an_error(table, read):
    with pytest.raises(DataError, match=r"27 confounds .* only 17 of its volumes"):
        read(table.iloc[:20], n_volumes=20, denoise="simple")


def test_a_column_that_is_missing_is_named(table, read):
    with pytest.raises(DataError, match="framewise_displacement"):
        read(table.drop(columns="framewise_displacement"), fd_threshold_mm=0.5)
    with pytest.raises(DataError, match="found none"):
        read(table.assign(framewise_displacement="n/a"), fd_threshold_mm=0.5)


def test_missing_displacement_is_told_but_for_the_first_volumes(read, table):
    before = read(table, fd_threshold_mm=0.5).notes
    table.loc[[20, 30], "framewise_displacement"] = np.nan
    found = read(table, fd_threshold_mm=0.5)
    assert np.flatnonzero(found.is_censored).tolist() == [21, 40]
    (note,) = set(found.notes) - set(before)
    assert note.startswith("2 volumes have no framewise displacement")
    with pytest.raises(DataError, match=r"--denoise simple cannot be done .*rot_x"):
        read(table.drop(columns="rot_x"), denoise="simple")


def test_holes_are_filled_with_the_mean_and_told(table, read):
    table.loc[30, "csf"] = np.nan
    found = read(table, denoise="simple")
    at = found.names.index("csf")
    others = np.delete(found.regressors[:, at], 30)
    assert found.regressors[30, at] == pytest.approx(others.mean())
    assert "Missing values in the confounds csf" in found.notes[-1]


def test_a_table_of_fmriprep_1_0_is_read(table, read):
    old = dict(
        zip([*AXES, "csf", "white_matter"], ["X", "Y", "Z", "RotX", "RotY", "RotZ"], strict=False)
    )
    names = {**old, "csf": "CSF", "white_matter": "WhiteMatter", "cosine00": "Cosine00"}
    names |= {"framewise_displacement": "FramewiseDisplacement", "std_dvars": "stdDVARS"}
    names |= {f"non_steady_state_outlier0{n}": f"NonSteadyStateOutlier0{n}" for n in range(3)}
    today = read(table, denoise="simple", fd_threshold_mm=0.5, dummy_scans="auto")
    found = read(
        table[list(names)].rename(columns=names),
        denoise="simple",
        fd_threshold_mm=0.5,
        dummy_scans="auto",
    )
    assert found.names == today.names
    assert found.n_dummy == today.n_dummy
    np.testing.assert_array_equal(found.is_censored, today.is_censored)
    np.testing.assert_allclose(found.regressors, today.regressors, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "strategies"),
    [
        ("nilearn_test-v21_desc-confounds_timeseries", ("simple", "compcor")),
    ],
)
def test_real_tables_are_read_by_all_strategies(name, strategies, shared, tmp_path):
    path = shared / "realdata" / "confounds" / f"{name}.tsv"
    n_volumes = len(path.read_text().splitlines()) - 1
    for strategy in strategies:
        run = BoldRun(
            path=Path("bold.nii.gz"),
            entities={"sub": "01"},
            space="MNI152NLin6Asym",
            repetition_time_s=2.0,
            brain_mask=None,
            confounds=path,
            dataset=SourceDataset(name="fmriprep", path=tmp_path),
            cleaning=Cleaning(denoise=strategy, dummy_scans="auto"),
        )
        found = read_nuisance(run, n_volumes=n_volumes)
        assert found.regressors.shape[0] == n_volumes
        assert np.isfinite(found.regressors).all()


def test_a_table_of_today_is_left_as_it_is(table):
    columns = {name: ["1"] for name in table}
    assert modernise_columns(columns) == columns


@pytest.mark.parametrize("text", ["simple", "Simple", "SIMPLE"])
def test_a_strategy_is_read_in_any_case(text):
    assert parse_denoise(text) == "simple"


@pytest.mark.parametrize(
    "text",
    [
        *("36P", "[]", '{"motion": "full"}', "{", "absent.json", "[" * 9000),
        *('{"strategy": []}', '{"strategy": "motion"}', '{"strategy": [1]}'),
    ],
)
def test_what_is_no_strategy_is_refused(text):
    with pytest.raises(UsageError, match="load_confounds"):
        parse_denoise(text)


@pytest.mark.parametrize("text", ["-1", "two", "1.5", ""])
def test_what_is_no_number_of_volumes_is_refused(text):
    with pytest.raises(UsageError, match="--dummy-scans is auto or a number"):
        parse_dummy_scans(text)


@pytest.mark.parametrize("fd", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_is_a_number_above_zero(fd):
    with pytest.raises(UsageError, match="--fd-threshold"):
        Cleaning(fd_threshold_mm=fd)


def test_what_is_done_to_every_run_is_told_in_sentences():
    assert Cleaning().tell() == []
    told = Cleaning(denoise="simple", dummy_scans="auto", fd_threshold_mm=0.5).tell()
    assert told == [
        "Volumes dropped at the beginning of every run: not in steady state.",
        "Confounds were regressed out: simple, means kept.",
        "Volumes with a framewise displacement above 0.5 mm were censored.",
    ]
