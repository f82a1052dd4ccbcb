"""The section of the report on whose runs are found by their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.group.charts import chart_cmc
from neurostorm_bids.group.pictures import draw_cmc
from neurostorm_bids.group.report_predictions import tell_score
from neurostorm_bids.page.html import (
    format_chart,
    format_paragraphs,
    format_section,
    format_table,
)

if TYPE_CHECKING:
    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.page.html import Cell


def show_people(group: Group) -> str:
    """Return the section on re-identification."""
    found = [one for one in group.people if one.outcome is not None]
    told = [
        f"{one.model.name}: {group.conceal(one.why_not)}" for one in group.people if one.why_not
    ]
    if not group.people:
        return ""
    if not found:
        return format_section("Re-identification", format_paragraphs(*told))
    rows: list[list[Cell]] = []
    curves = {}
    for one in found:
        if one.outcome is None:
            continue
        scores = one.outcome.scores
        curves[one.model.name] = scores.cmc
        rows += [
            [one.model.name, *tell_score(score), scores.n_participants, scores.n_candidates]
            for score in scores.scores
        ]
    apart = sorted({one.outcome.apart for one in found if one.outcome is not None})
    return format_section(
        "Re-identification",
        format_paragraphs(
            "Whose run is this? One run of each person is looked for among one other run of "
            f"everybody, from a different {' or '.join(apart)}, by the similarity of embeddings. "
            "Similar anatomy, scanner and site also make runs similar: this is no measure of brain "
            "function. Connectivity, the usual baseline, needs the images and is not computed "
            "here.",
            *told,
        ),
        format_table(
            ["Model", "Measure", "Value", "95 % interval", "Chance", "People", "Candidates"],
            rows,
            caption="Rank-1 and Rank-5: how often the right person is the first, or among the "
            "first five. Means over random choices of the runs; intervals by resampling people.",
        ),
        format_chart(
            draw_cmc(curves),
            chart_cmc(curves),
            alt="; ".join(f"{name}: rank 1 {curve[0]:.2f}" for name, curve in curves.items()),
            caption="Share of runs whose person is found at a rank or before (CMC curve).",
        ),
    )
