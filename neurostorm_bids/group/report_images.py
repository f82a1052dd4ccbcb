"""The section of the report on which image was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.group.report_predictions import tell_score
from neurostorm_bids.page.html import format_paragraphs, format_section, format_table
from neurostorm_bids.page.words import count

if TYPE_CHECKING:
    from neurostorm_bids.group.images import ImagesFound
    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.page.html import Cell

_DIRECTIONS = {"forward": "the image", "backward": "the response"}
_SHOWN_OF_ONE = "rank1"


def show_images(group: Group) -> str:
    """Return the section on image retrieval; empty if it was not asked for."""
    return "".join(_show(group, one) for one in group.images)


def _show(group: Group, one: ImagesFound) -> str:
    title = "Which image was seen"
    if len(group.images) > 1:
        title += f", by {one.model.name}"
    notes = [group.conceal(note) for note in one.notes]
    if not one.variants:
        return format_section(title, format_paragraphs("There is no outcome.", *notes))
    seen = [
        f"{count(variant.outcome.n_seen, 'image')} of {variant.outcome.n_images} looked for were "
        f"also learnt from ({variant.describe()})."
        for variant in one.variants
        if variant.outcome.n_seen
    ]
    rows: list[list[Cell]] = [
        [
            variant.describe(),
            _DIRECTIONS[direction],
            *tell_score(score),
            scores.n_participants,
            scores.n_candidates,
        ]
        for variant in one.variants
        for direction, scores in variant.outcome.list_directions()
        for score in scores.scores
    ]
    heads = ["Map", "Looked for", "Measure", "Value", "95 % interval", "Chance", "People"]
    return format_section(
        title,
        format_paragraphs(
            f"{count(one.n_clips, 'clip')} of {count(one.n_runs, 'run')} show one image each, "
            f"{group.options.delay_s:g} s later. A linear map from embeddings to the images was "
            "fitted on some runs, and what others evoked was looked for among the images that "
            "were shown in them: never on clips of the same run. Rank-1: how often the right one "
            "is the first; chance is that of a random order.",
            *seen,
            *notes,
        ),
        format_table(
            [*heads, "Candidates"],
            rows,
            caption="Intervals by resampling people. Every person counts once.",
        ),
        _show_people(one),
    )


def _show_people(one: ImagesFound) -> str:
    rows: list[list[Cell]] = [
        [
            f"sub-{own['participant_id']}",
            variant.describe(),
            own[_SHOWN_OF_ONE],
            f"{own[f'{_SHOWN_OF_ONE}_low']:.3g} to {own[f'{_SHOWN_OF_ONE}_high']:.3g}",
            own[f"{_SHOWN_OF_ONE}_chance"],
            own["median_rank"],
            own["n_candidates"],
        ]
        for variant in one.variants
        for own in variant.outcome.by_participant.to_dict("records")
        if own["direction"] == "forward"
    ]
    heads = ["Participant", "Map", "Rank-1", "95 % interval", "Chance", "Median rank", "Candidates"]
    return format_table(
        heads,
        rows,
        caption="The image looked for, by participant. Intervals by resampling images.",
        is_sortable=True,
    )
