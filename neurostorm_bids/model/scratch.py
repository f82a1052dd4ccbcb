"""Folders that become a model folder when they are whole, and what kills leave of them."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Scratch(NamedTuple):
    """Hidden names beside a folder: of what will become it, and of what was it before."""

    new: Path
    old: Path


@contextmanager
def open_scratch(folder: Path) -> Iterator[Scratch]:
    """Make a folder beside another, to be filled and renamed; it is gone afterwards.

    When that went well, what killed processes left of doing the same goes too.
    """
    unique = uuid.uuid4().hex[:8]
    names = (f".{folder.name}.{unique}.{end}" for end in ("tmp", "old"))
    scratch = Scratch(*(folder.with_name(name) for name in names))
    try:
        scratch.new.mkdir(parents=True)
        descriptor = os.open(scratch.new, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks: nobody takes it for a leftover
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield scratch
        finally:
            os.close(descriptor)
        _remove_leftovers(folder)
    finally:
        shutil.rmtree(scratch.new, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove scratch folders of dead processes; a living one holds a lock on its own."""
    pattern = f".{glob.escape(folder.name)}.????????"
    for left in (*folder.parent.glob(f"{pattern}.tmp"), *folder.parent.glob(f"{pattern}.old")):
        # What cannot be opened, locked or removed is not ours to remove, and harms nobody.
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(descriptor)
