"""The words of a command line: as BIDS users type them, and as click reads them."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

N_POSITIONALS = 3


class _ListRun(NamedTuple):
    """Words after a list option: where they stand in the output, and how many positionals came."""

    option: str
    words: list[str]
    start: int
    n_positionals_before: int


def spread_lists(
    argv: Sequence[str],
    command: click.Command,
    *,
    levels: Collection[str] = (),
    n_positionals: int = N_POSITIONALS,
) -> list[str]:
    """Rewrite a command line as BIDS users type it into one that click reads.

    ``--participant-label 01 02`` becomes the option given twice; ``--participant_label`` becomes
    ``--participant-label``. A list that stands before the positional arguments swallows them
    (``--participant-label 01 02 BIDS_DIR OUTPUT_DIR participant``): as many words as positional
    arguments are missing are given back, from the end of the last list that holds enough. Names
    of levels at its end are all given back.

    Parameters
    ----------
    argv : the words typed.
    command : says which options there are.
    levels : words that may stand several times at the end.
    n_positionals : how many positional arguments are needed.
    """
    takes_list = {name for p in command.params if p.multiple for name in p.opts if name[0] == "-"}
    takes_one = {
        name
        for p in command.params
        if isinstance(p, click.Option) and not (p.multiple or p.is_flag or p.count)
        for name in p.opts
    }
    options: list[str] = []
    positionals: list[str] = []
    lists: list[_ListRun] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            positionals += words
            break
        if not _is_option(word):
            positionals.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if name in takes_list:
            values = [value] if equals else []
            values += list(takewhile(lambda w: not _is_option(w), words))
            del words[: len(values) - bool(equals)]
            lists.append(_ListRun(name, values, len(options), len(positionals)))
        elif name in takes_one and not equals and words:
            options += [name, words.pop(0)]
        else:
            options.append(name + equals + value)
    _give_back(positionals, lists, levels, n_positionals=n_positionals)
    for one in lists:
        # A list option without a word goes on as it is: click says that it needs an argument.
        options += [part for word in one.words for part in (one.option, word)] or [one.option]
    return [*options, "--", *positionals] if positionals else options


def _give_back(
    positionals: list[str],
    lists: Sequence[_ListRun],
    levels: Collection[str],
    *,
    n_positionals: int,
) -> None:
    """Move to the positional arguments what a list has swallowed of them."""
    n_levels = _count_levels(positionals, levels)
    missing = n_positionals - len(positionals) + max(n_levels - 1, 0)
    if missing <= 0:
        return
    for run in reversed(lists):
        n_words = missing + (0 if n_levels else max(_count_levels(run.words, levels) - 1, 0))
        if n_words < len(run.words):
            given = run.words[-n_words:]
            del run.words[-n_words:]
            positionals[run.n_positionals_before : run.n_positionals_before] = given
            return


def _count_levels(words: Sequence[str], levels: Collection[str]) -> int:
    """Return how many words at the end are names of levels."""
    return sum(1 for _ in takewhile(lambda word: word in levels, reversed(words)))


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"
