"""Whether those who are tested were among those that the backbone was trained on before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.model.lessons import mark_file

if TYPE_CHECKING:
    from collections.abc import Collection

    from neurostorm_bids.pretrained import Provenance
    from neurostorm_bids.train.examples import Examples


class Familiar(NamedTuple):
    """Of participants, how many a backbone knows, as far as its folder tells.

    Attributes
    ----------
    target : that is to be learnt.
    n_people : participants.
    n_known : those of them of whom a file was trained on before.
    n_taught : those of whom that was done with the same target.
    is_told : whether the folder tells of any training.
    """

    target: str
    n_people: int
    n_known: int
    n_taught: int
    is_told: bool

    def describe(self) -> str:
        """Say it in sentences."""
        if not self.is_told:
            return (
                "Whether the backbone saw these participants when it was pretrained is not known "
                "here."
            )
        if not self.n_known:
            return (
                "Of the files that the backbone was trained on before, as far as its folder lists "
                "them, none is of these participants. Whether it saw other files of them is not "
                "known here."
            )
        told = (
            f"{self.n_known} of the {self.n_people} participants were among those that the "
            "backbone was trained on before: scores of them are too good."
        )
        if self.n_taught:
            told += (
                f" {self.n_taught} of them taught it {self.target} itself, and such scores say "
                "nothing of new people. Start from a model that was not trained on them."
            )
        return told


def find_familiar(
    provenance: Provenance, examples: Examples, participants: Collection[str]
) -> Familiar:
    """Compare the files of participants with those that a backbone was trained on.

    Parameters
    ----------
    provenance : of the model to start from.
    participants : of the examples; others do not count.
    """
    people = set(participants)
    scans = [examples.scans[position] for position in examples.used_scans]
    files = [
        (scan.run.participant, mark_file(scan.stored.fingerprint))
        for scan in scans
        if scan.run.participant in people and scan.stored.fingerprint is not None
    ]
    known: set[str] = set()
    taught: set[str] = set()
    for lesson in provenance.lessons:
        marks = set(lesson.marks.split())
        own = {participant for participant, mark in files if mark in marks}
        known |= own
        if lesson.target == examples.target.name:
            taught |= own
    return Familiar(
        target=examples.target.name,
        n_people=len(people),
        n_known=len(known),
        n_taught=len(taught),
        is_told=bool(provenance.lessons),
    )
