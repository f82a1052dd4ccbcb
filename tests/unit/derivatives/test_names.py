"""Names keep everything the source's name says, and never leave the output folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.derivatives.names import (
    MAX_LABEL_LENGTH,
    check_distinct,
    derive_path,
    make_label,
    name_outputs,
)
from neurostorm_bids.errors import DataError, UsageError

OUT = Path("out")
LONG = (
    "sub-01_ses-A_task-rest_acq-mb4_ce-x_rec-y_dir-AP_run-02_part-mag_odd-1.5_"
    "space-MNI152NLin6Asym_res-2_desc-preproc"
)


def name_scan(run, **entities) -> str:
    path = derive_path(
        OUT, run, suffix="embedding", extension=".tsv", entities={**entities, "desc": "scan"}
    )
    return path.as_posix()


def test_every_entity_of_the_source_stays_in_its_order(make_run):
    stem = LONG.removesuffix("desc-preproc")
    assert name_scan(make_run(OUT, LONG)) == (
        f"out/sub-01/ses-A/func/{stem}desc-scan_embedding.tsv"
    )


def test_without_a_session_the_file_lies_below_the_participant(make_run):
    assert name_scan(make_run(OUT, "sub-01_task-rest_space-X")) == (
        "out/sub-01/func/sub-01_task-rest_space-X_desc-scan_embedding.tsv"
    )


@pytest.mark.parametrize(
    ("source", "added", "expected"),
    [
        ("space-X_desc-preproc", {"atlas": "A"}, "space-X_atlas-A_desc-scan"),
        ("space-X_res-2_desc-preproc", {"atlas": "A"}, "space-X_atlas-A_res-2_desc-scan"),
        ("space-X_res-2_desc-preproc", {"res": "3mm"}, "space-X_res-3mm_desc-scan"),
        ("space-X_den-91k", {"res": "3mm", "seg": "S"}, "space-X_seg-S_res-3mm_den-91k_desc-scan"),
        ("desc-preproc_odd-1", {}, "odd-1_desc-scan"),
    ],
)  # fmt: skip
def test_added_entities_stand_where_bids_has_them(make_run, source, added, expected):
    run = make_run(OUT, f"sub-01_task-rest_{source}")
    assert name_scan(run, **added).endswith(f"/sub-01_task-rest_{expected}_embedding.tsv")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("desc-preproc", "scan"), ("desc-denoised", "denoisedScan"), ("res-2", "scan")],
)
def test_another_desc_than_preproc_stays_in_front(make_run, source, expected):
    run = make_run(OUT, f"sub-01_task-rest_{source}")
    assert name_scan(run).endswith(f"_desc-{expected}_embedding.tsv")


@pytest.mark.parametrize("value", ["../../etc", "a/b", "a\\b", "a\0b"])
def test_an_entity_that_could_leave_the_folder_is_refused(make_run, value):
    entities = {"sub": "01", "task": value}
    with pytest.raises(DataError, match="cannot be part of a file name"):
        name_scan(make_run(OUT, entities=entities))


@given(st.text())
def test_a_label_is_letters_and_digits_whatever_the_text(text):
    label = make_label(text, fallback="target")
    assert label.isascii()
    assert label.isalnum()
    assert len(label) <= MAX_LABEL_LENGTH


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("age", "age"),
        ("age group (years)", "ageGroupYears"),
        ("official_sex-v2.1", "officialSexV21"),
        ("Größe", "Groe"),
        ("年齢", "target"),
        ("../../x", "x"),
    ],
)
def test_a_label_keeps_the_words(text, label):
    assert make_label(text, fallback="target") == label


def test_one_model_needs_no_label(make_model, sex):
    (names,) = name_outputs([make_model(target=sex)])
    assert (names.scan, names.clip, names.target) == ("scan", "clip", "sex")


def test_a_model_without_a_head_has_no_name_for_predictions(make_model):
    assert name_outputs([make_model()])[0].target is None


def test_several_models_carry_their_labels(make_model, sex, age):
    first, second = name_outputs([make_model("a_sex", target=sex), make_model("b", target=age)])
    assert (first.scan, first.clip, first.target) == ("scanASex", "clipASex", "sex")
    assert (second.scan, second.clip, second.target) == ("scanB", "clipB", "age")


def test_a_target_that_two_models_share_carries_the_label(make_model, sex):
    models = [make_model("a", target=sex), make_model("b", target=sex), make_model("c")]
    assert [names.target for names in name_outputs(models)] == ["sexA", "sexB", None]


def test_models_of_one_name_are_told_apart_by_their_checksum(make_model):
    models = [make_model("m", sha256="1" * 64), make_model("M", sha256="2" * 64)]
    assert [names.scan for names in name_outputs(models)] == ["scanM11111111", "scanM22222222"]


def test_the_same_model_twice_is_a_mistake(make_model):
    with pytest.raises(UsageError, match="given 2 times"):
        name_outputs([make_model("m"), make_model("m")])


def test_runs_that_differ_in_an_entity_are_distinct(make_run):
    labels = ["sub-01_task-rest", "sub-01_task-rest_run-1", "sub-01_task-rest_desc-denoised"]
    check_distinct(OUT, [make_run(OUT, label) for label in labels])


def test_the_same_run_of_two_datasets_is_a_mistake(make_run, make_dataset):
    runs = [make_run(OUT, dataset=make_dataset(OUT, name)) for name in ("one", "two")]
    with pytest.raises(UsageError, match=r"of two and .* of one would be written to the same file"):
        check_distinct(OUT, runs)


def test_attributions_are_called_after_the_target_or_the_reconstruction(make_model, sex):
    (alone,) = name_outputs([make_model(target=sex)])
    assert alone.attribution == "sex"
    (decoder,) = name_outputs([make_model()])
    assert decoder.attribution == "reconstruction"
    several = name_outputs([make_model("a", sha256="aa" * 32), make_model("b", target=sex)])
    assert [names.attribution for names in several] == ["reconstructionA", "sex"]
