"""Locks between processes, and what becomes of them on file systems that have none."""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def hold_lock(path: Path, *, timeout_s: float = -1, mode: int = 0o666) -> Iterator[None]:
    """Hold a lock; the system releases it when the process dies.

    A file system without locks, as some network file systems are, is warned of, and the work goes
    on without one: files still appear whole or not at all, but of two calls that add to the same
    file at the same moment, one may lose what the other added.

    Parameters
    ----------
    path : an empty file, made if need be, which stays.
    timeout_s : how long to wait for another process; below zero for ever.

    Raises
    ------
    filelock.Timeout
        If another process holds it for that long.
    OSError
        If the file cannot be made.
    """
    lock = FileLock(path, timeout=timeout_s, mode=mode)
    try:
        lock.acquire()
    except NotImplementedError:  # how older versions of the library tell ENOSYS
        _warn(path)
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise
        _warn(path)
    try:
        yield
    finally:
        lock.release()


def _warn(path: Path) -> None:
    logger.warning(
        "The file system of %s has no locks. Results are safe, but do not let several calls write "
        "to one folder there at the same time: each for itself is fine.",
        path.parent,
    )
