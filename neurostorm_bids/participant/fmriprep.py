"""Preprocess a raw dataset with fMRIPrep in Docker, through its own wrapper ``fmriprep-docker``."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives import check_output_dir, open_work_dir
from neurostorm_bids.derivatives.atomic import explain_write_errors
from neurostorm_bids.errors import DataError, MissingFileError, TemporaryError, UsageError
from neurostorm_bids.inputs import find_datasets
from neurostorm_bids.inputs.scan import list_participants
from neurostorm_bids.participant.models import load_models
from neurostorm_bids.participant.preprocessed import look_at_results
from neurostorm_bids.printable import make_printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.options import ParticipantOptions
    from neurostorm_bids.participant.preprocessed import Preprocessed

logger = logging.getLogger(__name__)

NAME = "fmriprep"
FOLDER = Path("sourcedata") / NAME
"""Where results lie in the output folder: BIDS has what a dataset was made from there."""
MIN_MEMORY_BYTES = 8_000_000_000
DEFAULT_SPACES = ("MNI152NLin6Asym:res-2",)
FINE_MM = 1.5
"""A grid finer than this is read from 1 mm voxels, any other from 2 mm."""

_EXIT_STATUSES: dict[int, tuple[type[TemporaryError | MissingFileError], str]] = {
    126: (MissingFileError, "FreeSurfer's licence, or Docker's permission to run, is missing"),
    137: (TemporaryError, "it was killed, most likely for want of memory"),
}


def is_preprocessed(options: ParticipantOptions) -> bool:
    """Return whether the dataset holds derivatives, so that fMRIPrep is not needed."""
    try:
        find_datasets(options.bids_dir, dict(options.derivatives))
    except MissingFileError:
        if options.bids_dir.is_dir() and list_participants(options.bids_dir):
            return False
        raise
    return True


def list_unprocessed(options: ParticipantOptions) -> list[str]:
    """Return the chosen participants whom fMRIPrep has not finished, or who lack a run."""
    return [label for label, found in _look(options).items() if not found.is_finished]


def _look(options: ParticipantOptions) -> dict[str, Preprocessed]:
    return look_at_results(
        options.output_dir / FOLDER,
        options.bids_dir,
        options.selection,
        spaces={space.partition(":")[0] for space in list_spaces(options)},
    )


def compose(options: ParticipantOptions, participants: Sequence[str]) -> list[str]:
    """Return the words of the ``fmriprep-docker`` call that makes what the models read."""
    words = [
        "fmriprep-docker",
        str(options.bids_dir.absolute()),
        str((options.output_dir / FOLDER).absolute()),
        "participant",
        "--output-spaces",
        *choose_spaces(options),
        "--work-dir",
        str((options.folder / NAME).absolute()),
        "--no-tty",
        "--user",
        f"{os.getuid()}:{os.getgid()}",
    ]
    licence = find_licence(options)
    words += [] if licence is None else ["--fs-license-file", str(licence.absolute())]
    words += ["--participant-label", *participants]
    if len(options.selection.task_ids) == 1:
        words += ["--task-id", options.selection.task_ids[0].removeprefix("task-")]
    if options.selection.filter_file is not None:
        words += ["--bids-filter-file", str(options.selection.filter_file.absolute())]
    for name, value in (("--nprocs", options.nprocs), ("--omp-nthreads", options.omp_nthreads)):
        words += [] if value is None else [name, str(value)]
    if options.memory_bytes is not None:
        words += ["--mem", f"{options.memory_bytes // 1_000_000}M"]
    return [*words, *options.fmriprep_args]


def choose_spaces(options: ParticipantOptions) -> tuple[str, ...]:
    """Return the output spaces that fit the models' grids, with TemplateFlow's resolutions."""
    if not options.models:
        return DEFAULT_SPACES
    grids = [model.grid for model in load_models(options)]
    spaces = [f"{grid.space}:res-{1 if grid.side_mm < FINE_MM else 2}" for grid in grids]
    return tuple(dict.fromkeys(spaces))


def list_spaces(options: ParticipantOptions) -> tuple[str, ...]:
    """Return the output spaces of the call: those that fit, or what the further arguments say."""
    words = [word for one in options.fmriprep_args for word in one.split("=", maxsplit=1)]
    if "--output-spaces" not in words:
        return choose_spaces(options)
    *_, given = [i for i, word in enumerate(words, start=1) if word == "--output-spaces"]
    return tuple(takewhile(lambda word: not word.startswith("-"), words[given:]))


def find_licence(options: ParticipantOptions) -> Path | None:
    """Return FreeSurfer's licence: as given, or where FreeSurfer looks for it."""
    if options.fs_license_file is not None:
        return options.fs_license_file
    home = os.environ.get("FREESURFER_HOME")
    places = [os.environ.get("FS_LICENSE"), home and f"{home}/license.txt"]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def run_fmriprep(options: ParticipantOptions, participants: Sequence[str]) -> None:
    """Run fMRIPrep on some participants of a raw dataset.

    Raises
    ------
    MissingFileError
        Without Docker or a licence.
    TemporaryError
        If no Docker answers, it has too little memory, or fMRIPrep was killed.
    DataError
        If fMRIPrep failed; its exit status is told.
    """
    check_output_dir(options.output_dir, bids_dir=options.bids_dir)
    check_licence(options)
    check_docker()
    folder = options.output_dir / FOLDER
    open_work_dir(options.folder, bids_dir=options.bids_dir, clean=options.clean_workdir)
    for made in (folder, options.folder / NAME):
        with explain_write_errors(made):
            made.mkdir(parents=True, exist_ok=True)
    words = compose(options, participants)
    logger.info("Running: %s", shlex.join(words))
    # The wrapper of this installation, whatever PATH holds; a list of words, never a shell.
    command = [sys.executable, "-m", "fmriprep_docker", *words[1:]]
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603
    if status != 0:
        kind, reason = _EXIT_STATUSES.get(status, (DataError, "its messages above say why"))
        raise kind(
            f"fMRIPrep ended with status {status}: {reason}. What it finished is kept in {folder}; "
            "the same call goes on with the rest."
        )
    _check_results(options, folder)


def _check_results(options: ParticipantOptions, folder: Path) -> None:
    """Check that there is something to read of everybody; tell which runs fMRIPrep left out."""
    found = _look(options)
    if left := [label for label, one in found.items() if one.n_runs == 0]:
        raise DataError(
            f"fMRIPrep ended well, but {folder} holds no BOLD in "
            f"{' or '.join(list_spaces(options))} of "
            f"{', '.join(f'sub-{label}' for label in left)}. See its report there."
        )
    for label, one in found.items():
        if one.missing:
            logger.warning(
                "fMRIPrep ended well and made nothing of %s; its report, sub-%s.html in %s, says "
                "why. The next call tries again: leave what cannot be used out, with "
                "--bids-filter-file",
                ", ".join(one.missing),
                label,
                folder,
            )


def use_results(options: ParticipantOptions) -> ParticipantOptions:
    """Return the options with fMRIPrep's results as the derivatives to read."""
    derivatives = (*options.derivatives, (NAME, options.output_dir / FOLDER))
    return replace(options, derivatives=derivatives)


def check_licence(options: ParticipantOptions) -> None:
    """Check that there is a licence file."""
    licence = find_licence(options)
    if licence is None or not licence.is_file():
        found = "no file is given" if licence is None else f"there is no file {licence}"
        raise MissingFileError(
            f"fMRIPrep needs FreeSurfer's licence, and {found}. It is free of charge "
            "(https://surfer.nmr.mgh.harvard.edu/registration.html): give it with "
            "--fs-license-file, or name it in FS_LICENSE."
        )


def check_docker() -> None:
    """Check that Docker is there, answers, and has the memory that fMRIPrep needs."""
    if shutil.which("docker") is None:
        raise MissingFileError(
            "--run-fmriprep needs Docker, and there is no command docker on PATH. Install it, or "
            "run fMRIPrep in another way (Apptainer on clusters) and give its output folder as "
            "BIDS_DIR."
        )
    answer = _ask_docker("version", "--format", "{{.Server.Version}}")
    if answer.returncode != 0:
        raise TemporaryError(
            f"Docker does not answer: {_shorten(answer.stderr)} Start it, and see that you may use "
            "it: docker info."
        )
    memory = _ask_docker("info", "--format", "{{.MemTotal}}").stdout.strip()
    if memory.isdecimal() and 0 < int(memory) < MIN_MEMORY_BYTES:
        raise TemporaryError(
            f"Docker may use {int(memory) / 1e9:.1f} GB of memory, and fMRIPrep needs "
            f"{MIN_MEMORY_BYTES / 1e9:.0f} GB. Give it more (Docker Desktop: Settings, Resources), "
            "or take a larger machine."
        )


def _ask_docker(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - a list, never a shell
            ["docker", *words],  # noqa: S607 - whichever docker the user has
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as err:
        raise UsageError(f"The command docker cannot be run: {err}.") from err


def _shorten(text: str) -> str:
    words = " ".join(text.split())[:300] or "no message."
    return make_printable(words)
