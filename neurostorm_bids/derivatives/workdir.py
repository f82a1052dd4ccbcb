"""The work folder: what is kept between calls, and how it is emptied without harm to others'."""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.atomic import explain_write_errors, remove_leftovers, write_text
from neurostorm_bids.derivatives.dataset import DESCRIPTION
from neurostorm_bids.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

MARKER = ".neurostorm-work"
FOLDERS = ("store", "training", "embeddings", "connectivity", "tuning", "fmriprep", "tmp")
"""What the levels keep there; nothing else is ever removed, a clone of OpenNeuro neither."""

_PROCESS_COUNTS = ("WORLD_SIZE", "SLURM_NTASKS")


def open_work_dir(folder: Path, *, bids_dir: Path | None = None, clean: bool = False) -> Path:
    """Make a work folder, or take one that is there, emptied if asked for.

    Only folders that this program made are removed: a marker tells them from those that were
    there before it.

    Parameters
    ----------
    bids_dir : the input, which is never written to but below its ``derivatives``.

    Raises
    ------
    UsageError
        If it lies in the input; if there is something to remove that this program did not make;
        if several processes would remove it under one another.
    OutputError
        If the folder cannot be written.
    """
    if bids_dir is not None:
        _check_outside(folder, bids_dir)
    remove_leftovers(folder)
    there = [
        path for path in (folder / name for name in FOLDERS) if path.is_symlink() or path.exists()
    ]
    is_ours = (folder / MARKER).is_file()
    if clean and there:
        if not is_ours:
            raise UsageError(
                f"--clean-workdir would remove {there[0]}, which neurostorm did not make: there is "
                f"no {MARKER} beside it. Name another --work-dir, or remove it yourself."
            )
        if any(os.environ.get(name, "1") != "1" for name in _PROCESS_COUNTS):
            raise UsageError(
                "--clean-workdir with several processes would remove what others have begun to "
                f"use. Remove {folder} before the call, or call once with one process."
            )
        with explain_write_errors(folder):
            for path in there:
                logger.info("Removing %s", path)
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
    elif not there and not is_ours:
        write_text(
            folder / MARKER, "Made by neurostorm-bids, which may remove what it keeps here.\n"
        )
    return folder


def _check_outside(folder: Path, bids_dir: Path) -> None:
    root = bids_dir.resolve()
    if not (folder.resolve().is_relative_to(root) and (root / DESCRIPTION).exists()):
        return
    if folder.resolve().relative_to(root).parts[:1] != ("derivatives",):
        raise UsageError(
            f"The work folder {folder} lies in the input dataset {bids_dir}, which is never "
            "written to. Name another --work-dir."
        )
