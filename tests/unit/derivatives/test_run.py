"""The files of a run: complete, traceable to what they come from, finished or not there."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import (
    hash_configuration,
    is_finished,
    name_outputs,
    write_run,
)

STEM = "sub-01_task-rest_space-MNI152NLin6Asym_desc-"


@pytest.fixture
def written(  # noqa: PLR0917 - fixtures
    output, source, make_run, make_model, make_prediction, sex
):
    """Return a function that writes one run with one model, and one that asks."""
    run, model = make_run(source), make_model(target=sex)
    (names,) = name_outputs([model])

    def write(configuration_hash="h1", seed=0):
        return write_run(
            output,
            run,
            make_prediction(sex, seed=seed),
            model=model,
            names=names,
            configuration_hash=configuration_hash,
        )

    def finished(configuration_hash="h1"):
        return is_finished(output, run, names=names, configuration_hash=configuration_hash)

    return write, finished


def read_sidecar(output: Path, desc: str, suffix: str = "embedding") -> dict:
    return json.loads((output / "sub-01/func" / f"{STEM}{desc}_{suffix}.json").read_text())


def snapshot(output: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_run_with_a_head_is_six_files(output, written):
    write, _ = written
    paths = write()
    expected = {
        f"{STEM}{what}{extension}"
        for what in ("scan_embedding", "clip_embedding", "sex_predictions")
        for extension in (".tsv", ".json")
    }
    assert {path.name for path in paths} == expected == set(snapshot(output))


def test_a_run_without_a_head_is_four_files(output, source, make_run, make_model, make_prediction):
    model = make_model()
    paths = write_run(
        output,
        make_run(source),
        make_prediction(),
        model=model,
        names=name_outputs([model])[0],
        configuration_hash="h",
    )
    assert len(paths) == len(snapshot(output)) == 4


def test_every_sidecar_says_where_the_numbers_come_from(output, written):
    write, _ = written
    write()
    for desc, suffix in (("scan", "embedding"), ("clip", "embedding"), ("sex", "predictions")):
        sidecar = read_sidecar(output, desc, suffix)
        assert sidecar["Sources"] == [
            f"bids:fmriprep:sub-01/func/{STEM}preproc_bold.nii.gz",
            f"bids:fmriprep:sub-01/func/{STEM}preproc_mask.nii.gz",
        ]
        assert sidecar["SoftwareVersion"] == __version__
        assert (sidecar["ModelName"], sidecar["ModelSHA256"]) == ("base", "ab" * 32)
        assert sidecar["ModelSource"] == "base.ckpt"
        assert sidecar["ConfigurationHash"] == "h1"
        assert sidecar["Grid"]["shape"] == [12, 12, 12]
        assert sidecar["Grid"]["repetition_time_s"] == 0.8
        assert sidecar["SourceRepetitionTime"] == 2.0
        assert (sidecar["NumberOfVolumes"], sidecar["NumberOfClips"]) == (50, 3)
        assert (sidecar["ClipLength"], sidecar["ClipDuration"]) == (20, 16.0)
        assert sidecar["LastClipOverlap"] == 8.0
        assert sidecar["Statistics"]["mean"] == 900.0
        assert sidecar["BrainCoverage"] == 0.98
        assert sidecar["PreparationSteps"] == ["resampled to 2 mm", "z-scored"]


def test_a_warning_that_two_rooms_give_is_told_once(output, written):
    write, _ = written
    write()
    assert read_sidecar(output, "scan")["Warnings"] == [
        "The header says 1 s.",
        "2 % of the brain lies outside.",
    ]


@pytest.mark.parametrize(
    ("desc", "suffix"), [("scan", "embedding"), ("clip", "embedding"), ("sex", "predictions")]
)
def test_every_column_is_declared(output, written, desc, suffix):
    write, _ = written
    write()
    table = pd.read_csv(output / "sub-01/func" / f"{STEM}{desc}_{suffix}.tsv", sep="\t")
    sidecar = read_sidecar(output, desc, suffix)
    assert all("Description" in sidecar[column] for column in table.columns)


def test_the_target_is_in_the_sidecar_of_the_predictions(output, written, sex):
    write, _ = written
    write()
    assert read_sidecar(output, "sex", "predictions")["Target"] == sex.to_dict()


def test_sources_outside_of_the_dataset_are_left_out(
    output, source, make_run, make_model, make_prediction
):
    run = make_run(source, brain_mask=Path("/elsewhere/mask.nii.gz"))
    model = make_model()
    write_run(
        output,
        run,
        make_prediction(),
        model=model,
        names=name_outputs([model])[0],
        configuration_hash="h",
    )
    assert len(read_sidecar(output, "scan")["Sources"]) == 1


def test_no_file_holds_an_absolute_path(output, source, written):
    write, _ = written
    write()
    assert not any(str(source.parent).encode() in text for text in snapshot(output).values())


def test_statistics_that_are_not_finite_are_null(
    output, source, make_run, make_model, make_prediction
):
    prediction, model = make_prediction(), make_model()
    object.__setattr__(prediction.series.statistics, "minimum", np.nan)
    write_run(
        output,
        make_run(source),
        prediction,
        model=model,
        names=name_outputs([model])[0],
        configuration_hash="h",
    )
    assert read_sidecar(output, "scan")["Statistics"]["minimum"] is None


def test_every_file_is_told_in_the_log(output, written, caplog):
    write, _ = written
    with caplog.at_level(logging.INFO, logger="neurostorm_bids"):
        paths = write()
    assert [record.args[0] for record in caplog.records] == [p.relative_to(output) for p in paths]


def test_a_run_is_finished_after_writing_and_with_the_same_configuration_only(written):
    write, finished = written
    assert not finished()
    write()
    assert finished()
    assert not finished("h2")


@pytest.mark.parametrize("position", range(6))
def test_a_run_that_misses_a_file_is_not_finished(written, position):
    write, finished = written
    write()[position].unlink()
    assert not finished()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"ConfigurationHash": "h0"}', "\xff"])
def test_a_run_with_a_spoilt_sidecar_is_not_finished(written, text):
    write, finished = written
    write()[1].write_bytes(text.encode("latin-1"))
    assert not finished()


def test_the_same_prediction_gives_the_same_bytes(output, written):
    write, _ = written
    write()
    first = snapshot(output)
    write()
    assert snapshot(output) == first


@pytest.mark.parametrize("old_hash", ["h1", "h2"], ids=["same", "other"])
@pytest.mark.parametrize("step", range(16))
def test_killed_at_any_step_a_run_is_old_or_unfinished_or_new(
    output, written, killed_at, step, old_hash
):
    write, finished = written
    write("h2", seed=1)
    new = snapshot(output)
    write(old_hash, seed=0)
    old = snapshot(output)
    with killed_at(step) as kill:
        write("h2", seed=1)
    assert kill.happened == (step < 15)
    found = snapshot(output)
    if finished("h2"):
        assert found == new or (found == old and old_hash == "h2")
    if finished("h1"):
        assert found == old
    write("h2", seed=1)
    assert snapshot(output) == new
    assert finished("h2")


def test_after_a_kill_the_next_writing_cleans_up(output, written, killed_at):
    write, _ = written
    with killed_at(0):
        write()
    assert any(path.name.startswith(".") for path in output.rglob("*"))
    write()
    assert not any(path.name.startswith(".") for path in output.rglob("*"))


def test_the_hash_does_not_depend_on_the_order_of_the_keys():
    assert hash_configuration({"a": 1, "b": [1, 2]}) == hash_configuration({"b": [1, 2], "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": True}, {"a": None}, {"b": 1}, {}])
def test_the_hash_depends_on_every_value(other):
    assert hash_configuration(other) != hash_configuration({"a": 1})


def test_the_hash_is_the_same_in_every_process_and_version():
    assert hash_configuration({"a": [1, 0.8, None, "é"]}) == (
        "14ceb2446c273b4a185ac3ae9807b9cbe7827506055374509d798fb9bb67d7bb"
    )


def test_what_has_no_canonical_text_is_not_hashed():
    with pytest.raises(ValueError, match="not JSON compliant"):
        hash_configuration({"a": float("nan")})
