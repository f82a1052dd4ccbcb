"""What a backbone was trained on is kept with it, and nothing else of it."""

from __future__ import annotations

import hashlib
import json

import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.lessons import MAX_MARKS, Lesson, add_lesson
from neurostorm_bids.model.weights import Provenance

BARE = Provenance(name="a", source="a", sha256="", format="folder")


def fingerprint(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_lessons_come_back_from_json_and_old_folders_have_none():
    lessons = add_lesson((), None, map(fingerprint, range(3)))
    lessons = add_lesson(lessons, "sex", [fingerprint(9)])
    made = Provenance(**vars(BARE) | {"lessons": lessons})
    assert Provenance.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert [len(lesson.marks.split()) for lesson in made.lessons] == [3, 1]
    assert "lessons" not in BARE.to_dict()
    assert Provenance.from_dict(BARE.to_dict()) == BARE


def test_a_list_that_is_not_whole_is_not_kept():
    assert add_lesson((), None, [fingerprint(0), None]) == ()
    assert add_lesson((), None, []) == ()
    full = add_lesson((), None, map(fingerprint, range(MAX_MARKS)))
    assert len(full[0].marks.split()) == MAX_MARKS
    assert add_lesson(full, "sex", [fingerprint("more")]) == full


@pytest.mark.parametrize(
    "lessons",
    [{}, "0" * 12, [1], [{"marks": ""}], [{"target": 1, "marks": ""}]]
    + [[{"target": None, "marks": marks}] for marks in (3, "sub-01", "0" * 11, "0" * 12 + " ")],
)
def test_what_is_no_lesson_is_refused(lessons):
    with pytest.raises(DataError, match=r"[Ll]esson"):
        Provenance.from_dict(BARE.to_dict() | {"lessons": lessons})


def test_a_lesson_without_marks_may_stand_in_a_folder():
    assert Lesson(target=None, marks="").marks == ""
