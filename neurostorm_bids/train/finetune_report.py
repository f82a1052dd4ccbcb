"""The report of a fine-tuning: is the model any good, beside what, and for whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from neurostorm_bids import __version__
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
from neurostorm_bids.train.baselines import MAIN_MEASURE
from neurostorm_bids.train.finetune_pictures import draw_classification, draw_regression
from neurostorm_bids.train.finetune_trust import show_trust
from neurostorm_bids.train.seeds import format_spread, summarise_seeds

if TYPE_CHECKING:
    from neurostorm_bids.train.comparators import Compared
    from neurostorm_bids.train.finetune_outcome import Finetuning
    from neurostorm_bids.train.scores import Score

_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "f1": "F1",
    "calibration_error": "calibration error",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson r",
    "spearman": "Spearman r",
}
_FEW_PARTICIPANTS = 50
_NOT_SHOWN = {
    "train",
    "selection",
    "bids_dir",
    "output_dir",
    "work_dir",
    "derivatives",
    "model",
    "call",
    "clean_workdir",
}


def format_finetuning(found: Finetuning) -> str:
    """Return the report: one HTML page that loads nothing from anywhere."""
    target = found.examples.target
    body = [
        format_paragraphs(*tell_outcome(found)),
        format_warnings(list_warnings(found)),
        _show_scores(found),
        _show_seeds(found) if len(found.rounds) > 1 else "",
        _show_picture(found),
        show_trust(found),
        _show_people(found),
        _show_splits(found),
        format_section("Notes", format_paragraphs(*found.notes)) if found.notes else "",
        _show_options(found),
    ]
    footer = f"Written by neurostorm-bids {__version__}. For research; not for diagnosis."
    return format_page(f"Fine-tuning for {target.name}: {found.options.adapt}", body, footer=footer)


def tell_outcome(found: Finetuning) -> list[str]:
    """Return paragraphs: what was learnt, and whether it is better than the baselines."""
    model, *baselines = found.compared
    scores, target = model.scores, found.examples.target
    name = MAIN_MEASURE[scores.kind]
    main = scores[name]
    learnt = (
        f"{found.started_from} was adapted to {target.name} ({found.options.adapt}: "
        f"{found.parameters} trained). Every prediction scored here is of a participant from "
        f"whom the model scored had not learnt {target.name} here ({found.splits.method})."
        # What is known stands among the warnings.
        + ("" if found.familiar.n_known else f" {found.familiar.describe()}")
    )
    lines = [learnt, f"{_NAMES[name]} of the model: {_tell_score(main, scores.unit)}."]
    lines += [one.verdict.describe() for one in baselines if one.verdict is not None]
    if len(found.rounds) > 1:
        seeds = ", ".join(str(one.seed) for one in found.rounds)
        lines.append(
            f"All that was done with the seeds {seeds}. What is said above, and the model that is "
            f"kept, are of the first ({found.rounds[0].seed}). "
            + " ".join(one.describe() for one in summarise_seeds(found.rounds))
        )
    return lines


def list_warnings(found: Finetuning) -> list[str]:
    """Return what a reader should beware of."""
    model = found.compared[0]
    warnings = [found.familiar.describe()] if found.familiar.n_known else []
    lost = [one.name for one in found.compared if one.verdict and not one.verdict.is_beaten]
    if lost:
        warnings.append(f"The model does not beat {_join(lost)}.")
    unsure = [
        one.name
        for one in summarise_seeds(found.rounds)
        if one.name not in lost and not all(one.is_beaten)
    ]
    if unsure:
        warnings.append(f"The model does not beat {_join(unsure)} with every seed.")
    if model.scores.n_participants < _FEW_PARTICIPANTS:
        warnings.append(
            f"{model.scores.n_participants} participants were tested: the intervals are wide, and "
            "tell only of people like these."
        )
    if found.options.site_column is None:
        warnings.append(
            "No --site-column was given: if there are several sites, differences between them may "
            "carry the predictions."
        )
    return warnings


def _show_scores(found: Finetuning) -> str:
    model, *baselines = found.compared
    unit = model.scores.unit
    names = [score.name for score in model.scores.scores]
    heads = [_NAMES[name] + _unit_of(name, unit) for name in names]
    rows = [
        [one.name, *(_tell_score(score) for score in one.scores.scores)] for one in found.compared
    ]
    rows.append(
        ["chance", *("n/a" if s.chance is None else f"{s.chance:.3g}" for s in model.scores.scores)]
    )
    parts = [
        format_table(
            ["Method", *heads],
            rows,
            caption="In brackets 95 % intervals, by resampling participants; they do not allow for "
            "what models of different folds share. All methods tested the same participants in the "
            "same splits; an AUROC compares those of one fold. Chance: of a guess that knows only "
            "how often each class, or which mean, occurs."
            + (f" With the seed {found.rounds[0].seed}." if len(found.rounds) > 1 else ""),
        )
    ]
    if any(score.p_value is not None for score in model.scores.scores):
        parts.append(_show_p_values(found))
    if baselines:
        parts.append(
            format_table(
                ["The model minus", *heads],
                [[one.name, *_list_differences(one)] for one in baselines],
                caption="Differences with 95 % intervals, of the same resamples of participants, "
                "widened because models of different folds learnt from mostly the same people.",
            )
        )
    return format_section("Scores", *parts)


def _show_seeds(found: Finetuning) -> str:
    methods, unit = summarise_seeds(found.rounds), found.compared[0].scores.unit
    main = methods[0].main
    names = [spread.name for spread in methods[0].spreads]
    return format_section(
        "Seeds",
        format_table(
            ["Method", *(_NAMES[name] + _unit_of(name, unit) for name in names)],
            [[one.name, *map(format_spread, one.spreads)] for one in methods],
            caption=f"Mean and standard deviation over {len(found.rounds)} seeds: how much scores "
            "depend on who is in which fold, and on how a training begins. That they rest on these "
            "participants is told by the intervals above, not by this deviation.",
        ),
        format_table(
            ["Seed", *(one.name for one in methods)],
            [
                [seed.seed, *(_format_number(one[main].values[at]) for one in methods)]
                for at, seed in enumerate(found.rounds)
            ],
            caption=f"{_NAMES[main]}{_unit_of(main, unit)} with each seed.",
        ),
    )


def _show_p_values(found: Finetuning) -> str:
    scores = found.compared[0].scores
    return format_table(
        ["Method", *(_NAMES[score.name] for score in scores.scores)],
        [
            [one.name, *(_format_number(score.p_value) for score in one.scores.scores)]
            for one in found.compared
        ],
        caption=f"p-values, one-sided, of {found.options.n_permutations} permutations of the truth "
        + (
            "within participants"
            if scores.permutes_within
            else "between participants of a fold with as many examples"
        )
        + "; models were not fitted again. They allow for what models of different folds share.",
    )


def _show_picture(found: Finetuning) -> str:
    examples, model = found.examples, found.compared[0]
    if examples.classes:
        png = draw_classification(
            examples.truth,
            model.predictions.outputs,
            classes=examples.classes,
            confusion=model.scores.confusion,
        )
        rows = "; ".join(
            f"of {name}, predicted "
            + ", ".join(f"{c} {n}" for c, n in zip(examples.classes, counts, strict=True))
            for name, counts in zip(examples.classes, model.scores.confusion, strict=True)
        )
        alt = f"Confusion matrix: {rows}. Beside it ROC curves and calibration."
        caption = (
            "Left: how often each class was predicted (columns) of each true class (rows). Middle: "
            "ROC curves, of all folds together, while the AUROC compares within folds. Right: how "
            "often predictions of a probability come true; on the diagonal they are calibrated, "
            "and the number is that of the predictions."
        )
    else:
        unit = examples.target.unit or ""
        png = draw_regression(examples.truth, model.predictions.outputs[:, 0], unit=unit)
        alt = f"Predicted against true {examples.target.name}, one point for each example."
        caption = (
            "Left: predicted against true; on the dashed line predictions are right. Right: the "
            "error against the truth; a slope means that predictions are drawn towards the mean."
        )
    return format_section("Predictions", format_picture(png, alt=alt, caption=caption))


def _show_people(found: Finetuning) -> str:
    target = found.examples.target
    shared = dict(zip(target.keys, target.reasons, strict=True))
    counts = Counter(reason for reason in shared.values() if reason is not None)
    parts = [format_paragraphs(*target.describe())]
    if counts:
        parts.append(
            format_table(
                ["Reason", "Number"],
                [[reason, number] for reason, number in counts.most_common()],
                caption=f"Left out, for they have no value ({target.level}s).",
            )
        )
    if found.failed:
        parts.append(
            format_table(
                ["Run", "Reason"],
                [list(pair) for pair in found.failed],
                caption="Runs that could not be used.",
            )
        )
    return format_section("Who, and who was left out", *parts)


def _show_splits(found: Finetuning) -> str:
    table = format_table(
        ["Seed", "Fold", "Trained on", "Validation", "Tested"],
        [
            [one.seed, fold.name, len(fold.train), len(fold.validation), len(fold.test)]
            for one in found.rounds
            for fold in one.splits.folds
        ],
        caption=f"Participants: {found.splits.method}. No participant is on two sides. Give "
        f"finetune/{found.name}/split.tsv to --splits to use the same again"
        + (", with the same seeds." if len(found.rounds) > 1 else "."),
    )
    return format_section("Splits", table)


def _show_options(found: Finetuning) -> str:
    options = {k: v for k, v in asdict(found.options).items() if k not in _NOT_SHOWN}
    options["splits"] = found.splits.method  # a split file is named without its folder
    if found.options.adapt != "linear":
        options |= asdict(found.options.train)
    shown = {name: shorten_path(value) for name, value in options.items()}
    return format_section(
        "Options", format_facts({"model": found.started_from, **shown}, label="Options")
    )


def _list_differences(one: Compared) -> list[str]:
    return [
        "n/a"
        if difference.value is None
        else f"{difference.value:+.3g}{_tell_interval(difference.low, difference.high)}"
        for difference in one.differences
    ]


def _tell_score(score: Score, unit: str | None = None) -> str:
    if score.value is None:
        return "n/a"
    told = f"{score.value:.3g}{_tell_interval(score.low, score.high)}"
    return f"{told} {unit}" if unit and score.name in {"mae", "rmse"} else told


def _tell_interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:.3g} to {high:.3g})"


def _unit_of(name: str, unit: str | None) -> str:
    return f" ({unit})" if unit and name in {"mae", "rmse"} else ""


def _format_number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
