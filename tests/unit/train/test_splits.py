from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.train.splits import (
    Fold,
    Splits,
    add_validation,
    gather_people,
    split_by_site,
    split_held_out,
    split_k_fold,
)

LABELS = [f"{number:02d}" for number in range(60)]
SEXES = {label: "FM"[int(label) % 2] for label in LABELS}
FAMILIES = {label: f"family{int(label) // 3}" for label in LABELS}
SITES = {label: "ABC"[int(label) % 3] for label in LABELS}

people_lists = st.lists(st.integers(0, 10_000).map(str), min_size=12, max_size=60, unique=True)


def make_all(labels, seed, *, grouped):
    values = {label: "abc"[int(label) % 3] for label in labels}
    groups = {label: f"family{int(label) % 7}" for label in labels} if grouped else None
    people = gather_people(labels, values=values, groups=groups)
    n_groups = len(set(people.groups.tolist()))
    made = [split_held_out(people, share=0.25, seed=seed)] if n_groups > 1 else []
    if n_groups > 2:
        made.append(split_k_fold(people, n_folds=3, seed=seed))
        made.append(add_validation(made[-1], people, share=0.3, seed=seed))
    if len(set(values.values())) > 1:
        made.append(split_by_site(labels, values))
    return groups, made


@settings(max_examples=40, deadline=None)
@given(people_lists, st.integers(0, 1000), st.booleans())
def test_no_participant_and_no_family_is_on_two_sides(labels, seed, grouped):
    groups, made = make_all(labels, seed, grouped=grouped)
    for splits in made:
        is_by_site = splits.method.startswith("leave one site out")
        for fold in splits.folds:
            sides = [set(fold.train), set(fold.validation), set(fold.test)]
            assert sum(map(len, sides)) == len(set.union(*sides))
            if grouped and not is_by_site:
                families = [{groups[label] for label in side} for side in sides]
                assert sum(map(len, families)) == len(set.union(*families))


@settings(max_examples=20, deadline=None)
@given(people_lists, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_participants_changes_nothing(labels, random, grouped):
    shuffled = random.sample(labels, len(labels))
    assert make_all(labels, 0, grouped=grouped) == make_all(shuffled, 0, grouped=grouped)


def test_every_participant_is_tested_once_in_k_folds():
    splits = split_k_fold(gather_people(LABELS, values=SEXES), n_folds=7)
    assert Counter(label for fold in splits.folds for label in fold.test) == Counter(LABELS)
    assert all(len(fold.train) + len(fold.test) == 60 for fold in splits.folds)


def test_the_seed_decides_and_only_the_seed():
    people = gather_people(LABELS, values=SEXES)
    assert split_k_fold(people, seed=3) == split_k_fold(people, seed=3)
    assert split_k_fold(people, seed=3) != split_k_fold(people, seed=4)
    assert split_held_out(people, seed=3).folds != split_held_out(people, seed=4).folds


def test_classes_are_spread_evenly():
    splits = split_k_fold(gather_people(LABELS, values=SEXES), n_folds=5)
    for fold in splits.folds:
        assert Counter(SEXES[label] for label in fold.test) == {"F": 6, "M": 6}
    assert splits.method == "5-fold by participant, seed 0, 2 strata"


def test_numbers_are_spread_evenly():
    ages = {label: float(int(label) ** 2) for label in LABELS}
    people = gather_people(LABELS, values=ages)
    for splits in (split_k_fold(people, n_folds=4), split_held_out(people, share=0.25)):
        for fold in splits.folds:
            tens = Counter(label[0] for label in fold.test)
            assert set(tens) == set("012345")
            assert set(tens.values()) <= {2, 3}


def test_families_stay_together_and_classes_are_still_spread():
    splits = split_k_fold(gather_people(LABELS, values=SEXES, groups=FAMILIES), n_folds=5)
    for fold in splits.folds:
        assert not {FAMILIES[i] for i in fold.train} & {FAMILIES[i] for i in fold.test}
        assert 9 <= len(fold.test) <= 15
    assert splits.method.endswith("2 strata, 20 groups kept whole")


def test_those_without_a_family_stand_alone_and_are_counted():
    groups = {**FAMILIES, "07": None, "08": None}
    people = gather_people(LABELS, groups=groups)
    assert people.notes == ("2 participant(s) belong to no group and stand alone.",)
    assert len({people.groups[7], people.groups[8], people.groups[6]}) == 3


def test_the_held_out_share_is_kept():
    assert len(split_held_out(gather_people(LABELS, values=SEXES), share=0.3).folds[0].test) == 18
    grouped = split_held_out(gather_people(LABELS, groups=FAMILIES), share=0.2).folds[0]
    assert 9 <= len(grouped.test) <= 15


def test_rare_classes_are_split_without_complaint(recwarn):
    values = {**SEXES, "00": "X", "01": "Y", "02": "Z"}
    people = gather_people(LABELS, values=values)
    assert len(split_k_fold(people).folds) == 5
    assert len(split_held_out(people).folds[0].test) == 12
    assert not recwarn.list


def test_validation_is_taken_from_training_and_tests_stay():
    people = gather_people(LABELS, values=SEXES)
    splits = split_k_fold(people)
    with_validation = add_validation(splits, people, share=0.25)
    for before, after in zip(splits.folds, with_validation.folds, strict=True):
        assert set(after.train) | set(after.validation) == set(before.train)
        assert len(after.validation) == 12
        assert after.test == before.test


def test_validation_that_was_declared_is_kept():
    people = gather_people(LABELS)
    first, *others = split_k_fold(people).folds
    declared = replace(first, train=first.train[8:], validation=first.train[:8])
    splits = Splits(folds=(declared, *others), method="given")
    found, *rest = add_validation(splits, people, share=0.25).folds
    assert found == declared
    for fold in (found, *rest):
        assert sorted((*fold.train, *fold.validation, *fold.test)) == LABELS
        assert fold.validation


def test_each_site_is_left_out_once():
    splits = split_by_site(LABELS, {**SITES, "05": None})
    assert [fold.name for fold in splits.folds] == ["A", "B", "C"]
    for fold in splits.folds:
        assert {SITES[label] for label in fold.test} == {fold.name}
        assert fold.name not in {SITES[label] for label in fold.train}
    assert "05" not in splits.participants
    assert splits.notes == ("1 participant(s) have no site and were left out.",)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: split_by_site(LABELS, dict.fromkeys(LABELS, "A")), DataError, "found A"),
        (lambda: split_k_fold(gather_people(LABELS), n_folds=1), UsageError, "at least 2 folds"),
        (lambda: split_k_fold(gather_people(["1", "2"])), DataError, "found 2"),
        (lambda: split_held_out(gather_people(LABELS), share=1.0), UsageError, "below 1"),
        (lambda: split_held_out(gather_people(["1"])), DataError, "no participants to test"),
        (lambda: gather_people(LABELS, values={}), UsageError, "60 participants"),
        (lambda: Fold(name="a", train=("1",), test=("1",)), DataError, "two sides: 1"),
        (lambda: Fold(name="a", train=(), test=("1",)), DataError, "no participants to train"),
        (lambda: Splits(folds=(), method=""), DataError, "at least one fold"),
    ],
)
def test_splits_that_cannot_be_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_participant_tested_twice_is_refused():
    folds = tuple(Fold(name=name, train=("1",), test=("2",)) for name in "ab")
    with pytest.raises(DataError, match="tested in two folds"):
        Splits(folds=folds, method="")
