"""Who is learnt from and who is tested: always whole participants, never single runs.

A split is a function of labels, strata, groups and the seed. The order in which participants come
changes nothing.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.inputs.names import natural_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

ROLES = ("train", "validation", "test")
N_FOLDS = 5
HELD_OUT_SHARE = 0.2

_MAX_STRATA_OF_NUMBERS = 10


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Participants by role; none has two.

    Attributes
    ----------
    name : ``fold1``, ``heldout``, or the site that is left out.
    train : labels of those that a model is fitted on.
    test : labels of those that it is tested on; nothing is chosen by looking at them.
    validation : labels of those that decide when to stop, if any are set aside.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = Counter([*self.train, *self.validation, *self.test])
        twice = [label for label, count in counts.items() if count > 1]
        if twice:
            raise DataError(
                f"Fold {self.name!r} has participants on two sides: {', '.join(twice[:5])}. "
                "Give each participant one role."
            )
        for role in ("train", "test"):
            if not getattr(self, role):
                raise DataError(f"Fold {self.name!r} has no participants to {role}.")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """One or more folds; no participant is tested twice.

    Attributes
    ----------
    folds : in order.
    method : how they were made, in words.
    notes : what to know about them, in sentences.
    """

    folds: tuple[Fold, ...]
    method: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.folds:
            raise DataError("Expected at least one fold, found none.")
        names = Counter(fold.name for fold in self.folds)
        tested = Counter(label for fold in self.folds for label in fold.test)
        twice = [label for label, count in (names + tested).items() if count > 1]
        if twice:
            raise DataError(
                f"Found folds of one name, or participants tested in two folds: {twice[:5]}. "
                "Test each participant once, and repeat the whole with another file."
            )

    @property
    def participants(self) -> tuple[str, ...]:
        """All labels that have a role in any fold, in natural order."""
        return sort_labels(
            label for fold in self.folds for label in (*fold.train, *fold.validation, *fold.test)
        )


@dataclass(frozen=True, kw_only=True)
class People:
    """Participants to be split, in natural order whatever order they came in.

    Attributes
    ----------
    labels : without ``sub-``, all different.
    strata : shape (n,), numbers of the strata to be spread evenly over folds.
    groups : shape (n,), numbers of the groups that stay together; a group of one for each
        participant where nobody belongs together.
    notes : what was noticed.
    """

    labels: tuple[str, ...]
    strata: NDArray[np.int64]
    groups: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @property
    def is_grouped(self) -> bool:
        """Whether any group has more than one member."""
        return len(set(self.groups.tolist())) < len(self.labels)


def gather_people(
    labels: Sequence[str],
    *,
    values: Mapping[str, str | float] | None = None,
    groups: Mapping[str, str | None] | None = None,
) -> People:
    """Sort out strata and groups of participants.

    Parameters
    ----------
    labels : of the participants; repeated ones count once.
    values : class or number of each, to spread evenly over folds: classes as they are, numbers in
        up to ten ranges of equal count. None: no strata.
    groups : what participants share that must not be on two sides (a family, a site). Those
        without, or with None, stand for themselves, which is noted.
    """
    ordered = sort_labels(labels)
    notes = []
    if groups is None:
        numbers = np.arange(len(ordered))
    else:
        lonely = [label for label in ordered if groups.get(label) is None]
        if lonely:
            notes.append(f"{len(lonely)} participant(s) belong to no group and stand alone.")
        names = [
            f"alone {label}" if groups.get(label) is None else f"in {groups[label]}"
            for label in ordered
        ]
        numbers = np.unique(names, return_inverse=True)[1]
    return People(
        labels=ordered,
        strata=_make_strata(ordered, values),
        groups=numbers.astype(np.int64),
        notes=tuple(notes),
    )


def _make_strata(
    labels: Sequence[str], values: Mapping[str, str | float] | None
) -> NDArray[np.int64]:
    if values is None:
        return np.zeros(len(labels), dtype=np.int64)
    absent = [label for label in labels if label not in values]
    if absent:
        raise UsageError(f"No value to stratify by for {len(absent)} participants: {absent[:5]}.")
    of_labels = [values[label] for label in labels]
    if all(isinstance(value, str) for value in of_labels):
        return np.unique(of_labels, return_inverse=True)[1].astype(np.int64)
    numbers = np.array(of_labels, dtype=np.float64)
    n_strata = max(1, min(_MAX_STRATA_OF_NUMBERS, len(numbers) // 10))
    edges = np.quantile(numbers, np.linspace(0, 1, n_strata + 1)[1:-1])
    return np.searchsorted(edges, numbers, side="right").astype(np.int64)


def split_k_fold(people: People, *, n_folds: int = N_FOLDS, seed: int = 0) -> Splits:
    """Test every participant once, in one of `n_folds` parts.

    Raises
    ------
    UsageError
        If there are fewer than two folds.
    DataError
        If there are fewer groups than folds.
    """
    if n_folds < 2:  # noqa: PLR2004
        raise UsageError(f"Expected at least 2 folds, found {n_folds}.")
    tests = _deal(people, n_folds, seed)
    folds = tuple(
        _make_fold(people, f"fold{number}", tests == number - 1) for number in range(1, n_folds + 1)
    )
    how = f"{n_folds}-fold by participant, seed {seed}"
    return Splits(folds=folds, method=_describe(people, how), notes=people.notes)


def split_held_out(people: People, *, share: float = HELD_OUT_SHARE, seed: int = 0) -> Splits:
    """Test one part of the participants, drawn once.

    Groups are not divided, so that the part is then as near to `share` as whole folds allow.
    """
    is_test = _draw(people, share, seed)
    fold = _make_fold(people, "heldout", is_test)
    how = f"held-out {len(fold.test)} of {len(people.labels)} participants, seed {seed}"
    return Splits(folds=(fold,), method=_describe(people, how), notes=people.notes)


def split_by_site(labels: Sequence[str], sites: Mapping[str, str | None]) -> Splits:
    """Test each site in turn with a model that has seen no participant of it.

    Raises
    ------
    DataError
        If there are fewer than two sites. Participants without a site are left out, and noted.
    """
    ordered = sort_labels(labels)
    members: dict[str, list[str]] = {}
    for label in ordered:
        site = sites.get(label)
        if site is not None:
            members.setdefault(site, []).append(label)
    if len(members) < 2:  # noqa: PLR2004
        found = ", ".join(members) or "none"
        raise DataError(f"Leaving one site out needs two sites or more, found {found}.")
    n_without = len(ordered) - sum(map(len, members.values()))
    folds = tuple(
        Fold(
            name=site,
            train=tuple(label for label in ordered if sites.get(label) not in {None, site}),
            test=tuple(members[site]),
        )
        for site in sorted(members, key=natural_key)
    )
    notes = [f"{n_without} participant(s) have no site and were left out."] if n_without else []
    return Splits(folds=folds, method=f"leave one site out, {len(folds)} sites", notes=tuple(notes))


def add_validation(splits: Splits, people: People, *, share: float, seed: int = 0) -> Splits:
    """Set part of a fold's training participants aside, to decide when to stop.

    A fold that has validation participants stays as it is. `people` gives strata and groups, and
    must know all participants of the splits.
    """
    folds = []
    for number, fold in enumerate(splits.folds):
        if fold.validation:
            folds.append(fold)
            continue
        inner = select_people(people, fold.train)
        is_validation = _draw(inner, share, seed + number)
        folds.append(
            replace(
                fold,
                train=_pick(inner, ~is_validation),
                validation=_pick(inner, is_validation),
            )
        )
    return replace(splits, folds=tuple(folds))


def select_people(people: People, labels: Iterable[str]) -> People:
    """Return some of the participants, with their strata and groups."""
    wanted = set(labels)
    unknown = wanted - set(people.labels)
    if unknown:
        raise UsageError(f"Nothing is known of participants {sorted(unknown)[:5]}.")
    is_in = np.array([label in wanted for label in people.labels], dtype=bool)
    return People(
        labels=_pick(people, is_in), strata=people.strata[is_in], groups=people.groups[is_in]
    )


def _deal(people: People, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the number of the part that each participant is tested in; shape (n,)."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # noqa: PLC0415

    n_groups = len(set(people.groups.tolist()))
    if n_groups < n_folds:
        raise DataError(
            f"{n_folds} folds need as many participants or groups, found {n_groups}. "
            "Take fewer folds."
        )
    splitter = (
        StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        if people.is_grouped
        else StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    )
    strata = _pool_rare(people.strata, at_least=n_folds)
    parts = np.empty(len(strata), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare strata: they were pooled
        for number, (_, test) in enumerate(splitter.split(strata, strata, people.groups)):
            parts[test] = number
    return parts


def _draw(people: People, share: float, seed: int) -> NDArray[np.bool_]:
    """Tell which participants are drawn; shape (n,)."""
    from sklearn.model_selection import StratifiedShuffleSplit  # noqa: PLC0415

    n_people = len(people.labels)
    if not 0 < share < 1:
        raise UsageError(f"The share to set aside is above 0 and below 1, found {share}.")
    if people.is_grouped:
        n_groups = len(set(people.groups.tolist()))
        parts = _deal(people, max(2, min(n_groups, round(1 / share))), seed)
        sizes = np.bincount(parts)
        drawn = parts == np.abs(sizes - share * n_people).argmin()
        return np.asarray(drawn, dtype=np.bool_)
    n_drawn = min(max(1, round(share * n_people)), n_people - 1)
    strata = _pool_rare(people.strata, at_least=2)
    if n_people < 2 or min(n_drawn, n_people - n_drawn) < len(set(strata.tolist())):  # noqa: PLR2004
        strata = np.zeros_like(strata)
    is_drawn = np.zeros(n_people, dtype=bool)
    if n_people > 1:
        splitter = StratifiedShuffleSplit(1, test_size=n_drawn, random_state=seed)
        is_drawn[next(splitter.split(strata, strata))[1]] = True
    return is_drawn


def _pool_rare(strata: NDArray[np.int64], *, at_least: int) -> NDArray[np.int64]:
    """Throw strata with too few members into one; if that is still too few, with the largest."""
    counts = np.bincount(strata)
    if counts.max(initial=0) < at_least:
        return np.zeros_like(strata)
    is_rare = counts[strata] < at_least
    into = len(counts) if is_rare.sum() >= at_least else int(counts.argmax())
    return np.where(is_rare, into, strata)


def _make_fold(people: People, name: str, is_test: NDArray[np.bool_]) -> Fold:
    return Fold(name=name, train=_pick(people, ~is_test), test=_pick(people, is_test))


def _pick(people: People, which: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(label for label, take in zip(people.labels, which, strict=True) if take)


def _describe(people: People, how: str) -> str:
    n_strata = len(set(people.strata.tolist()))
    stratified = f", {n_strata} strata" if n_strata > 1 else ""
    n_groups = len(set(people.groups.tolist()))
    return f"{how}{stratified}{f', {n_groups} groups kept whole' if people.is_grouped else ''}"


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return each label once, in natural order."""
    return tuple(sorted(set(labels), key=natural_key))
