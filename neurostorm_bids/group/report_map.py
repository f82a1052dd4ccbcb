"""Sections of the report on how the embeddings of runs lie to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurostorm_bids.group.chart_parts import plain, shorten, tell_thinning, thin
from neurostorm_bids.group.colours import choose_colourings, list_colourings
from neurostorm_bids.group.pictures import draw_map
from neurostorm_bids.group.projections import project_by_neighbours, project_linearly
from neurostorm_bids.inputs.names import natural_key
from neurostorm_bids.page.html import format_chart, format_paragraphs, format_section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neurostorm_bids.group.collect import Embeddings
    from neurostorm_bids.group.outcome import Group
    from neurostorm_bids.group.pictures import Colouring
    from neurostorm_bids.group.projections import Projection

_MEASURES = {
    "mean_fd": "mean FD (mm)",
    "brain_coverage": "brain coverage",
    "median_tsnr": "median tSNR",
    "novelty": "novelty",
}


def show_map(group: Group, part: Embeddings) -> str:
    """Return the section that shows how the embeddings of one model lie to each other."""
    title = f"Map of the embeddings of {part.model.name}"
    if len(part.results) < 2:  # noqa: PLR2004
        return format_section(title, format_paragraphs("There is one run: nothing to compare."))
    targets = [
        group.options.columns.get(one.predictions.target.name) or one.predictions.target.name
        for one in group.assessments
        if one.source is not None
    ]
    first = choose_colourings(part.results, group.options, targets=targets, roots=group.table_roots)
    colourings = list_colourings(
        part.results, first, roots=group.table_roots, measured=_list_measured(group, part)
    )
    plane = project_linearly(part.vectors)
    other = project_by_neighbours(part.vectors, seed=group.options.seed)
    planes = [plane] if isinstance(other, str) else [plane, other]
    owners = [result.participant for result in part.results]
    names = ", ".join(one.name for one in first)
    told = [other] if isinstance(other, str) else []
    return format_section(
        title,
        format_chart(
            draw_map(plane, first, participants=owners),
            chart_map(planes, colourings, texts=[result.run for result in part.results]),
            alt=f"{len(owners)} runs along two principal components, coloured by {names}.",
            caption="Each point is a run. PCA: the plane in which the embeddings of the runs "
            f"differ most, the first two principal components of {part.vectors.shape[1]} features."
            + ("" if told else " UMAP: neighbours stay neighbours; distances mean little.")
            + tell_thinning(len(owners), "runs"),
        ),
        format_paragraphs(*told),
    )


def chart_map(
    planes: Sequence[Projection], colourings: Sequence[Colouring], *, texts: Sequence[str]
) -> dict[str, Any]:
    """Return what the page's script draws a map of: projections, colourings, and texts of points.

    What stands under ``label`` is plain text; all other texts are escaped for Plotly.
    """
    places = thin(len(texts))
    return {
        "texts": [plain(texts[place]) for place in places],
        "projections": [
            {
                "label": plane.name,
                "x": shorten(plane.points[places, 0]),
                "y": shorten(plane.points[places, 1]),
                "xtitle": plane.axes[0],
                "ytitle": plane.axes[1],
            }
            for plane in planes
        ],
        "colourings": [_describe(one, places) for one in colourings],
    }


def _describe(colouring: Colouring, places: NDArray[np.int64]) -> dict[str, Any]:
    head = {"label": colouring.name, "title": plain(colouring.name)}
    values = [colouring.values[place] for place in places]
    if any(isinstance(value, int | float) for value in values):
        numbers = [float("nan") if value is None else float(value) for value in values]
        return {**head, "numbers": shorten(numbers)}
    names = sorted({str(value) for value in values if value is not None}, key=natural_key)
    codes = {name: code for code, name in enumerate(names)}
    return {
        **head,
        "names": [plain(name) for name in names],
        "codes": [-1 if value is None else codes[str(value)] for value in values],
    }


def _list_measured(group: Group, part: Embeddings) -> Mapping[str, Sequence[str | None]]:
    """Return what is predicted of the runs, and how good they are, as cells for each run."""
    runs = [result.run for result in part.results]
    found: dict[str, Sequence[str | None]] = {}
    for one in group.collection.predictions:
        target = one.target
        several = [other.target.name for other in group.collection.predictions]
        end = f" by {one.model.name}" if several.count(target.name) > 1 else ""
        if target.kind == "classification":
            cells = [target.classes[winner] for winner in one.outputs.argmax(axis=1)]
        else:
            cells = [f"{value:.6g}" for value in one.outputs[:, 0]]
        by_run = dict(zip((result.run for result in one.results), cells, strict=True))
        found[f"predicted {target.name}{end}"] = [by_run.get(run) for run in runs]
    columns = {column.name: column.cells for column in group.quality}
    models = zip(columns["source"], columns["model"], columns["model_sha256"], strict=True)
    row_of = {key: row for row, key in enumerate(models)}
    rows = [row_of[run, part.model.name, part.model.sha256] for run in runs]
    for name, title in _MEASURES.items():
        if name in columns:
            values = [columns[name][row] for row in rows]
            # NaN, which is a value unequal to itself, is a missing one.
            found[title] = [str(value) if value == value else None for value in values]  # noqa: PLR0124
    return found
