"""The way into kernels that bring weights into their own order before they start."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING

import torch

from neurostorm_bids.kernels.library import LEVELS, choose_level, require_library
from neurostorm_bids.kernels.threads import share_work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_LINE = 64
"""Bytes of a cache line; the widest vectors shall not straddle two."""


def run_packed(
    name: str, job: ctypes.Structure, tensors: Mapping[str, Tensor | None], *, n_parts: int
) -> None:
    """Run ``ns_<name>_pack``, then ``ns_<name>`` by several threads.

    Parameters
    ----------
    name : the kernel's function.
    job : its struct, with all sizes.
    tensors : what the struct's pointers shall point to, contiguous, by the fields' names.
    n_parts : in how many parts the work can be taken.

    Raises
    ------
    MissingFileError, UsageError, MemoryError
        When the library, the instruction set asked for, or memory is not there.
    """
    library = require_library()
    functions, level = library.functions, LEVELS.index(choose_level(library))
    for field, part in tensors.items():
        setattr(job, field, None if part is None else part.data_ptr())
    room = getattr(functions, f"ns_{name}_room")(ctypes.byref(job), level)
    packed = torch.empty(room + _LINE // 4, dtype=torch.float32)
    job.packed = packed.data_ptr() + -packed.data_ptr() % _LINE
    getattr(functions, f"ns_{name}_pack")(ctypes.byref(job), level)
    # As long as a thread knows the job, its memory is there.
    job.tensors = (tensors, packed)
    run = getattr(functions, f"ns_{name}")
    share_work(functools.partial(run, ctypes.byref(job), level), n_parts=n_parts)
