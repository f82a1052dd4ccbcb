"""The report of a pretraining: one HTML file for whoever uses the weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_text
from neurostorm_bids.derivatives.conceal import shorten_path
from neurostorm_bids.page.html import (
    format_facts,
    format_page,
    format_paragraphs,
    format_picture,
    format_section,
    format_table,
    format_warnings,
)
from neurostorm_bids.page.words import count, format_number
from neurostorm_bids.train.pictures import draw_curves, draw_slices
from neurostorm_bids.train.summary import count_people, count_volumes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from neurostorm_bids.grid.spec import GridSpec
    from neurostorm_bids.page.html import Cell
    from neurostorm_bids.train.reconstruction import Example
    from neurostorm_bids.train.sampling import TrainingRun
    from neurostorm_bids.train.summary import PretrainingSummary, ReconstructionSummary, RunNote

_RUNS_SHOWN = 10
_USES = ("training", "validation")


def write_pretraining_report(path: Path, summary: PretrainingSummary) -> None:
    """Write the report: one HTML file that loads nothing from anywhere, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    found = summary.reconstruction
    body = [
        format_paragraphs(*summary.tell_outcome()),
        format_warnings(summary.list_warnings()),
        _show_overview(summary),
        _show_curves(summary),
        "" if found is None else _show_example(found.example, summary.grid),
        "" if found is None else _show_regions(found),
        _show_data(summary),
        format_section("Options", format_facts(dict(_flatten(summary.options)), label="Options")),
    ]
    footer = f"Written by neurostorm-bids {__version__}. For research; not for diagnosis."
    remove_leftovers(path.parent)
    write_text(path, format_page(f"Pretraining of {summary.name}", body, footer=footer))


def _show_overview(summary: PretrainingSummary) -> str:
    config, grid = summary.config, summary.grid
    tokens = config.stage_grid(0)
    voxel = _cross(format_number(side) for side in grid.voxel_size_mm)
    windows = (
        f"{_cross(config.first_window_size)} tokens in the first stage, then "
        f"{_cross(config.window_size)}"
    )
    if config.last_layer_full_msa:
        windows += "; in the last stage all of space"
    facts = {
        "Software": f"neurostorm-bids {__version__}",
        "Objective": summary.objective,
        "Preset": summary.preset,
        **{f"Parameters, {part}": format_number(n) for part, n in summary.n_parameters.items()},
        "Grid": f"{grid.space}, voxels of {voxel} mm, a volume every {grid.repetition_time_s:g} s",
        "Clip": f"{_cross(config.img_size[:3])} voxels, {count(config.clip_length, 'volume')}",
        "Patch": f"{_cross(config.patch_size[:3])} voxels of one volume",
        "Tokens of a clip": f"{_cross(tokens)} = {format_number(math.prod(tokens))}",
        "Channels of each stage": [config.stage_dim(stage) for stage in range(config.n_stages)],
        "Blocks of each stage": config.depths,
        "Windows": windows,
        "Samples at once on a device": summary.result.micro_batch_size,
        **summary.facts,
    }
    return format_section("Overview", format_facts(facts, label="Overview"))


def _show_curves(summary: PretrainingSummary) -> str:
    result, found = summary.result, summary.reconstruction
    first, last = result.validation[0], result.validation[-1]
    levels = {} if found is None else {found.loss: found.levels}
    picture = draw_curves(
        result.training,
        result.validation,
        columns=[name for name in first if name != "step"],
        best_step=result.best_step,
        levels=levels,
    )
    told = [
        f"Validation loss {format_number(row['loss'])} at update {format_number(row['step'])}."
        for row in (first, {"step": result.best_step, "loss": result.best_loss}, last)
    ]
    told += [
        f"Horizontal line, {name}: {format_number(level)}."
        for group in levels.values()
        for name, level in group.items()
    ]
    caption = (
        "Above, the loss on what is trained on, and on clips of other participants, always the "
        "same; below, the learning rate."
    )
    if levels:
        caption += " Horizontal lines: what predictors lose that only average visible tokens."
    alt = " ".join([f"Losses over {count(result.n_steps, 'update')}.", *told])
    return format_section("Loss", format_picture(picture, alt=alt, caption=caption))


def _show_example(example: Example, grid: GridSpec) -> str:
    error = example.error[example.masked]
    rms = math.sqrt(float((error**2).mean())) if error.size else math.nan
    alt = (
        "Sagittal, coronal and axial slices of one volume in four columns: original, masked, "
        f"reconstructed, error. {example.masked.mean():.0%} of the voxels are masked; in these "
        f"the error has a root mean square of {format_number(rms)}. Left is on the left."
    )
    caption = (
        f"{example.label}, volume {example.volume + 1} of {example.n_volumes} of the clip; of the "
        "clips compared, the one with the median loss. Orange: masked. Reconstructed: the "
        "original with its masked patches replaced by what the model made of them. Error: grey "
        "where nothing was masked. Neurological convention: the left of the brain (L) is on the "
        f"left. Positions are coordinates of {grid.space}."
    )
    picture = format_picture(draw_slices(example, grid.affine_matrix), alt=alt, caption=caption)
    return format_section("Example of a reconstruction", picture)


def _show_regions(found: ReconstructionSummary) -> str:
    if found.regions is None:
        return ""
    is_scored = found.regions["n_patches"] > 0
    scored = found.regions[is_scored].set_index("index")
    columns = {
        "Region": scored["name"],
        "Number": scored.index,
        "Masked patches": scored["n_patches"],
        "Error": scored["error"],
        "Variance": scored["variance"],
        "Error / variance": scored["relative_error"],
    }
    before = after = ""
    if found.survivors is not None:
        before = format_paragraphs(_tell_survivors(found.survivors))
        sizes = found.survivors.set_index("index")["n_patches"]
        columns["Patches in a volume"] = sizes.astype(float).reindex(scored.index)
    if not is_scored.all():
        names = ", ".join(found.regions["name"][~is_scored])
        after = format_paragraphs(f"Nothing was masked, so there is no error, in: {names}.")
    table = format_table(
        list(columns),
        zip(*(column.tolist() for column in columns.values()), strict=True),
        caption="Click on the head of a column to sort by it. Masked patches are counted over all "
        "clips and volumes. Error: squared, mean over the voxels of masked patches. Variance: of "
        "the same voxels about their common mean. Where their ratio is 1 or more, predicting this "
        "mean would be as good or better.",
        is_sortable=True,
    )
    title = f"Error by region of {found.atlas or 'the atlas'}"
    return format_section(title, before, table, after)


def _tell_survivors(survivors: pd.DataFrame) -> str:
    n_regions = int((survivors["n_patches"] > 0).sum())
    n_voxels, n_kept = survivors[["n_voxels_grid", "n_voxels_patches"]].sum().tolist()
    return (
        f"{format_number(n_regions)} of {count(len(survivors), 'region')} have at least one patch. "
        f"{n_kept / max(1, n_voxels):.0%} of the grid's voxels in regions lie in patches of their "
        "own region, the others in patches of a neighbour or of none."
    )


def _show_data(summary: PretrainingSummary) -> str:
    parts = dict(zip(_USES, (summary.training_runs, summary.validation_runs), strict=True))
    names = sorted({run.dataset for runs in parts.values() for run in runs})
    rows = [
        _count_runs(name, use, [run for run in runs if run.dataset == name])
        for name in names
        for use, runs in parts.items()
    ]
    if len(names) > 1:
        rows += [_count_runs("all of them", use, runs) for use, runs in parts.items()]
    counted = format_table(
        ["Dataset", "Used for", "Participants", "Runs", "Volumes"],
        rows,
        caption="Volumes are counted on the model's clock. No participant is in both parts.",
    )
    return format_section(
        "Data",
        counted,
        _list_notes(summary.failed, caption="Runs that could not be used"),
        _list_notes(summary.left_out, caption="Runs that were left out"),
    )


def _count_runs(name: str, use: str, runs: Sequence[TrainingRun]) -> list[Cell]:
    return [name, use, count_people(runs), len(runs), count_volumes(runs)]


def _list_notes(notes: Iterable[RunNote], *, caption: str) -> str:
    """Return a table of reasons with the runs they hold for."""
    runs = defaultdict(list)
    for note in notes:
        runs[note.reason].append(note.run)
    if not runs:
        return format_paragraphs(f"{caption}: none.")
    rows: list[list[Cell]] = []
    for reason, names in sorted(runs.items(), key=lambda item: -len(item[1])):
        shown = "\n".join(names[:_RUNS_SHOWN])
        n_more = len(names) - _RUNS_SHOWN
        if n_more > 0:
            shown += f"\nand {format_number(n_more)} more"
        rows.append([reason, len(names), shown])
    return format_table(["Reason", "Number", "Runs"], rows, caption=caption)


def _flatten(options: Mapping[str, object], *, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Name the options of a group by the group and their own name."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", shorten_path(value)


def _cross(sides: Iterable[object]) -> str:
    return " x ".join(map(str, sides))
