"""A synthetic cohort in fMRIPrep's form, of which is known what there is to be found in it.

``python -m benchmarks.cohort FOLDER`` writes it in seconds. FOLDER is a raw BIDS dataset without
its images (participants, phenotype, events, image embeddings); ``FOLDER/derivatives/fmriprep`` has
the preprocessed ones, at 8 mm. What is planted:

age            amplitude of one network
memory_score   amplitude of a second network (in phenotype/memory.tsv)
diagnosis      amplitude of a third network
sex            connectivity of two more, interleaved, whose amplitudes are the same for all
the person     a smooth pattern of its own, over which slow fluctuations spread in every run
site           brightness over the head, and head motion
referral       nothing but the site: a target that confounds explain and the brain does not
condition      blocks of faces and places, each block one image; the response of the remaining
               networks is a linear map of the image's embedding (stimuli/embeddings.tsv)

The columns are drawn so that no two of them go together. Everything follows from the seed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.planted import (
    AXES,
    IMAGES_PER_RUN,
    TEMPLATE,
    Cohort,
    CohortPlan,
    add_responses,
    draw_bold,
    draw_cohort,
    draw_courses,
    draw_events,
    draw_look,
)
from neurostorm_bids.synthetic import (
    Brain,
    read_brain,
    write_confounds,
    write_dataset_description,
    write_image,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

SITE_STEP_MM = {"A": 0.005, "B": 0.008, "C": 0.012}
"""Deviation of each motion parameter's step between volumes."""


def write_cohort(folder: Path, plan: CohortPlan | None = None) -> Cohort:
    """Write a cohort and return what was planted in it.

    Parameters
    ----------
    folder : becomes a raw dataset with ``derivatives/fmriprep``; made if it is not there.
    plan : sizes; by default 40 participants in two sessions, about 100 MB.
    """
    plan = plan or CohortPlan()
    brain = read_brain(TEMPLATE)
    streams = np.random.SeedSequence(plan.seed).spawn(plan.n_participants + 1)
    cohort = draw_cohort(plan, brain, generator=np.random.default_rng(streams[0]))
    _write_raw(folder, cohort)
    write_dataset_description(_preprocessed(folder), name="A synthetic cohort")
    people = cohort.participants.to_dict("records")
    for person, stream in zip(people, streams[1:], strict=True):
        _write_person(folder, person, cohort, brain, plan, generator=np.random.default_rng(stream))
    return cohort


def _write_raw(folder: Path, cohort: Cohort) -> None:
    """Write what a raw dataset has beside its images."""
    for place in (folder / "phenotype", folder / "stimuli", _preprocessed(folder)):
        place.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "dataset_description.json",
        {"Name": "A synthetic cohort, without raw images", "BIDSVersion": "1.10.1"},
    )
    people = cohort.participants
    write_table(folder / "participants.tsv", people.drop(columns="memory_score"))
    write_json(folder / "participants.json", {"age": {"Units": "years"}})
    write_table(folder / "phenotype" / "memory.tsv", people[["participant_id", "memory_score"]])
    write_json(
        folder / "phenotype" / "memory.json",
        {"memory_score": {"Description": "Made-up score of a made-up test", "Units": "points"}},
    )
    write_table(folder / "stimuli" / "embeddings.tsv", cohort.images[["stim_file", *AXES]])


def _write_person(
    folder: Path,
    person: Mapping[str, Any],
    cohort: Cohort,
    brain: Brain,
    plan: CohortPlan,
    *,
    generator: np.random.Generator,
) -> None:
    """Write one person's runs: in every session one at rest, and one with events."""
    label, look = person["participant_id"], draw_look(person, brain, generator=generator)
    for session in range(1, plan.n_sessions + 1):
        place = Path(label, f"ses-{session}", "func")
        raw, func = folder / place, _preprocessed(folder) / place
        raw.mkdir(parents=True, exist_ok=True)
        func.mkdir(parents=True, exist_ok=True)
        shown = cohort.images[(session - 1) * IMAGES_PER_RUN : session * IMAGES_PER_RUN]
        for task in ("rest", "blocks"):
            name = f"{label}_ses-{session}_task-{task}"
            courses = draw_courses(person, plan, generator=generator)
            if task == "blocks":
                events = draw_events(shown, generator=generator)
                courses = add_responses(courses, events, cohort, plan)
                write_table(raw / f"{name}_events.tsv", events)
            stem = f"{name}_space-{TEMPLATE.space}"
            write_image(
                func / f"{stem}_desc-preproc_bold",
                draw_bold(courses, look, cohort.regions, plan, generator=generator),
                TEMPLATE,
                task=task,
                repetition_time_s=plan.repetition_time_s,
            )
            write_image(func / f"{stem}_desc-brain_mask", brain.mask.astype(np.uint8), TEMPLATE)
            write_confounds(
                func / f"{name}_desc-confounds_timeseries",
                n_volumes=plan.n_volumes,
                step_mm=SITE_STEP_MM[person["site"]],
                generator=generator,
            )


def _preprocessed(folder: Path) -> Path:
    return folder / "derivatives" / "fmriprep"


if __name__ == "__main__":
    write_cohort(Path(sys.argv[1]))
