"""Whether the tested are known to the backbone: said where it is known, and where it is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurostorm_bids.model.lessons import add_lesson
from neurostorm_bids.pretrained import Provenance
from neurostorm_bids.train.familiar import find_familiar

PEOPLE = ["01", "02", "03", "04"]


def make_examples(target="sex"):
    scans = [
        SimpleNamespace(
            run=SimpleNamespace(participant=label),
            stored=SimpleNamespace(fingerprint=f"{number:064x}"[::-1]),
        )
        for number, label in enumerate(PEOPLE, start=1)
    ]
    return SimpleNamespace(
        scans=scans, used_scans=range(4), target=SimpleNamespace(name=target), participants=PEOPLE
    )


@pytest.fixture
def trained():
    """Return a backbone pretrained on the first two participants, then taught sex by the third."""
    marks = [scan.stored.fingerprint for scan in make_examples().scans]
    lessons = add_lesson(add_lesson((), None, marks[:2]), "sex", marks[2:3])
    return Provenance(name="a", source="a", sha256="", format="folder", lessons=lessons)


def test_who_was_trained_on_before_is_counted(trained):
    found = find_familiar(trained, make_examples(), PEOPLE)
    assert (found.n_people, found.n_known, found.n_taught) == (4, 3, 1)
    assert found.describe().startswith("3 of the 4 participants were among those")
    assert "1 of them taught it sex itself" in found.describe()


def test_another_target_taught_before_is_no_label_that_leaks(trained):
    found = find_familiar(trained, make_examples("age"), PEOPLE)
    assert (found.n_known, found.n_taught) == (3, 0)
    assert "taught" not in found.describe()


def test_who_is_not_tested_does_not_count(trained):
    found = find_familiar(trained, make_examples(), ["04"])
    assert found.n_known == 0
    assert "none is of these participants" in found.describe()


def test_of_a_model_that_tells_nothing_nothing_is_known():
    silent = Provenance(name="a", source="a", sha256="", format="published")
    found = find_familiar(silent, make_examples(), PEOPLE)
    assert found.describe().endswith("is not known here.")
