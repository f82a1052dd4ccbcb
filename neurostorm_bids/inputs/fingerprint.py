"""What tells one version of a file from another without reading all of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from neurostorm_bids.errors import ReadError

if TYPE_CHECKING:
    from pathlib import Path

_ENDS = 64 * 1024


def fingerprint_file(path: Path) -> str:
    """Return a hash that changes when the contents of the file change.

    It holds no path and no date, so that copies of a dataset give the same results. Of a gzip file
    the size and both ends are enough: the last bytes are a CRC-32 of everything in it (RFC 1952).
    Any other file is read in full.

    Raises
    ------
    ReadError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            if path.suffix != ".gz":
                return hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            digest = hashlib.sha256(f"{size} ".encode())
            digest.update(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
            return digest.hexdigest()
    except OSError as err:
        raise ReadError(
            f"Cannot read {path}: {err.strerror or err}. Check that it is there and readable."
        ) from err
