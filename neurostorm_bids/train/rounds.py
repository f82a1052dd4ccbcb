"""One seed's splits, learning and baselines; what is learnt with the next seed starts anew."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.train.comparators import compare_with_baselines
from neurostorm_bids.train.finetune_options import BY_SITE, HELD_OUT, K_FOLD
from neurostorm_bids.train.learning import (
    calibrate_learnt,
    evaluate_by_gradients,
    evaluate_linear,
    learn_by_gradients,
    learn_linear,
)
from neurostorm_bids.train.split_file import check_groups, read_splits
from neurostorm_bids.train.splits import (
    HELD_OUT_SHARE,
    N_FOLDS,
    add_validation,
    split_by_site,
    split_held_out,
    split_k_fold,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.cases import Cases
    from neurostorm_bids.train.comparators import Compared
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.finetune_options import FinetuneOptions
    from neurostorm_bids.train.learning import Learnt
    from neurostorm_bids.train.splits import Splits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What the rounds of all seeds share.

    Attributes
    ----------
    model : to start from.
    examples, cases : what is learnt from; without features.
    roots : folders of tables and events.
    sites, groups : of participants; None where no column names them.
    connectivity, activity : of each example; None where the baseline is left out.
    nuisance : of each example.
    """

    model: Model
    examples: Examples
    cases: Cases
    roots: Sequence[Path]
    sites: Mapping[str, str | None] | None
    groups: Mapping[str, str | None] | None
    connectivity: NDArray[np.float64] | None
    activity: NDArray[np.float64] | None
    nuisance: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """What came of one seed.

    Attributes
    ----------
    seed : of splits, training and baselines.
    splits : who was learnt from and who was tested.
    compared : the model, then the baselines.
    """

    seed: int
    splits: Splits
    compared: tuple[Compared, ...]


class Rounds(NamedTuple):
    """What came of all seeds.

    Attributes
    ----------
    rounds : one for each seed, in order.
    learnt : with the first seed; its model is the one that is kept.
    notes : of all of them, in sentences.
    """

    rounds: tuple[Round, ...]
    learnt: Learnt
    notes: tuple[str, ...]


def run_rounds(options: FinetuneOptions, material: Material) -> Rounds:
    """Split, learn and compare with every seed; keep the model of the first."""
    first, learnt = _run_first(options, material)
    rounds, notes = [first], [*first.splits.notes, *learnt.evaluation.notes, *learnt.notes]
    for seed in options.seeds[1:]:
        logger.info("Seed %d", seed)
        own = options.with_seed(seed)
        splits = split(own, material)
        evaluation = _evaluate(own, material, splits)
        rounds.append(_compare(own, material, splits, evaluation))
        notes += [f"Seed {seed}, {note}" for note in evaluation.notes]
        notes += splits.notes
    if len(rounds) > 1 and all(one.splits.folds == first.splits.folds for one in rounds):
        what = "inner folds" if options.adapt == "linear" else "initialisation and order of clips"
        notes.append(f"All {len(rounds)} seeds have the same split; they differ in {what} alone.")
    return Rounds(tuple(rounds), learnt, tuple(dict.fromkeys(notes)))


def split(options: FinetuneOptions, material: Material) -> Splits:
    """Decide who is learnt from and who is tested.

    Raises
    ------
    DataError
        If there are too few participants, or a split file puts a group on two sides.
    """
    examples, groups, seed = material.examples, material.groups, options.train.seed
    people = examples.gather_people(groups)
    if options.splits == K_FOLD:
        splits = split_k_fold(people, n_folds=options.n_folds or N_FOLDS, seed=seed)
    elif options.splits == HELD_OUT:
        splits = split_held_out(people, share=options.held_out_share or HELD_OUT_SHARE, seed=seed)
    elif options.splits == BY_SITE:
        splits = split_by_site(examples.participants, material.sites or {})
    else:
        splits = read_splits(Path(options.splits), people.labels, seed=seed)
    if groups is not None:
        check_groups(splits, groups)
    if options.adapt != "linear":
        splits = add_validation(splits, people, share=options.validation_share, seed=seed)
    logger.info("Splits: %s", splits.method)
    for note in splits.notes:
        logger.warning("%s", note)
    return splits


def _run_first(options: FinetuneOptions, material: Material) -> tuple[Round, Learnt]:
    splits, examples = split(options, material), material.examples
    if options.adapt == "linear":
        learnt = learn_linear(
            options, material.model, examples, material.cases, splits, groups=material.groups
        )
    else:
        learnt = learn_by_gradients(
            options,
            material.model,
            examples,
            splits,
            roots=material.roots,
            groups=material.groups,
        )
    learnt = calibrate_learnt(options, examples, learnt)
    return _compare(options, material, splits, learnt.evaluation), learnt


def _evaluate(options: FinetuneOptions, material: Material, splits: Splits) -> OutOfFold:
    model, examples = material.model, material.examples
    if options.adapt == "linear":
        return evaluate_linear(
            options, model, examples, material.cases, splits, groups=material.groups
        )
    return evaluate_by_gradients(options, model, examples, splits, roots=material.roots)


def _compare(
    options: FinetuneOptions, material: Material, splits: Splits, evaluation: OutOfFold
) -> Round:
    compared = compare_with_baselines(
        options,
        material.examples,
        material.cases,
        splits,
        evaluation,
        connectivity=material.connectivity,
        activity=material.activity,
        nuisance=material.nuisance,
        groups=material.groups,
    )
    return Round(seed=options.train.seed, splits=splits, compared=compared)
