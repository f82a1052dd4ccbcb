"""What nibabel and the readers of gzip raise at files that are damaged; slow to import."""

from __future__ import annotations

import zlib
from gzip import BadGzipFile
from typing import cast

from isal import igzip_lib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

DAMAGED_STREAM: tuple[type[Exception], ...] = (
    BadGzipFile,
    EOFError,
    cast("type[Exception]", igzip_lib.IsalError),
    zlib.error,
)
DAMAGED_HEADER: tuple[type[Exception], ...] = (
    *DAMAGED_STREAM,
    ImageFileError,
    HeaderDataError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
UNREADABLE: tuple[type[Exception], ...] = (*DAMAGED_HEADER, OSError)
