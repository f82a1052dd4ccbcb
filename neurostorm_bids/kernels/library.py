"""The compiled library: where it lies, what it can, and why it may not be there.

It is plain C, built when the package is installed where a C compiler is at hand, and knows neither
Python nor PyTorch: one file serves every Python, and tensors are handed over as addresses.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from pathlib import Path
from typing import NamedTuple

from neurostorm_bids.errors import MissingFileError, UsageError

logger = logging.getLogger(__name__)

FILE_NAME = "_kernels.so"
INTERFACE = 4
"""Raised with every change of a struct or a function, here and in ``kernels.c``."""
PACKED = ("ns_block_forward", "ns_block_backward", "ns_patches_forward")
"""Functions of weights in an order that ``*_pack`` makes; ``*_room`` says how much that is."""
FUNCTIONS = (
    *("ns_scan_forward", "ns_scan_backward", *PACKED),
    *(f"{name}_{part}" for name in PACKED for part in ("room", "pack")),
)
LEVELS = ("baseline", "avx2", "avx512")
"""Instruction sets, each holding those before it; elsewhere than on x86-64 only the first."""
LEVEL_VARIABLE = "NEUROSTORM_CPU_LEVEL"


class Library(NamedTuple):
    """The loaded library.

    Attributes
    ----------
    functions : the library itself, for its functions.
    best_level : the best of `LEVELS` that this processor has.
    """

    functions: ctypes.CDLL
    best_level: str


def find_library() -> Library | None:
    """Return the library, or None where it was not built or does not load; says so once."""
    library, reason = _load_library()
    if library is None:
        _say_once(f"No compiled kernels ({reason}): PyTorch operations are used on the CPU")
    return library


def require_library() -> Library:
    """Return the library.

    Raises
    ------
    MissingFileError
        When it was not built or does not load.
    """
    library, reason = _load_library()
    if library is None:
        raise MissingFileError(
            f"Expected the compiled CPU kernels, found that {reason}. Install the package again "
            "where a C compiler (gcc or clang) is at hand."
        )
    return library


def choose_level(library: Library) -> str:
    """Return the instruction set to compute with: the best, or what NEUROSTORM_CPU_LEVEL names.

    Raises
    ------
    UsageError
        When the variable names no instruction set, or one that this processor lacks.
    """
    best = LEVELS.index(library.best_level)
    wanted = os.environ.get(LEVEL_VARIABLE, "")
    if not wanted:
        return LEVELS[best]
    if wanted not in LEVELS[: best + 1]:
        raise UsageError(
            f"Expected {LEVEL_VARIABLE} to be one of {', '.join(LEVELS[: best + 1])}, which this "
            f"processor has, found {wanted!r:.40}. Unset it to have the best one chosen."
        )
    return wanted


@functools.cache
def _load_library() -> tuple[Library | None, str]:
    """Return the library and, without one, the reason."""
    path = Path(__file__).parent / FILE_NAME
    if not path.is_file():
        return None, "they were not built when the package was installed"
    try:
        functions = ctypes.CDLL(str(path))
        interface = functions.ns_interface()
        for name in FUNCTIONS:
            getattr(functions, name).argtypes = [ctypes.c_void_p, ctypes.c_int]
        for name in PACKED:
            getattr(functions, f"{name}_room").restype = ctypes.c_int64
    except (OSError, AttributeError) as err:
        return None, f"{FILE_NAME} does not load: {err}"
    if interface != INTERFACE:
        return None, f"{FILE_NAME} belongs to another version of the package"
    library = Library(functions, LEVELS[functions.ns_best_level()])
    logger.debug("Compiled kernels: this processor has %s", library.best_level)
    return library, ""


@functools.cache
def _say_once(message: str) -> None:
    logger.info(message)
