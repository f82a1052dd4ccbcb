"""Which results are read, and what becomes of the others."""

from __future__ import annotations

import json

import pytest

from neurostorm_bids.errors import DataError, SelectionError, UsageError
from neurostorm_bids.group import TargetChoice
from neurostorm_bids.group.collect import collect_results
from neurostorm_bids.inputs import Selection

OTHER_SCALE = {
    "name": "age",
    "kind": "regression",
    "classes": [],
    "unit": "years",
    "mean": 0.0,
    "sd": 1.0,
}


def list_runs(collection):
    return [result.run.partition("_space")[0] for result in collection.results]


def test_nothing_there_says_which_command_comes_first(study):
    with pytest.raises(SelectionError, match=r"neurostorm .*fmriprep .*out participant --model"):
        collect_results(study.options())


def test_a_participant_without_results_says_which_command_comes_first(study):
    (study.output / "sub-01").mkdir()
    with pytest.raises(SelectionError, match="participant --model"):
        collect_results(study.options())


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(participant_labels=("sub-02",)), ["sub-02_ses-A_task-rest"]),
        (Selection(exclude_participant_labels=("02",)), ["sub-01_task-nback", "sub-01_task-rest"]),
        (Selection(session_ids=("A",)), ["sub-02_ses-A_task-rest"]),
        (Selection(task_ids=("task-nback",)), ["sub-01_task-nback"]),
    ],
)
def test_the_same_labels_choose_as_in_the_participant_level(study, selection, expected):
    study.add("sub-01_task-rest", embedding=[1, 2])
    study.add("sub-01_task-nback", embedding=[1, 2])
    study.add("sub-02_ses-A_task-rest", embedding=[1, 2])
    assert list_runs(collect_results(study.options(selection=selection))) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"session": None}, ["sub-01_task-rest"]),
        ({"session": "*"}, ["sub-02_ses-A_task-rest"]),
        ({"subject": ["02", "03"], "desc": "preproc"}, ["sub-02_ses-A_task-rest"]),
    ],
)
def test_filter_files_speak_of_the_bold_files(study, tmp_path, filters, expected):
    study.add("sub-01_task-rest", embedding=[1, 2])
    study.add("sub-02_ses-A_task-rest", embedding=[1, 2])
    path = tmp_path / "filters.json"
    path.write_text(json.dumps({"bold": filters}))
    options = study.options(selection=Selection(filter_file=path))
    assert list_runs(collect_results(options)) == expected


def test_filters_that_leave_nothing_say_so(study):
    study.add("sub-01_task-rest", embedding=[1, 2])
    with pytest.raises(SelectionError, match="--task-id asks for nback"):
        collect_results(study.options(selection=Selection(task_ids=("nback",))))


@pytest.mark.parametrize("asked", ["two", "twotwo"])
def test_a_model_is_chosen_by_its_name_or_its_checksum(study, asked):
    study.add("sub-01_task-rest", embedding=[1, 2], label="One", model="one")
    study.add("sub-01_task-rest", embedding=[3, 4], label="Two", model="two")
    collection = collect_results(study.options(models=(asked,)))
    assert [model.name for model in collection.models] == ["two"]
    assert len(collection.left_out) == 1


@pytest.mark.parametrize("asked", ["models/one", "models/one/", "one.ckpt", "hf://a/b/one.ckpt@v1"])
def test_a_model_is_chosen_by_what_the_participant_level_was_given(study, asked):
    study.add("sub-01_task-rest", embedding=[1.0], label="One", model="one")
    study.add("sub-01_task-rest", embedding=[2.0], label="Two", model="two")
    (part,) = collect_results(study.options(models=(asked,))).embeddings
    assert part.model.name == "one"


def test_models_are_never_mixed(study):
    study.add("sub-01_task-rest", embedding=[1, 2], model="one")
    study.add("sub-02_task-rest", embedding=[3, 4], model="two")
    collection = collect_results(study.options())
    assert [part.vectors.tolist() for part in collection.embeddings] == [[[1, 2]], [[3, 4]]]


def test_only_the_targets_asked_for_are_read(study):
    study.add("sub-01_task-rest", value=30.0)
    study.add("sub-01_task-rest", probabilities=(0.4, 0.6))
    collection = collect_results(study.options(targets=(TargetChoice("sex"),)))
    assert [one.target.name for one in collection.predictions] == ["sex"]


def test_a_target_that_nobody_predicted_is_a_mistake(study):
    study.add("sub-01_task-rest", embedding=[1, 2])
    with pytest.raises(UsageError, match="predicted: nothing"):
        collect_results(study.options(targets=(TargetChoice("sex"),)))


def test_models_with_the_same_weights_and_other_names_are_two(study):
    study.add("sub-01_task-rest", embedding=[1, 2], label="One", model="one", ModelSHA256="a")
    study.add("sub-01_task-rest", embedding=[3, 4], label="Two", model="two", ModelSHA256="a")
    assert len(collect_results(study.options()).embeddings) == 2


def test_a_run_that_is_there_twice_counts_once(study):
    study.add("sub-01_task-rest", embedding=[1, 2])
    study.add("sub-01_task-rest", embedding=[1, 2], label="One")
    collection = collect_results(study.options())
    assert len(collection.results) == 1
    (note,) = collection.left_out
    assert "desc-scanOne" in note.path
    assert "the same run and model" in note.reason


def test_of_two_spaces_that_of_the_models_grid_is_read(study):
    study.add("sub-01_task-rest", embedding=[1, 2], space="space-MNI152NLin2009cAsym")
    study.add("sub-01_task-rest", embedding=[3, 4])
    collection = collect_results(study.options())
    assert collection.embeddings[0].vectors.tolist() == [[3, 4]]
    assert "space-MNI152NLin6Asym of the same series" in collection.left_out[0].reason


def test_clips_are_no_runs(study):
    folder = study.add("sub-01_task-rest", embedding=[1, 2], label="Scan")
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("scanScan", "clipScan")))
    with pytest.raises(SelectionError, match="no results"):
        collect_results(study.options())


def break_json(path):
    path.write_text("{")


def forget_model(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "ModelSHA256": None}))


def forget_target(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "Target": {"name": "age"}}))


def change_scale(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "Target": OTHER_SCALE}))


def remove_table(path):
    path.with_suffix(".tsv").unlink()


def remove_run(path):
    path.with_suffix(".tsv").write_text("level\tvalue\nclip\t1\n")


def write_word(path):
    path.with_suffix(".tsv").write_text("level\tvalue\nrun\tnan\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "json is not there"),
        (remove_table, "tsv is not there"),
        (break_json, "Expected JSON"),
        (forget_model, "no ModelSHA256"),
        (forget_target, "kind"),
        (change_scale, "with the same options for all"),
        (remove_run, "one row of the level run, found 0"),
        (write_word, "Expected a number in column value, found 'nan'"),
    ],
)
def test_a_damaged_result_is_told_and_the_others_go_on(study, spoil, message):
    for label in ("01", "02", "03"):
        folder = study.add(f"sub-{label}_task-rest", value=30.0)
    (sidecar,) = folder.glob("*.json")
    spoil(sidecar)
    collection = collect_results(study.options())
    assert collection.participants == ["01", "02"]
    (note,) = collection.problems
    assert note.path.startswith("sub-03/func/")
    assert message in note.reason


def test_embeddings_of_another_length_are_a_problem(study):
    for label in ("01", "02", "03"):
        study.add(f"sub-{label}_task-rest", embedding=[1, 2] if label != "02" else [1, 2, 3])
    collection = collect_results(study.options())
    assert collection.participants == ["01", "03"]
    assert "3 features" in collection.problems[0].reason


def test_when_all_is_damaged_the_first_reason_is_told(study):
    folder = study.add("sub-01_task-rest", value=30.0)
    break_json(next(folder.glob("*.json")))
    with pytest.raises(DataError, match="None of 1 result"):
        collect_results(study.options())


def test_a_file_in_the_folder_of_somebody_else_is_left_out(study):
    folder = study.add("sub-01_task-rest", embedding=[1, 2])
    for path in list(folder.iterdir()):
        path.with_name(path.name.replace("sub-01", "sub-02")).write_text(path.read_text())
    collection = collect_results(study.options())
    assert collection.participants == ["01"]
    assert "does not fit the folder" in collection.left_out[0].reason
