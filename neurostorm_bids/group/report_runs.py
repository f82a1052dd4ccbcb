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
    from collections.abc import Sequence

    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.group.people import PeopleFound
    from neurostorm_bids.page.html import Cell

_MAIN = "rank1"


def show_people(group: Group) -> str:
    """Return the section on re-identification."""
    found = [one for one in group.people if one.outcome is not None]
    told = [
        f"{one.model.name}: {group.conceal(one.why_not)}" for one in group.people if one.why_not
    ]
    told += dict.fromkeys(group.conceal(note) for one in group.people for note in one.notes)
    if not group.people:
        return ""
    if not found:
        return format_section("Re-identification", format_paragraphs(*told))
    rows: list[list[Cell]] = []
    curves = {}
    for one in found:
        for features, outcome in one.list_outcomes():
            scores, name = outcome.scores, one.model.name
            if outcome is not one.outcome:
                name = f"{features}, runs of {name}" if len(found) > 1 else features
            curves[name] = scores.cmc
            rows += [
                [name, *tell_score(score), scores.n_participants, scores.n_candidates]
                for score in scores.scores
            ]
    apart = sorted({one.outcome.apart for one in found if one.outcome is not None})
    return format_section(
        "Re-identification",
        format_paragraphs(
            "Whose run is this? One run of each person is looked for among one other run of "
            f"everybody, from a different {' or '.join(apart)}, by the similarity of embeddings or "
            "of functional connectivity. Similar anatomy, scanner and site also make runs similar: "
            "this is no measure of brain function.",
            *_compare_with_rivals(found),
            *told,
        ),
        format_table(
            ["Features", "Measure", "Value", "95 % interval", "Chance", "People", "Candidates"],
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


def _compare_with_rivals(found: Sequence[PeopleFound]) -> list[str]:
    """Say plainly whether embeddings find people more often than connectivity does."""
    lines = []
    for one in found:
        (_, own), *rivals = one.list_outcomes()
        mine = own.scores[_MAIN].value or 0.0
        for name, rival in rivals:
            other = rival.scores[_MAIN].value or 0.0
            verb = "find" if mine > other else "do not find"
            lines.append(
                f"Embeddings of {one.model.name} {verb} people more often than {name}: Rank-1 "
                f"{mine:.3g} against {other:.3g}, in the same galleries and for the same probes."
            )
    return lines
