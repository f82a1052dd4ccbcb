"""The SHA-256 of a file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from neurostorm_bids.errors import ReadError

if TYPE_CHECKING:
    from pathlib import Path


def digest_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal.

    Raises
    ------
    ReadError
        If reading breaks off.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ReadError(f"Reading {path} broke off: {err}. Try again.") from err
