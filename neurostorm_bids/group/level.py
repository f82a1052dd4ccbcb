"""The group level: read what the participant level wrote, tabulate, score, report."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives import (
    check_output_dir,
    remove_all_leftovers,
    write_configuration,
    write_dataset_files,
)
from neurostorm_bids.derivatives.atomic import explain_write_errors, write_files
from neurostorm_bids.derivatives.tables import format_table
from neurostorm_bids.errors import DataError, UserError
from neurostorm_bids.group.collect import collect_results
from neurostorm_bids.group.images import find_images
from neurostorm_bids.group.images_tables import tabulate_images, tabulate_images_by_participant
from neurostorm_bids.group.measures import read_tsnr
from neurostorm_bids.group.outcome import Group
from neurostorm_bids.group.people import find_people
from neurostorm_bids.group.phenotype import (
    describe_participants,
    name_phenotypes,
    tabulate_participants,
)
from neurostorm_bids.group.report import format_report
from neurostorm_bids.group.sources import find_sources, read_motion
from neurostorm_bids.group.tables import (
    describe_columns,
    format_parquet,
    tabulate_embeddings,
    tabulate_people,
    tabulate_quality,
    tabulate_scores,
)
from neurostorm_bids.group.truth import assess_predictions
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.printable import make_printable
from neurostorm_bids.retrieval.stimuli import read_image_embeddings
from neurostorm_bids.train.resampling import Resampling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.tables import Column
    from neurostorm_bids.group.collect import Collection
    from neurostorm_bids.group.images import ImagesFound
    from neurostorm_bids.group.options import GroupOptions
    from neurostorm_bids.group.sources import Sources

logger = logging.getLogger(__name__)

FOLDER = "group"
REPORT = "group.html"
PHENOTYPE = "phenotype"
_MAX_LOGGED = 20


def run_group_level(options: GroupOptions) -> int:
    """Put together what was computed of the participants, write it, return the exit status.

    Returns
    -------
    int
        0 when all that was chosen could be read, 1 when some could not.
    """
    check_output_dir(options.output_dir, bids_dir=options.bids_dir)
    collection = collect_results(options)
    sources = find_sources(options)
    group = summarise_group(options, collection, sources)
    contents = _format_all(group)
    used = {result.dataset for result in collection.results}
    remove_all_leftovers(options.output_dir, ())
    write_dataset_files(
        options.output_dir,
        datasets=[dataset for name, dataset in sources.named.items() if name in used],
        participants=collection.participants,
        models=(),
    )
    write_configuration(
        options.output_dir, options.call, bids_dir=options.bids_dir, debug=options.debug
    )
    _remove_old(options.output_dir, contents, collection)
    write_files({options.output_dir / name: content for name, content in contents.items()})
    for name in contents:
        logger.info("Wrote %s", name)
    for text in dict.fromkeys(text for one in group.assessments for text in one.warnings):
        logger.warning("%s", text)
    for path, reason in collection.problems[:_MAX_LOGGED]:
        logger.error("Not used: %s: %s", path, reason)
    if (more := len(collection.problems) - _MAX_LOGGED) > 0:
        logger.error("Not used: %d more, see %s", more, REPORT)
    return UserError.exit_status if collection.problems else 0


def summarise_group(options: GroupOptions, collection: Collection, sources: Sources) -> Group:
    """Compute all that the tables and the report tell."""
    results = collection.results
    resampling = Resampling(n_permutations=options.n_permutations, seed=options.seed)
    motion = {result.run: read_motion(result, sources) for result in results}
    tsnr = read_tsnr(options.output_dir, collection.participants)
    return Group(
        options=options,
        collection=collection,
        table_roots=sources.table_roots,
        assessments=[
            assess_predictions(
                predictions,
                column=options.columns.get(predictions.target.name),
                roots=sources.table_roots,
                resampling=resampling,
            )
            for predictions in collection.predictions
        ],
        images=_find_images(options, collection, sources),
        people=[find_people(part, seed=options.seed) for part in collection.embeddings],
        quality=tabulate_quality(
            results,
            [motion[result.run] for result in results],
            tsnr=[tsnr.get((one.run, one.model.sha256), math.nan) for one in results],
            novelties=_list_novelties(collection),
        ),
    )


def _list_novelties(collection: Collection) -> list[float]:
    """Return the novelty of each run and model; NaN where no prediction tells one."""
    found = {
        (result.run, one.model): float(novelty)
        for one in collection.predictions
        for result, novelty in zip(one.results, one.novelties, strict=True)
        if math.isfinite(novelty)
    }
    return [found.get((result.run, result.model), math.nan) for result in collection.results]


def _find_images(
    options: GroupOptions, collection: Collection, sources: Sources
) -> list[ImagesFound]:
    """Look for the images that were seen, with each model, if that was asked for."""
    if options.stimuli is None:
        return []
    images = read_image_embeddings(options.stimuli)
    found = [
        find_images(
            part, images, roots=sources.table_roots, delay_s=options.delay_s, seed=options.seed
        )
        for part in collection.embeddings
    ]
    if not any(one.variants for one in found):
        told = " ".join(dict.fromkeys(note for one in found for note in one.notes))
        raise DataError(
            f"--stimuli: no run tells which image was seen. {told or 'There are no embeddings.'}"
        )
    return found


def describe_plan(options: GroupOptions) -> str:
    """Say what a call would read and what it would leave out, with why."""
    collection = collect_results(options)
    runs = {result.run for result in collection.results}
    counted = f"{len(collection.participants)} participant(s), {len(runs)} run(s)"
    lines = [f"{counted}, {len(collection.models)} model(s):"]
    root = options.output_dir
    for part in collection.parts:
        lines += [f"  read      {one.table.relative_to(root).as_posix()}" for one in part.results]
    lines += [f"  left out  {path}  ({reason})" for path, reason in collection.left_out]
    lines += [f"  unusable  {path}  ({reason})" for path, reason in collection.problems]
    # Names come from strangers: nothing in them may steer the terminal.
    return "\n".join(map(make_printable, lines))


def _format_all(group: Group) -> dict[str, str | bytes]:
    """Return the files by their names below the output folder."""
    collection = group.collection
    contents: dict[str, str | bytes] = {}
    names = name_phenotypes(collection.predictions)
    for name, predictions in zip(names, collection.predictions, strict=True):
        columns = tabulate_participants(predictions)
        contents[f"{PHENOTYPE}/{name}.tsv"] = format_table(columns)
        contents[f"{PHENOTYPE}/{name}.json"] = describe_participants(predictions, columns)
    tables: dict[str, Sequence[Column]] = {
        "runs": group.quality,
        "scores": tabulate_scores(group.assessments),
        "reidentification": tabulate_people(group.people),
        "images": tabulate_images(group.images),
        "images_by_participant": tabulate_images_by_participant(group.images),
    }
    if collection.embeddings:
        tables["embeddings"] = tabulate_embeddings(collection.embeddings)
        contents[f"{FOLDER}/embeddings.parquet"] = format_parquet(tables["embeddings"])
    for name, table in tables.items():
        if table:
            contents[f"{FOLDER}/{name}.tsv"] = format_table(table)
            contents[f"{FOLDER}/{name}.json"] = describe_columns(table)
    contents[REPORT] = format_report(group)
    return contents


def _remove_old(output_dir: Path, contents: dict[str, str | bytes], collection: Collection) -> None:
    """Remove what an earlier call wrote and this one does not, so that all tells of one call.

    Of the tables of ``phenotype/`` only those of the same targets, by other models.
    """
    predicted = {one.target.name for one in collection.predictions}
    old = [*(output_dir / FOLDER).glob("*")]
    for sidecar in (output_dir / PHENOTYPE).glob("neurostorm_*.json"):
        target = read_json_object(sidecar).get("Target")
        if isinstance(target, dict) and target.get("name") in predicted:
            old += [sidecar, sidecar.with_suffix(".tsv")]
    with explain_write_errors(output_dir):
        for path in old:
            if path.relative_to(output_dir).as_posix() not in contents:
                path.unlink(missing_ok=True)
