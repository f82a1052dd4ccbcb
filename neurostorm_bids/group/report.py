"""The report of the group level: one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.conceal import conceal_paths, list_known_folders
from neurostorm_bids.group.colours import choose_colourings
from neurostorm_bids.group.pictures import (
    draw_classes,
    draw_cmc,
    draw_map,
    draw_values,
    map_embeddings,
)
from neurostorm_bids.inputs.names import join_entities
from neurostorm_bids.train.finetune_pictures import draw_classification
from neurostorm_bids.train.page import (
    format_page,
    format_paragraphs,
    format_picture,
    format_section,
    format_table,
    format_warnings,
)
from neurostorm_bids.train.summary import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.tables import Column
    from neurostorm_bids.group.collect import Collection, Embeddings
    from neurostorm_bids.group.find import Note
    from neurostorm_bids.group.options import GroupOptions
    from neurostorm_bids.group.people import PeopleFound
    from neurostorm_bids.group.truth import Assessment
    from neurostorm_bids.train.page import Cell
    from neurostorm_bids.train.scores import Score

_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "f1": "F1",
    "calibration_error": "Calibration error",
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "mean_average_precision": "Mean average precision",
}
_FEW_PARTICIPANTS = 50
_MIN_FOR_CORRELATION = 5
_MAX_NOTES = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """All that a call of the group level found out.

    Attributes
    ----------
    options : of the call.
    collection : what was read.
    table_roots : folders whose tables hold the columns of the map.
    assessments : predictions beside the truth.
    people : re-identification with each model.
    quality : a row for each run and model, in the order of ``collection.results``.
    """

    options: GroupOptions
    collection: Collection
    table_roots: Sequence[Path]
    assessments: Sequence[Assessment]
    people: Sequence[PeopleFound]
    quality: Sequence[Column]

    def conceal(self, text: str) -> str:
        """Keep this machine's paths out of a text."""
        options = self.options
        folders = list_known_folders(options.output_dir, options.bids_dir, ())
        return text if options.debug else conceal_paths(text, folders)


def format_report(group: Group) -> str:
    """Return the report: one HTML page that loads nothing from anywhere."""
    body = [
        format_paragraphs(_tell_overview(group.collection)),
        format_warnings(_list_warnings(group)),
        *(_show_assessment(group, one) for one in group.assessments),
        *(_show_map(group, part) for part in group.collection.embeddings),
        _show_people(group),
        _show_quality(group),
        _show_models(group.collection),
        _show_notes(group, "Results that cannot be used", group.collection.problems),
        _show_notes(group, "Results that were left out", group.collection.left_out),
    ]
    footer = f"Written by neurostorm-bids {__version__}. For research; not for diagnosis."
    return format_page("Group report", body, footer=footer)


def _tell_overview(collection: Collection) -> str:
    runs = {result.run for result in collection.results}
    models = ", ".join(dict.fromkeys(model.name for model in collection.models))
    people = f"{count(len(collection.participants), 'participant')} with {count(len(runs), 'run')}"
    return (
        f"{people}, read by {count(len(collection.models), 'model')} ({models}). "
        "Everything here is taken from what the participant level wrote; predictions are means over a participant's runs."
    )


def _list_warnings(group: Group) -> list[str]:
    """Return what a reader should beware of."""
    collection = group.collection
    warnings = []
    if collection.problems:
        n_problems = count(len(collection.problems), "result")
        warnings.append(f"{n_problems} cannot be used and are missing here; see below.")
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
    warnings += [
        f"{result.model.name}: {text}"
        for result in collection.results
        for text in result.list_texts("ModelNotes")
    ]
    return list(dict.fromkeys(warnings))


def _show_assessment(group: Group, one: Assessment) -> str:
    target, model = one.predictions.target, one.predictions.model
    is_known = np.isfinite(one.truth)
    facts = f"{count(len(one.keys), one.level)}, {count(len(one.predictions.results), 'run')}."
    if one.source is not None:
        facts += f" Truth: {one.source}, known of {int(is_known.sum())}."
    parts = [format_paragraphs(facts, *map(group.conceal, one.notes)), _show_scores(one)]
    if target.kind == "classification":
        parts += _show_classes(one)
    else:
        parts.append(_show_values(one))
    several = sum(other.predictions.target.name == target.name for other in group.assessments) > 1
    return format_section(
        f"{target.name}, predicted by {model.name}" if several else f"Prediction of {target.name}",
        *parts,
    )


def _show_scores(one: Assessment) -> str:
    if one.scores is None:
        return ""
    unit = one.scores.unit
    heads = ["Measure", "Value", "95 % interval", "Chance"]
    rows = [_tell_score(score, unit) for score in one.measures]
    caption = (
        f"{count(one.scores.n_participants, 'participant')}. Intervals by resampling participants. "
        "Chance: of a guess that knows only how often each class, or which mean, occurs."
    )
    n_permutations = one.scores.resampling.n_permutations
    if n_permutations:
        heads.append("p-value")
        rows = [[*row, score.p_value] for row, score in zip(rows, one.measures, strict=True)]
        caption += f" p-values, one-sided, of {count(n_permutations, 'permutation')} of the truth."
    return format_table(heads, rows, caption=caption)


def _tell_score(score: Score, unit: str | None = None) -> list[Cell]:
    name = _NAMES[score.name]
    if unit and score.name in {"mae", "rmse"}:
        name += f" ({unit})"
    between = "n/a" if score.low is None else f"{score.low:.3g} to {score.high:.3g}"
    return [name, score.value, between, score.chance]


def _show_values(one: Assessment) -> str:
    target = one.predictions.target
    predicted = one.predicted[:, 0]
    is_scaled = target.mean is not None
    unit = target.unit if is_scaled else "z-score"
    png = draw_values(predicted, one.truth, name=target.name, unit=unit, has_same_unit=is_scaled)
    alt = (
        f"Predicted {target.name} of {len(predicted)}: {predicted.min():.3g} to "
        f"{predicted.max():.3g}, mean {predicted.mean():.3g}."
    )
    caption = "How predictions are distributed"
    if np.isfinite(one.truth).any():
        caption = f"Left: {caption[0].lower()}{caption[1:]}"
        caption += " beside the truth" if is_scaled else ""
        caption += ". Right: predicted against true"
        caption += "; on the dashed line predictions are right" if is_scaled else ""
    return format_picture(png, alt=alt, caption=f"{caption}.")


def _show_classes(one: Assessment) -> list[str]:
    classes = one.predictions.target.classes
    counts = np.bincount(one.predicted.argmax(axis=1), minlength=len(classes))
    listed = ", ".join(f"{name} {n}" for name, n in zip(classes, counts, strict=True))
    parts = [
        format_picture(
            draw_classes(one.predicted, one.truth, classes=classes),
            alt=f"Histogram of probabilities. Most probable class: {listed}.",
            caption=f"Probabilities, by true class where it is known. Most probable: {listed}.",
        )
    ]
    if one.scores is not None:
        is_known = np.isfinite(one.truth)
        png = draw_classification(
            one.truth[is_known],
            one.predicted[is_known],
            classes=classes,
            confusion=one.scores.confusion,
        )
        rows = "; ".join(
            f"of {name}, predicted "
            + ", ".join(f"{other} {n}" for other, n in zip(classes, row, strict=True))
            for name, row in zip(classes, one.scores.confusion, strict=True)
        )
        caption = (
            "Left: how often each class was predicted (columns) of each true class (rows). Middle: "
            "ROC curves. Right: how often predictions of a probability come true; on the diagonal "
            "they are calibrated, and the number is that of the predictions."
        )
        alt = f"Confusion matrix: {rows}. Beside it ROC curves and calibration."
        parts.append(format_picture(png, alt=alt, caption=caption))
    return parts


def _show_map(group: Group, part: Embeddings) -> str:
    title = f"Map of the embeddings of {part.model.name}"
    if len(part.results) < 2:  # noqa: PLR2004
        return format_section(title, format_paragraphs("There is one run: nothing to compare."))
    targets = [
        group.options.columns.get(one.predictions.target.name) or one.predictions.target.name
        for one in group.assessments
        if one.source is not None
    ]
    colourings = choose_colourings(
        part.results, group.options, targets=targets, roots=group.table_roots
    )
    plane = map_embeddings(part.vectors)
    owners = [result.participant for result in part.results]
    names = ", ".join(one.name for one in colourings)
    return format_section(
        title,
        format_picture(
            draw_map(plane, colourings, participants=owners),
            alt=f"{len(owners)} runs along two principal components, coloured by {names}.",
            caption="Each point is a run, in the plane in which the embeddings of the runs differ "
            f"most: the first two principal components of {part.vectors.shape[1]} features. Runs "
            "of a participant are linked, where participants are not too many.",
        ),
    )


def _show_people(group: Group) -> str:
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
            [one.model.name, *_tell_score(score), scores.n_participants, scores.n_candidates]
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
        format_picture(
            draw_cmc(curves),
            alt="; ".join(f"{name}: rank 1 {curve[0]:.2f}" for name, curve in curves.items()),
            caption="Share of runs whose person is found at a rank or before (CMC curve).",
        ),
    )


def _show_quality(group: Group) -> str:
    """Show a sortable table of runs, and whether predictions follow motion."""
    columns = {column.name: column for column in group.quality}
    hidden = {"participant_id", "session", "task", "run", "model_sha256"}
    cells = {name: column.cells for name, column in columns.items()}
    cells["source"] = _shorten_runs([result.entities for result in group.collection.results])
    if len(group.collection.models) == 1:
        hidden.add("model")
    heads = {
        "source": "Run",
        "model": "Model",
        "mean_fd": "Mean FD (mm)",
        "duration": "Duration (s)",
        "n_volumes": "Volumes",
        "repetition_time": "TR (s)",
        "brain_coverage": "Brain coverage",
        "n_warnings": "Warnings",
    }
    shown = [name for name in columns if name not in hidden]
    table = format_table(
        [heads[name] for name in shown],
        zip(*(cells[name] for name in shown), strict=True),
        caption="Click on the head of a column to sort by it. FD: framewise displacement, from the "
        "confounds of the source. Volumes: on the model's clock. TR: of the source. Brain "
        "coverage: share of the brain mask in the model's field of view. Warnings: their text is "
        "in the run's sidecar.",
        is_sortable=True,
    )
    return format_section("Quality of the runs", _relate_to_motion(group), table)


def _shorten_runs(entities: Sequence[Mapping[str, str]]) -> list[str]:
    """Name runs without the entities, such as the space, that all of them share."""
    keys = dict.fromkeys(key for one in entities for key in one)
    values = {key: {one.get(key) for one in entities} for key in keys}
    kept = {key for key in keys if key in {"sub", "ses", "task"} or len(values[key]) > 1}
    return [
        join_entities({key: value for key, value in one.items() if key in kept}) for one in entities
    ]


def _relate_to_motion(group: Group) -> str:
    """Say how far predictions go together with head motion, which they should not rest on."""
    columns = {column.name: column.cells for column in group.quality}
    motion = dict(zip(columns["source"], columns["mean_fd"], strict=True))
    rows: list[list[Cell]] = []
    for one in group.collection.predictions:
        names = one.target.classes if len(one.target.classes) > 2 else one.target.classes[1:]  # noqa: PLR2004
        first = len(one.target.classes) - len(names)
        for place, name in enumerate(names or ("",), start=first if names else 0):
            moved = np.array([motion[result.run] for result in one.results], dtype=np.float64)
            is_known = np.isfinite(moved)
            x, y = moved[is_known], one.outputs[is_known, place]
            if len(x) >= _MIN_FOR_CORRELATION and np.ptp(x) > 0 and np.ptp(y) > 0:
                what = f"probability of {name}" if name else "value"
                correlation = float(spearmanr(x, y).statistic)
                rows.append([one.target.name, one.model.name, what, len(x), correlation])
    if not rows:
        return ""
    return format_table(
        ["Target", "Model", "Prediction", "Runs", "Spearman correlation with mean FD"],
        rows,
        caption="Whether predictions go together with head motion. Far from 0, motion may carry "
        "the prediction, or the target itself goes together with motion.",
    )


def _show_models(collection: Collection) -> str:
    rows: list[list[Cell]] = []
    for model in collection.models:
        own = [result for result in collection.results if result.model == model]
        runs = len({result.run for result in own})
        source = str(own[0].sidecar.get("ModelSource", "n/a")) if own else "n/a"
        rows.append([model.name, source, model.sha256, runs])
    return format_section(
        "Models", format_table(["Model", "From", "SHA-256", "Runs"], rows, caption="")
    )


def _show_notes(group: Group, title: str, notes: Sequence[Note]) -> str:
    if not notes:
        return ""
    rows = [[note.path, group.conceal(note.reason)] for note in notes[:_MAX_NOTES]]
    more = len(notes) - len(rows)
    caption = f"{count(len(notes), 'file')}" + (f"; {more} more are not shown." if more else ".")
    return format_section(title, format_table(["File", "Why"], rows, caption=caption))
