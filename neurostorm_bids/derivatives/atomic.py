"""Files that appear whole or not at all: a temporary name, fsync, rename."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from neurostorm_bids.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

Content: TypeAlias = "str | bytes | Iterable[bytes]"

# A leading dot hides a leftover from the BIDS validator and from PyBIDS.
PREFIX = ".neurostorm-"
SUFFIX = ".tmp"

_ADVICE = {
    errno.EACCES: "You have no permission there: choose another folder, or mend its rights.",
    errno.EPERM: "You have no permission there: choose another folder, or mend its rights.",
    errno.EROFS: "The file system is read-only: choose another folder, or mount it writable.",
    errno.ENOSPC: "The disk is full: free some space there, then run the same command again.",
    errno.EDQUOT: "Your quota is used up: free some space there, then run the same command again.",
    errno.ENAMETOOLONG: "The name is too long for the file system: shorten the model's name.",
    errno.ENOTDIR: "A part of the path is a file: choose another folder.",
    errno.EEXIST: "A part of the path is a file: choose another folder.",
}


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a failure of the operating system into an `OutputError` that says what to do.

    `path` is named where the system does not say which file it stumbled over.
    """
    try:
        yield
    except OSError as err:
        raise OutputError(
            f"Cannot write {err.filename or path}: {err.strerror or err}. "
            f"{_ADVICE.get(err.errno or 0, 'Check the output folder and the disk it lies on.')}"
        ) from err


def write_text(path: Path, text: str, *, scratch: Path | None = None) -> None:
    """Write one file as UTF-8, whole or not at all; its folder is made if need be.

    `scratch` is as for `write_files`.
    """
    write_files({path: text}, scratch=scratch)


def write_files(
    contents: Mapping[Path, Content],
    *,
    seals: Collection[Path] = (),
    scratch: Path | None = None,
) -> None:
    """Write files that belong together, so that whoever finds the seals finds all of them.

    Everything is written under temporary names first. Then the old seals are removed, the other
    files get their names, and the new seals get theirs last. A process killed between any two
    steps leaves the old files, or no complete set of seals, or the new files.

    Parameters
    ----------
    contents : what to write, by path; text becomes UTF-8, and of what is too large for memory the
        bytes come piece by piece. Folders are made if need be.
    seals : those of the paths whose presence says that all of the files are there.
    scratch : a folder on the same file system for the temporary files, where no later call would
        look into the paths' own; those if None.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    folders = {path.parent for path in contents}
    with explain_write_errors(next(iter(contents)).parent), ExitStack() as stack:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        staged = {
            path: stack.enter_context(_stage(scratch or path.parent, one))
            for path, one in contents.items()
        }
        for seal in seals:
            seal.unlink(missing_ok=True)
        _sync(folders if seals else ())
        for group in ([path for path in contents if path not in seals], seals):
            for path in group:
                try:
                    staged[path].replace(path)
                except FileNotFoundError:
                    # Where locks hold nobody off, another call takes it for a leftover.
                    one = contents[path]
                    if not isinstance(one, str | bytes):
                        raise
                    stack.enter_context(_stage(scratch or path.parent, one)).replace(path)
            _sync({path.parent for path in group})


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed.

    A living process holds a lock on the file that it writes, so its files stay.
    """
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        # What cannot be opened, locked or removed is not ours to remove, and harms nobody.
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def remove_leftovers_below(folder: Path) -> None:
    """Remove the temporary files of processes that were killed from a whole tree."""
    for parent, _, names in os.walk(folder):
        if any(name.startswith(PREFIX) and name.endswith(SUFFIX) for name in names):
            remove_leftovers(folder / parent)


@contextmanager
def _stage(folder: Path, content: Content) -> Iterator[Path]:
    """Write under a temporary name in a folder, and hold it locked until it is renamed."""
    if isinstance(content, str):
        content = content.encode("utf-8", errors="replace")
    temporary, descriptor = _create_locked(folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _create_locked(folder: Path) -> tuple[Path, int]:
    """Create a temporary file and lock it; its rights follow the umask, as of any other file."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # some network file systems have no locks: nobody removes it then
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between creation and lock another process may have taken it for a leftover.
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _sync(folders: Iterable[Path]) -> None:
    """Make sure that the names in these folders outlive a loss of power."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as err:
            # Some network file systems cannot sync a folder; they keep its names by themselves.
            if err.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
                raise
        finally:
            os.close(descriptor)
