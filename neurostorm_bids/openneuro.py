"""fMRIPrep derivatives of OpenNeuro: a clone in the work folder, and of it the files runs need.

Git and git-annex are called; nothing is asked of the network that the user did not name.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from neurostorm_bids.derivatives.atomic import explain_write_errors
from neurostorm_bids.derivatives.locks import hold_lock
from neurostorm_bids.errors import MissingFileError, ReadError, UsageError, UserError
from neurostorm_bids.inputs.files import check_readable, list_names
from neurostorm_bids.inputs.records import SourceDataset
from neurostorm_bids.inputs.scan import list_participants, scan_participant
from neurostorm_bids.inputs.sidecars import find_sidecars, list_sidecars

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs.records import Discovery
    from neurostorm_bids.inputs.scan import Candidate

logger = logging.getLogger(__name__)

REPOSITORY = "https://github.com/OpenNeuroDerivatives/{dataset}-fmriprep.git"
FOLDER = "openneuro"
"""Of the clones, in the work folder."""

_SCHEME = "openneuro:"
# A path has lost one of the two slashes.
_ADDRESS = re.compile(r"openneuro:/{1,2}(?P<dataset>ds[0-9]{6})/?")
_SIZE = re.compile(r"-s(?P<n_bytes>[0-9]+)-")
_PROGRAMS = ("git", "git-annex")
_NAME_BYTES = 50_000
"""Of the names in one call of git-annex; systems allow at least twice as much."""

_MAX_SAID = 600


def read_address(named: Path) -> str | None:
    """Return the dataset of an address such as ``openneuro://ds000228``; None if it is a path.

    Raises
    ------
    UsageError
        If it begins like an address and is none.
    """
    text = str(named)
    if not text.startswith(_SCHEME):
        return None
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(
            f"Expected an address such as openneuro://ds000228, found {text!r}. A dataset is "
            "named by ds and six digits."
        )
    return match["dataset"]


def clone_dataset(dataset: str, work_dir: Path) -> Path:
    """Clone the fMRIPrep derivatives of a dataset, without contents, unless that was done before.

    Parameters
    ----------
    dataset : such as ``ds000228``.
    work_dir : the clone becomes ``openneuro/<dataset>-fmriprep`` in it.

    Raises
    ------
    MissingFileError
        If git or git-annex is not installed.
    ReadError
        If it cannot be cloned.
    """
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    if absent:
        raise MissingFileError(
            f"openneuro:// needs {' and '.join(_PROGRAMS)}, and {' and '.join(absent)} cannot be "
            "found. Install git-annex (conda install -c conda-forge git-annex, or apt-get install "
            "git-annex), or fetch the dataset yourself with DataLad and name its folder."
        )
    # Links in the clone are relative, git's calls are made inside it.
    folder = work_dir.absolute() / FOLDER / f"{dataset}-fmriprep"
    with explain_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _clone(REPOSITORY.format(dataset=dataset), folder)
    described = [name for name in list_names(folder) if name.endswith((".json", ".tsv"))]
    fetch_files(folder, [path for name in described if _is_absent(path := folder / name)])
    return folder


def list_needed(folder: Path, discovery: Discovery) -> list[Path]:
    """List the files of the chosen runs whose content is not there.

    These are the series, its mask, its confounds and its sidecars.
    """
    dataset = SourceDataset(name=folder.name, path=folder)
    chosen = {run.path for run in discovery.runs} | {one.path for one in discovery.unusable}
    participants = list_participants(folder)
    labels = {run.participant for run in discovery.runs}
    labels |= {one.participant for one in discovery.unusable}
    needed: dict[Path, None] = {}
    for label in sorted(labels & participants.keys()):
        for candidate in scan_participant(participants[label], dataset).candidates:
            if candidate.path in chosen:
                needed.update(dict.fromkeys(_list_files(candidate, folder)))
    return [path for path in needed if _is_absent(path)]


def fetch_files(folder: Path, paths: Sequence[Path]) -> None:
    """Fetch the content of files of a clone.

    Raises
    ------
    ReadError
        If not all of it could be had.
    """
    if not paths:
        return
    n_bytes = count_bytes(paths)
    logger.info("Fetching %d file(s), %.1f MB, of %s", len(paths), n_bytes / 1e6, folder.name)
    n_done, failed = 0, []
    for names in _split(folder, paths):
        for outcome in _get(names, folder=folder):
            if outcome.get("success"):
                n_done += 1
                logger.info("Fetched %d of %d: %s", n_done, len(paths), outcome.get("file"))
            else:
                said = " ".join(str(text) for text in outcome.get("error-messages", []))
                failed.append(f"{outcome.get('file')}: {' '.join(said.split())}")
    if failed or any(_is_absent(path) for path in paths):
        raise ReadError(
            f"Not all of {folder.name} could be fetched, {n_done} of {len(paths)} file(s). "
            f"{'; '.join(failed)[:_MAX_SAID]} Check the network; the same call goes on where this "
            "one stopped."
        )


def drop_files(folder: Path, paths: Sequence[Path]) -> None:
    """Drop the content of files that were fetched; git-annex checks that it can be had again.

    What cannot be dropped is warned of.
    """
    if not paths:
        return
    try:
        for names in _split(folder, paths):
            _run(["annex", "drop", "--quiet", "--", *names], folder=folder, what="Not all dropped")
    except UserError as err:
        logger.warning("%s", err)
        return
    logger.info("Dropped %d file(s) of %s", len(paths), folder.name)


def count_bytes(paths: Sequence[Path]) -> int:
    """Return the size of files that were not fetched, as far as their links tell it."""
    matches = (_SIZE.search(os.readlink(path)) for path in paths if path.is_symlink())  # noqa: PTH115
    return sum(int(match["n_bytes"]) for match in matches if match)


def _list_files(candidate: Candidate, root: Path) -> list[Path]:
    """Return all that a run needs, there or not."""
    found = [candidate.path, candidate.find_brain_mask(), candidate.find_confounds()]
    return [
        *(path for path in found if path is not None),
        *find_sidecars(candidate.path, root, list_sidecars),
    ]


def _is_absent(path: Path) -> bool:
    try:
        check_readable(path)
    except MissingFileError:
        return True
    except UserError:
        return False
    return False


def _clone(address: str, folder: Path) -> None:
    """Clone and set git-annex up, so that the folder is there only when all of that is done."""
    partial = folder.with_name(f".{folder.name}.part")
    if partial.exists():
        shutil.rmtree(partial)
    logger.info("Cloning %s", address)
    what = f"{address} cannot be cloned"
    _run(["clone", "--quiet", address, str(partial)], what=what)
    # A description of our own: git-annex would take user, host and path.
    _run(["annex", "init", "--quiet", "neurostorm-bids"], folder=partial, what=what)
    partial.rename(folder)


def _get(names: Sequence[str], *, folder: Path) -> Iterator[dict[str, Any]]:
    """Fetch files, and yield what git-annex tells of each as it is done."""
    with subprocess.Popen(  # noqa: S603 - names were checked, and no shell is asked
        ["git", "annex", "get", "--json", "--json-error-messages", "--", *names],  # noqa: S607
        cwd=folder,
        env=_make_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            try:
                outcome = json.loads(line)
            except ValueError:
                continue
            if isinstance(outcome, dict):
                yield outcome


def _split(folder: Path, paths: Sequence[Path]) -> list[list[str]]:
    """Split files into lists of names that fit into one call."""
    parts: list[list[str]] = [[]]
    n_bytes = 0
    for path in paths:
        name = str(path.relative_to(folder))
        n_bytes += len(os.fsencode(name)) + 1
        if n_bytes > _NAME_BYTES:
            parts.append([])
            n_bytes = 0
        parts[-1].append(name)
    return [part for part in parts if part]


def _run(arguments: Sequence[str], *, what: str, folder: Path | None = None) -> None:
    """Run git; it asks nobody anything, and needs no identity.

    Raises
    ------
    ReadError
        If it fails; the message begins with `what`.
    """
    done = subprocess.run(  # noqa: S603 - names were checked, and no shell is asked
        ["git", *arguments],  # noqa: S607 - the user's own git
        cwd=folder,
        env=_make_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = " ".join(f"{done.stderr} {done.stdout}".split())[:_MAX_SAID]
        raise ReadError(
            f"{what}: {said or f'git ended with status {done.returncode}'}. Check the address and "
            "the network; the same call goes on where this one stopped."
        )


def _make_environment() -> dict[str, str]:
    identity = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", "neurostorm-bids"), ("EMAIL", "neurostorm@localhost"))
    }
    return {**os.environ, **identity, "GIT_TERMINAL_PROMPT": "0"}
