"""Many shuffles of what was asked once: how often is something found where nothing is.

The model's embeddings are those of the commands, and so are splits, linear models and scores; they
are called as functions here, for there are many. Each shuffle is taken as it is drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neurostorm_bids.group.collect import collect_results
from neurostorm_bids.group.options import GroupOptions
from neurostorm_bids.group.people import find_people
from neurostorm_bids.inputs.tables import list_table_roots
from neurostorm_bids.pretrained import load_model
from neurostorm_bids.train.examples import find_examples
from neurostorm_bids.train.features import embed_scans
from neurostorm_bids.train.finetune import discover
from neurostorm_bids.train.finetune_options import FinetuneOptions
from neurostorm_bids.train.learning import list_cases
from neurostorm_bids.train.predictor import FitOptions
from neurostorm_bids.train.probing import evaluate_probe, pool_features
from neurostorm_bids.train.scans import prepare_scans
from neurostorm_bids.train.scores import score_classification, score_regression
from neurostorm_bids.train.splits import split_k_fold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.inputs import Selection
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.features import RunFeatures
    from neurostorm_bids.train.scores import Score


def shuffle_targets(
    options: FinetuneOptions, n_shuffles: int, *, generator: np.random.Generator
) -> list[Score]:
    """Score shuffles of a target of participants, by AUROC or R², each with a split of its own."""
    model = replace(load_model(options.model), calibration=None)
    scans = prepare_scans(
        discover(options).runs,
        model.grid,
        options.folder / "store",
        n_workers=1,
        n_bits=options.store_bits,
        clip_length=model.clip_length,
    ).usable
    roots = list_table_roots([options.bids_dir])
    examples = find_examples(options, scans, clip_length=model.clip_length, roots=roots)
    used = [examples.scans[position] for position in examples.used_scans]
    found = embed_scans(model, used, options.folder / "embeddings")
    scores = []
    for seed in range(n_shuffles):
        truth = generator.permutation(examples.truth)
        scores.append(_score(replace(examples, truth=truth), found, options, seed))
    return scores


def exchange_sessions(
    raw: Path, output: Path, session: str, n_shuffles: int, *, generator: np.random.Generator
) -> list[Score]:
    """Return rank 1 of as many re-identifications in which a session changed owners by lot."""
    options = GroupOptions(bids_dir=raw, output_dir=output)
    (embeddings,) = collect_results(options).embeddings
    own = [one.entities.get("ses") == session for one in embeddings.results]
    rows, scores = np.flatnonzero(own), []
    for seed in range(n_shuffles):
        vectors = embeddings.vectors.copy()
        vectors[rows] = vectors[generator.permutation(rows)]
        outcome = find_people(replace(embeddings, vectors=vectors), seed=seed).outcome
        if outcome is None:
            raise ValueError("nobody has two sessions")
        scores.append(outcome.scores["rank1"])
    return scores


def summarise(use: str, target: str, scores: Sequence[Score]) -> dict[str, Any]:
    """Return a row: how scores lie about chance, and how many intervals leave it out."""
    values = np.array([score.value for score in scores])
    return {
        "use": use,
        "target": target,
        "measure": scores[0].name,
        "n_shuffles": len(scores),
        "chance": scores[0].chance,
        "mean": round(float(values.mean()), 4),
        "lowest": round(float(values.min()), 4),
        "highest": round(float(values.max()), 4),
        "n_intervals_above_chance": sum(one.low > one.chance for one in scores),
        "n_intervals_below_chance": sum(one.high < one.chance for one in scores),
    }


def make_options(folder: Path, model: Path, target: str, selection: Selection) -> FinetuneOptions:
    """Return the options with which the commands asked for a target."""
    return FinetuneOptions(
        bids_dir=folder / "cohort",
        output_dir=folder / "out",
        work_dir=folder / "work",
        model=str(model),
        target=target,
        selection=selection,
    )


def _score(
    examples: Examples, found: Sequence[RunFeatures], options: FinetuneOptions, seed: int
) -> Score:
    splits = split_k_fold(examples.gather_people(None), seed=seed)
    cases = list_cases(options, examples, [])
    cases = replace(cases, features=pool_features(examples, found))
    fitting = FitOptions(seed=seed)
    told = evaluate_probe(examples, cases, found, splits, groups=None, options=fitting)
    if examples.classes:
        return score_classification(
            examples.truth,
            told.outputs,
            examples.participants,
            classes=examples.classes,
            folds=told.folds,
        )["auroc"]
    return score_regression(
        examples.truth, told.outputs[:, 0], examples.participants, folds=told.folds
    )["r2"]
