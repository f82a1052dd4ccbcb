from __future__ import annotations

import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.train.split_file import check_groups, format_rounds, format_splits, read_splits
from neurostorm_bids.train.splits import (
    Fold,
    Splits,
    add_validation,
    gather_people,
    split_by_site,
    split_held_out,
    split_k_fold,
)

LABELS = [f"{number:02d}" for number in range(30)]
PEOPLE = gather_people(LABELS)


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        path = tmp_path / "splits.tsv"
        path.write_text(text)
        return path

    return write_file


@pytest.mark.parametrize(
    "splits",
    [
        split_k_fold(PEOPLE),
        split_held_out(PEOPLE),
        add_validation(split_k_fold(PEOPLE), PEOPLE, share=0.3),
        split_by_site(LABELS, {label: f"site {int(label) % 4}" for label in LABELS}),
    ],
    ids=["folds", "held out", "validation", "sites"],
)
def test_reading_gives_back_what_was_written(write, splits):
    again = read_splits(write(format_splits(splits)), LABELS)
    assert again.folds == splits.folds
    assert again.notes == ()


def test_a_file_of_several_seeds_gives_back_those_of_each(write):
    by_seed = {seed: split_k_fold(PEOPLE, seed=seed) for seed in (3, 4)}
    path = write(format_rounds(by_seed))
    for seed, splits in by_seed.items():
        assert read_splits(path, LABELS, seed=seed).folds == splits.folds
    with pytest.raises(DataError, match=r"seeds 3, 4, and none of the seed 5"):
        read_splits(path, LABELS, seed=5)


def test_a_fold_may_be_called_seed(write):
    path = write("participant_id\tseed\n01\ttrain\n02\ttest\n")
    assert read_splits(path, ["01", "02"], seed=9).folds[0].name == "seed"


def test_folds_that_a_seed_does_not_have_are_left_out(write):
    one = Splits(folds=(Fold(name="heldout", train=("1",), test=("3",)),), method="")
    two = Splits(folds=(Fold(name="A", train=("3",), test=("1",)),), method="")
    path = write(format_rounds({0: one, 1: two}))
    assert read_splits(path, ["1", "3"], seed=1).folds == two.folds


def test_a_file_names_a_role_per_fold():
    fold = Fold(name="heldout", train=("1", "2"), validation=("10",), test=("3",))
    assert format_splits(Splits(folds=(fold,), method="")).splitlines() == [
        "participant_id\theldout",
        "sub-1\ttrain",
        "sub-2\ttrain",
        "sub-3\ttest",
        "sub-10\tvalidation",
    ]


def test_strangers_on_both_sides_are_left_out_and_counted(write):
    path = write("participant_id\tsplit\n01\ttrain\nsub-02\ttest\n77\ttest\n03\tn/a\n")
    splits = read_splits(path, ["01", "02", "03", "04", "05"])
    assert splits.folds == (Fold(name="split", train=("01",), test=("02",)),)
    assert splits.notes == (
        "1 participant(s) in the split file have no data.",
        "2 participant(s) with data are not in the split file and were left out.",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("participant_id\ta\n1\ttrain\n1\ttest\n2\ttest\n", "1 is on two sides in column 'a'"),
        ("participant_id\ta\nsub-1\ttrain\n1\ttest\n2\ttest\n", "1 is on two sides"),
        ("participant_id\ta\n1\tTrain\n2\ttest\n", "found 'Train' for 1"),
        ("participant_id\n1\n", "one per fold"),
        ("subject\ta\n1\ttrain\n", "Expected columns participant_id"),
        ("participant_id\ta\n1\ttrain\n2\ttrain\n", "no participants to test"),
        ("participant_id\ta\tb\n1\ttrain\ttrain\n2\ttest\ttest\n", "tested in two folds"),
    ],
)
def test_a_file_that_says_something_else_is_refused(write, text, words):
    with pytest.raises(DataError, match=words):
        read_splits(write(text), ["1", "2"])


def test_a_row_that_is_repeated_alike_is_read(write):
    path = write("participant_id\ta\n1\ttrain\n1\ttrain\n2\ttest\n")
    assert read_splits(path, ["1", "2"]).folds[0].train == ("1",)


def test_families_on_two_sides_are_found():
    splits = Splits(folds=(Fold(name="a", train=("1", "2"), test=("3",)),), method="")
    check_groups(splits, {"1": "x", "2": None, "3": None})
    check_groups(splits, {"1": "x", "2": "x", "3": "y"})
    with pytest.raises(DataError, match="members of the same groups: x"):
        check_groups(splits, {"1": "x", "2": "y", "3": "x"})


def test_a_seed_of_thousands_of_digits_is_no_seed(tmp_path):
    path = tmp_path / "splits.tsv"
    path.write_text(f"participant_id\tseed\tf\nsub-01\t{'9' * 5000}\ttrain\n")
    with pytest.raises(DataError, match="column 'seed'"):
        read_splits(path, ["01"])


def test_rows_of_a_seed_that_name_nobody_are_an_error(tmp_path):
    path = tmp_path / "splits.tsv"
    path.write_text("participant_id\tseed\tf\nn/a\t0\ttrain\nn/a\t0\ttest\n")
    with pytest.raises(DataError, match="two sides"):
        read_splits(path, ["01"])
