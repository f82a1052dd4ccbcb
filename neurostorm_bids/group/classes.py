"""The words of a table matched with the names of a model's classes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def match_classes(words: Collection[str], classes: Sequence[str]) -> dict[str, str]:
    """Match words with classes: as they are, else without regard to case, else by the beginning.

    A word and a class that has no word yet match by the beginning if one of the two begins the
    other (F and female), and neither does so with another word or class.

    Returns
    -------
    Class by word; words that match none are absent.
    """
    folded = Counter(name.casefold() for name in classes)
    matched = {}
    for word in sorted(words):
        alike = [name for name in classes if name.casefold() == word.casefold()]
        if word in classes:
            matched[word] = word
        elif alike and folded[word.casefold()] == 1:
            matched[word] = alike[0]
    free = [name for name in classes if name not in matched.values()]
    rest = [word for word in sorted(words) if word not in matched]
    pairs = [(word, name) for word in rest for name in free if _begin_alike(word, name)]
    n_classes = Counter(word for word, _ in pairs)
    n_words = Counter(name for _, name in pairs)
    by_beginning = {
        word: name for word, name in pairs if n_classes[word] == 1 and n_words[name] == 1
    }
    return matched | by_beginning


def _begin_alike(word: str, name: str) -> bool:
    low, other = word.casefold(), name.casefold()
    return bool(low and other) and (low.startswith(other) or other.startswith(low))
