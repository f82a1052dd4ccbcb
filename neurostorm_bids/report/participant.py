"""The report of one participant: a page that needs nothing else, made of what is on the disk."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import write_text
from neurostorm_bids.derivatives.dataset import read_dataset_description
from neurostorm_bids.page.html import (
    format_contents,
    format_facts,
    format_heading,
    format_list,
    format_page,
    format_paragraphs,
    format_picture,
    format_section,
    format_table,
    format_verbatim,
    format_warnings,
)
from neurostorm_bids.page.words import count
from neurostorm_bids.report.found import find_participant
from neurostorm_bids.report.methods import list_generators, tell_methods
from neurostorm_bids.report.procedures import read_procedures
from neurostorm_bids.report.runs import Budget, show_predictions, show_run, show_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from neurostorm_bids.report.found import Participant, RunFound
    from neurostorm_bids.report.procedures import Procedure

logger = logging.getLogger(__name__)

MAX_FIGURES_BYTES = 3_500_000
"""Of all figures in a report; base64 makes a third more of them. Further ones stay files."""


def write_participant_report(output_dir: Path, label: str) -> Path:
    """Write ``sub-X.html`` from what the participant level wrote, and return its path.

    Called again, it writes the same, unless there is something new.

    Parameters
    ----------
    label : of the participant, without ``sub-``.

    Raises
    ------
    SelectionError
        If there is nothing of this participant.
    OutputError
        If the report cannot be written.
    """
    found = find_participant(output_dir, label)
    description = read_dataset_description(output_dir)
    path = output_dir / f"sub-{label}.html"
    write_text(path, format_participant(found, description))
    logger.info("Wrote %s", path.name)
    return path


def format_participant(found: Participant, description: Mapping[str, Any]) -> str:
    """Return the report: one HTML page that loads nothing from anywhere."""
    results = [result for run in found.runs for result in run.results]
    procedures = read_procedures(results, found.attributions)
    failed = [run for run in found.runs if run.outcome and run.outcome.state == "failed"]
    shown = [run for run in found.runs if run.results]
    budget = Budget(MAX_FIGURES_BYTES)
    warnings = _list_warnings(found)
    parts = {
        "failed": ("Runs that failed", _show_failures(failed)),
        "predictions": ("Predictions", show_predictions(shown)),
        "runs": ("Runs", show_runs(found.runs)),
    }
    for number, run in enumerate(shown, start=1):
        parts[f"run-{number}"] = (run.short_label, show_run(run, budget))
    parts |= {
        "resources": ("Resources", _show_resources(found)),
        "models": ("Models and software", _show_models(procedures, results, description)),
        "methods": ("Methods", _show_methods(procedures, description)),
    }
    parts = {anchor: part for anchor, part in parts.items() if part[1]}
    body = [
        _tell_overview(found, shown, failed),
        format_warnings(warnings),
        format_contents({anchor: title for anchor, (title, _) in parts.items()}),
        *(
            format_section(title, content, anchor=anchor)
            for anchor, (title, content) in parts.items()
        ),
    ]
    footer = f"Written by neurostorm-bids {__version__}. For research; not for diagnosis."
    return format_page(f"Participant {found.label}", body, footer=footer)


def _tell_overview(
    found: Participant, shown: Sequence[RunFound], failed: Sequence[RunFound]
) -> str:
    models = sorted({result.model.name for run in shown for result in run.results})
    told = f"{count(len(shown), 'run')} with results"
    told += f", read by {count(len(models), 'model')} ({', '.join(models)})." if models else "."
    if failed:
        told += f" {count(len(failed), 'run')} failed: see below."
    if found.problems:
        told += f" {count(len(found.problems), 'file')} could not be used."
    return format_paragraphs(
        told,
        "Everything here is taken from the files of the output folder, whose tables and sidecars "
        "hold the same numbers in full.",
    )


def _show_failures(failed: Sequence[RunFound]) -> str:
    parts = []
    for run in failed:
        outcome = run.outcome
        if outcome is None:
            continue
        parts += [
            format_heading(run.label),
            format_paragraphs(f"{outcome.error}: {outcome.message}"),
        ]
        if run.results:
            parts.append(format_paragraphs("The results below are of an earlier call."))
        if outcome.crash:
            parts.append(format_verbatim(outcome.crash, label=f"Traceback of {run.label}"))
    return "\n".join(parts)


def _list_warnings(found: Participant) -> list[str]:
    """Return warnings, each once, with the runs that they are of where not of all."""
    runs: dict[str, list[str]] = {}
    for run in found.runs:
        for text in run.warnings:
            runs.setdefault(text, []).append(run.short_label)
    texts = [
        text if len(names) == len(found.runs) else f"{', '.join(names)}: {text}"
        for text, names in runs.items()
    ]
    return texts + [f"A file could not be used: {problem}" for problem in found.problems]


def _show_resources(found: Participant) -> str:
    """Return the plots of what calls used, the last ones."""
    return "\n".join(
        format_picture(
            path.read_bytes(),
            alt="CPUs in use, memory and, where there is one, GPU memory over time.",
            caption=f"What the call {path.parent.name} used, on all its runs together; the numbers "
            f"are in logs/{path.parent.name}/resources.tsv.",
            media="image/svg+xml",
        )
        for path in found.resources
    )


def _show_models(
    procedures: Sequence[Procedure], results: Sequence[Any], description: Mapping[str, Any]
) -> str:
    rows = []
    for one in procedures:
        name, source, sha256, kind = one.model
        grid = one.grid
        shape = " x ".join(map(str, grid.get("shape", ())))
        clock = grid.get("repetition_time_s", "n/a")
        where = f"{shape} voxels in {grid.get('space', 'n/a')}, {clock} s"
        rows.append([name, source, kind, where, sha256])
    notes = dict.fromkeys(
        f"{result.model.name}: {text}"
        for result in results
        for text in result.list_texts("ModelNotes")
    )
    facts: dict[str, object] = {}
    for generator in list_generators(description):
        facts[str(generator.get("Name"))] = generator.get("Version", "version not known")
    for one in procedures:
        facts |= one.environment
    table = format_table(
        ["Model", "From", "Kind", "Reads", "SHA-256"],
        rows,
        caption="Which weights made the results: their checksum, and the grid they read.",
    )
    return "\n".join(
        [
            table if rows else "",
            format_paragraphs(*notes),
            format_facts(facts, label="How it was made"),
        ]
    )


def _show_methods(procedures: Sequence[Procedure], description: Mapping[str, Any]) -> str:
    if not procedures:
        return ""
    methods = tell_methods(procedures, list_generators(description))
    return "\n".join(
        [
            format_paragraphs(
                "This text may be copied into a paper as it is (CC0). That of the whole dataset is "
                "in logs/CITATION.md.",
                *methods.paragraphs,
            ),
            format_heading("References"),
            format_list(one.tell() for one in methods.references),
        ]
    )
