"""The output folder as one BIDS dataset: whether it may be written, and its own files."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from neurostorm_bids.derivatives.atomic import (
    explain_write_errors,
    remove_leftovers,
    remove_leftovers_below,
    write_text,
)
from neurostorm_bids.derivatives.description import NAME, describe_dataset
from neurostorm_bids.derivatives.documents import (
    add_change,
    add_ignored,
    add_models,
    add_participants,
    declare_participants,
)
from neurostorm_bids.derivatives.locks import hold_lock
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import OutputError, TemporaryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs import SourceDataset
    from neurostorm_bids.pretrained import Model

DESCRIPTION = "dataset_description.json"
LOCK = ".neurostorm.lock"
LOCK_TIMEOUT_S = 300.0


def check_output_dir(
    output_dir: Path, *, bids_dir: Path, datasets: Iterable[SourceDataset] = ()
) -> None:
    """Check, without writing anything, that an output folder may be written to.

    Raises
    ------
    UsageError
        If it is an input folder, or lies in one anywhere but below its ``derivatives``.
    OutputError
        If it is a file, belongs to another program, or may not be written to.
    """
    output = output_dir.resolve()
    if output == bids_dir.resolve():
        raise UsageError(
            f"The output folder {output_dir} is the input folder. Name another one, for example "
            f"{bids_dir / 'derivatives' / 'neurostorm'}."
        )
    roots = [dataset.path for dataset in datasets]
    roots += [bids_dir] if (bids_dir / DESCRIPTION).exists() else []
    for root in roots:
        if not output.is_relative_to(root.resolve()):
            continue
        if output.relative_to(root.resolve()).parts[:1] != ("derivatives",):
            raise UsageError(
                f"The output folder {output_dir} lies in the input dataset {root}, which is never "
                f"written to. Name a folder outside, or {root / 'derivatives' / 'neurostorm'}."
            )
    read_dataset_description(output_dir)
    parent = next(path for path in (output, *output.parents) if path.exists())
    if not parent.is_dir():
        raise OutputError(
            f"The output folder {output_dir} cannot be made: {parent} is a file. Name another one."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The output folder {output_dir} cannot be written: no permission to write in {parent}."
            " Name another folder, or mend its rights (in a container: mount it writable)."
        )


def write_dataset_files(
    output_dir: Path,
    *,
    datasets: Sequence[SourceDataset],
    participants: Iterable[str],
    models: Sequence[Model],
) -> None:
    """Write the files that describe the whole dataset, or add to them.

    Several processes may call this at the same time, each with its own participants: it works
    under a lock and takes away nothing that others, or a person, have written.

    Parameters
    ----------
    participants : labels, with or without ``sub-``.
    models : those of this call; the README names them.

    Raises
    ------
    OutputError
        If the folder belongs to another program or cannot be written.
    TemporaryError
        If another process does not release the lock.
    """
    with explain_write_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    today = datetime.now(tz=UTC).date()
    with lock_dataset(output_dir):
        remove_leftovers(output_dir)
        existing = read_dataset_description(output_dir)
        description = describe_dataset(existing, output_dir=output_dir, datasets=datasets)
        texts = {
            DESCRIPTION: format_json(description),
            "CHANGES": add_change(_read(output_dir / "CHANGES"), today=today),
            ".bidsignore": add_ignored(_read(output_dir / ".bidsignore")),
            "participants.tsv": add_participants(
                _read(output_dir / "participants.tsv"), participants
            ),
            "participants.json": declare_participants(_read(output_dir / "participants.json")),
        }
        # BIDS allows one README, whatever its extension: somebody else's stays alone.
        if not any((output_dir / f"README{end}").exists() for end in ("", ".rst", ".txt")):
            texts["README.md"] = add_models(_read(output_dir / "README.md"), models)
        for name, text in texts.items():
            if text != _read(output_dir / name):
                write_text(output_dir / name, text)


def remove_all_leftovers(output_dir: Path, participants: Iterable[str]) -> None:
    """Remove what killed calls left of files half written, wherever this call may write.

    Other participants' folders are not entered: in a dataset of thousands that would take long.
    """
    for folder in (output_dir, output_dir / "logs", output_dir / "group", output_dir / "phenotype"):
        remove_leftovers(folder)
    for label in participants:
        remove_leftovers_below(output_dir / f"sub-{label.removeprefix('sub-')}")


@contextmanager
def lock_dataset(output_dir: Path) -> Iterator[None]:
    """Hold the lock of an output folder; the system releases it when the process dies."""
    with ExitStack() as stack:
        with explain_write_errors(output_dir / LOCK):
            try:
                lock = hold_lock(output_dir / LOCK, timeout_s=LOCK_TIMEOUT_S, mode=0o664)
                stack.enter_context(lock)
            except Timeout as err:
                raise TemporaryError(
                    f"Another process has held {output_dir / LOCK} for {LOCK_TIMEOUT_S:g} s. "
                    "Run again when it has ended."
                ) from err
        yield


def _read(path: Path) -> str | None:
    """Return the text of a file, line ends as they are; None if there is none."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as err:
        raise OutputError(
            f"Cannot add to {path}: {err}. Mend the file, or move it away and run again."
        ) from err


def read_dataset_description(output_dir: Path) -> dict[str, Any]:
    """Return our own dataset_description.json, empty if there is none; refuse anybody else's."""
    path = output_dir / DESCRIPTION
    text = _read(path) if output_dir.is_dir() else None
    if text is None:
        return {}
    advice = "Name an output folder of its own for neurostorm-bids."
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise OutputError(f"{path} is not JSON ({err}). Mend it, or: {advice}") from err
    generators = description.get("GeneratedBy") if isinstance(description, dict) else None
    generators = generators if isinstance(generators, list) else []
    makers = [one.get("Name") for one in generators if isinstance(one, dict)]
    if NAME not in makers:
        raise OutputError(
            f"{output_dir} holds a dataset that neurostorm-bids did not make: {path.name} names "
            f"{', '.join(map(str, makers)) or 'no program'} under GeneratedBy. {advice}"
        )
    return dict(description)
