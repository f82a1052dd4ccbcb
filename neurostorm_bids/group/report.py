"""The report of the group level: one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids import __version__
from neurostorm_bids.group.report_images import show_images
from neurostorm_bids.group.report_map import show_map
from neurostorm_bids.group.report_participants import show_participants
from neurostorm_bids.group.report_predictions import show_assessment
from neurostorm_bids.group.report_quality import show_outliers, show_quality
from neurostorm_bids.group.report_runs import show_people
from neurostorm_bids.page.html import (
    CHART,
    format_page,
    format_paragraphs,
    format_section,
    format_table,
    format_warnings,
    read_page_file,
)
from neurostorm_bids.page.words import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.group.collect import Collection
    from neurostorm_bids.group.find import Note
    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.page.html import Cell

_FEW_PARTICIPANTS = 50
_MAX_NOTES = 500


def format_report(group: Group) -> str:
    """Return the report: one HTML page that loads nothing from anywhere."""
    body = [
        format_paragraphs(_tell_overview(group.collection)),
        format_warnings(_list_warnings(group)),
        *(show_assessment(group, one) for one in group.assessments),
        *(show_map(group, part) for part in group.collection.embeddings),
        show_people(group),
        show_images(group),
        show_outliers(group),
        show_participants(group),
        show_quality(group),
        _show_models(group.collection),
        _show_notes(group, "Results that cannot be used", group.collection.problems),
        _show_notes(group, "Results that were left out", group.collection.left_out),
    ]
    footer = f"Written by neurostorm-bids {__version__}. For research; not for diagnosis."
    scripts = _read_chart_scripts() if any(CHART in part for part in body) else []
    return format_page("Group report", body, footer=footer, scripts=scripts)


def _read_chart_scripts() -> list[str]:
    """Return Plotly's own program, from its package, and ours that draws by it."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - 5 MB, and needed by this alone

    return [get_plotlyjs(), read_page_file("charts.js")]


def _tell_overview(collection: Collection) -> str:
    runs = {result.run for result in collection.results}
    models = ", ".join(dict.fromkeys(model.name for model in collection.models))
    people = f"{count(len(collection.participants), 'participant')} with {count(len(runs), 'run')}"
    return (
        f"{people}, read by {count(len(collection.models), 'model')} ({models}). "
        "All of this is taken from what the participant level wrote; predictions are means over a "
        "participant's runs."
    )


def _list_warnings(group: Group) -> list[str]:
    """Return what a reader should beware of."""
    collection = group.collection
    warnings = []
    if collection.problems:
        n_problems = count(len(collection.problems), "result")
        warnings.append(f"{n_problems} cannot be used and are missing here; see below.")
    warnings += [group.conceal(text) for one in group.assessments for text in one.warnings]
    scored = [one.scores for one in group.assessments if one.scores is not None]
    if scored:
        warnings.append(
            "Scores hold only if the model was not trained on these participants. That is not "
            "known here: see the model card."
        )
        if (least := min(one.n_participants for one in scored)) < _FEW_PARTICIPANTS:
            warnings.append(
                f"{count(least, 'participant')} were scored: the intervals are wide, and tell only "
                "of people like these."
            )
    return list(dict.fromkeys(warnings))


def _show_models(collection: Collection) -> str:
    rows: list[list[Cell]] = []
    for model in collection.models:
        own = [result for result in collection.results if result.model == model]
        runs = len({result.run for result in own})
        source = str(own[0].sidecar.get("ModelSource", "n/a")) if own else "n/a"
        rows.append([model.name, source, model.sha256, runs])
    notes = [
        f"{result.model.name}: {text}"
        for result in collection.results
        for text in result.list_texts("ModelNotes")
    ]
    return format_section(
        "Models",
        format_table(
            ["Model", "From", "SHA-256", "Runs"], rows, caption="Models whose results are here."
        ),
        format_paragraphs(*dict.fromkeys(notes)),
    )


def _show_notes(group: Group, title: str, notes: Sequence[Note]) -> str:
    if not notes:
        return ""
    rows = [[note.path, group.conceal(note.reason)] for note in notes[:_MAX_NOTES]]
    more = len(notes) - len(rows)
    caption = f"{count(len(notes), 'file')}" + (f"; {more} more are not shown." if more else ".")
    return format_section(title, format_table(["File", "Why"], rows, caption=caption))
