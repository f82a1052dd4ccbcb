"""Tables over participants and runs."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest

from neurostorm_bids.group.collect import collect_results
from neurostorm_bids.group.phenotype import name_phenotypes, tabulate_participants
from neurostorm_bids.group.sources import find_sources, read_motion
from neurostorm_bids.group.tables import format_parquet, tabulate_embeddings, tabulate_quality


def cells(columns):
    return {column.name: list(column.cells) for column in columns}


def test_a_participants_value_is_the_mean_over_runs_with_its_spread(study):
    study.add("sub-01_ses-A_task-rest", value=20.0)
    study.add("sub-01_ses-B_task-rest", value=24.0)
    study.add("sub-02_task-rest", value=50.0)
    (predictions,) = collect_results(study.options()).predictions
    found = cells(tabulate_participants(predictions))
    assert found["participant_id"] == ["sub-01", "sub-02"]
    assert found["value"] == [22.0, 50.0]
    assert found["spread"] == [
        pytest.approx(2 * np.sqrt(2), rel=1e-6),
        pytest.approx(np.nan, nan_ok=True),
    ]
    assert found["n_runs"] == [2, 1]


def test_a_participants_label_is_that_of_the_mean_probabilities(study):
    for session, male in (("A", 0.9), ("B", 0.4), ("C", 0.4)):
        study.add(f"sub-01_ses-{session}_task-rest", probabilities=(1 - male, male))
    (predictions,) = collect_results(study.options()).predictions
    found = cells(tabulate_participants(predictions))
    assert found["label"] == ["male"]
    assert found["probability_male"] == [pytest.approx(1.7 / 3, rel=1e-6)]
    assert found["spread"] == [pytest.approx(np.std([0.9, 0.4, 0.4], ddof=1), rel=1e-6)]


def add_column(folder, name, **values):
    """Add columns to the row of the run, in the one table of predictions of the folder."""
    (path,) = folder.glob(f"{name}*_predictions.tsv")
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    for column, value in values.items():
        lines[0].append(column)
        for line in lines[1:]:
            line.append(value if line[0] == "run" else "n/a")
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")


def test_intervals_and_novelty_of_calibrated_runs_are_averaged(study):
    for session, low, novelty in (("A", "10", "1.5"), ("B", "14", "2.5")):
        folder = study.add(f"sub-01_ses-{session}_task-rest", value=20.0)
        high = str(int(low) + 20)
        add_column(folder, "", interval_low=low, interval_high=high, novelty=novelty)
    study.add("sub-02_task-rest", value=50.0)
    (predictions,) = collect_results(study.options()).predictions
    found = cells(tabulate_participants(predictions))
    assert found["interval_low"] == [12.0, pytest.approx(np.nan, nan_ok=True)]
    assert found["interval_high"][0] == 32.0
    assert found["novelty"][0] == 2.0
    assert "prediction_set" not in found


def test_a_class_in_the_set_of_any_run_is_in_that_of_the_participant(study):
    for session, names in (("A", "female"), ("B", "female|male"), ("C", "n/a")):
        folder = study.add(f"sub-01_ses-{session}_task-rest", probabilities=(0.6, 0.4))
        add_column(folder, "", prediction_set=names)
    study.add("sub-02_task-rest", probabilities=(0.6, 0.4))
    (predictions,) = collect_results(study.options()).predictions
    found = cells(tabulate_participants(predictions))
    assert found["prediction_set"] == ["female|male", None]
    assert "interval_low" not in found


def test_without_a_calibration_no_column_speaks_of_trust(study):
    study.add("sub-01_task-rest", value=20.0)
    (predictions,) = collect_results(study.options()).predictions
    found = cells(tabulate_participants(predictions))
    assert list(found) == ["participant_id", "value", "spread", "n_runs"]


def test_tables_of_one_target_by_two_models_have_names_of_their_own(study):
    study.add("sub-01_task-rest", value=20.0, model="one", label="One")
    study.add("sub-01_task-rest", value=21.0, model="two", label="Two")
    study.add("sub-01_task-rest", probabilities=(0.5, 0.5), model="one")
    names = name_phenotypes(collect_results(study.options()).predictions)
    assert names == ["neurostorm_ageOne", "neurostorm_sex", "neurostorm_ageTwo"]


def test_models_of_the_same_name_are_told_apart_by_their_checksums(study):
    study.add("sub-01_task-rest", value=20.0, label="A", ModelSHA256="a" * 64)
    study.add("sub-01_task-rest", value=21.0, label="B", ModelSHA256="b" * 64)
    names = name_phenotypes(collect_results(study.options()).predictions)
    assert names == ["neurostorm_ageOneaaaaaaaa", "neurostorm_ageOnebbbbbbbb"]


def test_embeddings_of_models_with_fewer_features_are_padded_with_nothing(study):
    study.add("sub-01_task-rest", embedding=[0.1, 0.2, 0.3], model="one", label="One")
    study.add("sub-01_task-rest", embedding=[7.0], model="two", label="Two")
    columns = tabulate_embeddings(collect_results(study.options()).embeddings)
    table = pq.read_table(BytesIO(format_parquet(columns))).to_pydict()
    assert table["model"] == ["one", "two"]
    assert table["dim000"] == [pytest.approx(0.1), 7.0]
    assert table["dim002"] == [pytest.approx(0.3), None]
    assert table["session"] == [None, None]


def test_parquet_and_tsv_hold_the_same_numbers(study):
    vector = np.random.default_rng(0).normal(size=16).astype(np.float32)
    study.add("sub-01_task-rest", embedding=vector)
    columns = tabulate_embeddings(collect_results(study.options()).embeddings)
    table = pq.read_table(BytesIO(format_parquet(columns)))
    stored = np.array([table.column(f"dim{i:03d}")[0].as_py() for i in range(16)])
    np.testing.assert_array_equal(stored.astype(np.float32), vector)


def test_quality_says_what_is_known_and_no_more(study):
    study.add("sub-01_task-rest", embedding=[1.0], fd=0.25, Warnings=["odd", "odder"])
    study.add("sub-02_task-rest", embedding=[1.0], NumberOfVolumes="many", BrainCoverage=None)
    results = collect_results(study.options()).results
    sources = find_sources(study.options())
    found = cells(tabulate_quality(results, [read_motion(one, sources) for one in results]))
    assert found["mean_fd"] == [0.25, pytest.approx(np.nan, nan_ok=True)]
    assert found["duration"] == [80.0, None]
    assert found["n_volumes"] == [100, None]
    assert found["n_warnings"] == [2, 0]
    assert np.isnan(found["brain_coverage"][1])


def test_confounds_are_found_through_the_links_of_the_output(study, tmp_path):
    folder = study.add("sub-01_task-rest", embedding=[1.0], fd=0.25)
    description = study.output / "dataset_description.json"
    description.write_text('{"DatasetLinks": {"fmriprep": "../fmriprep", "x": "https://x.org"}}')
    raw = tmp_path / "raw"
    raw.mkdir()
    options = study.options()
    options = type(options)(bids_dir=raw, output_dir=study.output)
    (result,) = collect_results(options).results
    sources = find_sources(options)
    assert read_motion(result, sources) == 0.25
    assert sources.table_roots == [raw, study.source.resolve()]
    assert folder.is_dir()


@pytest.mark.parametrize("path", ["../secret/x_bold.nii.gz", "/secret/x_bold.nii.gz"])
def test_a_source_outside_of_its_dataset_is_not_followed(study, path):
    secret = study.source.parent / "secret"
    secret.mkdir()
    (secret / "sub-01_desc-confounds_timeseries.tsv").write_text("framewise_displacement\n9\n")
    path = path.replace("x_", "sub-01_").replace("/secret", str(secret), path[0] == "/")
    study.add("sub-01_task-rest", embedding=[1.0], Sources=[f"bids:fmriprep:{path}"])
    (result,) = collect_results(study.options()).results
    assert read_motion(result, find_sources(study.options())) is None
