"""What discovery hands on: source datasets, BOLD runs, and everything that was not chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from neurostorm_bids.inputs.cleaning import Cleaning
from neurostorm_bids.inputs.names import join_entities

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from neurostorm_bids.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SourceDataset:
    """A folder of BIDS derivatives that BOLD runs are read from.

    Attributes
    ----------
    name : the dataset's key in ``bids:<name>:`` URIs: letters, digits, ``-``, ``_`` and ``.``.
    path : the folder that holds ``sub-*``, absolute.
    description : the contents of its ``dataset_description.json``; empty if there is none.
    raw : the dataset that these derivatives lie in, if they do; for sidecars they lack.
    """

    name: str
    path: Path
    description: Mapping[str, Any] = field(default_factory=dict, hash=False)
    raw: Path | None = None


@dataclass(frozen=True, kw_only=True)
class BoldRun:
    """One preprocessed BOLD file in a standard space; nothing is read from the image yet.

    Attributes
    ----------
    path : the BOLD file.
    entities : every entity of the file name, unknown ones too, in the order of the name.
    space : name of the standard space, as TemplateFlow spells it.
    repetition_time_s : from the JSON sidecar, inherited ones included; seconds.
    brain_mask : the mask with the same entities, or None.
    confounds : the table of confounds of the run, or None.
    dataset : where the file was found.
    warnings : to be repeated in the log, the sidecar and the report.
    cleaning : what is to be done to the series before it is read.
    """

    path: Path
    entities: Mapping[str, str] = field(hash=False)
    space: str
    repetition_time_s: float
    brain_mask: Path | None
    confounds: Path | None
    dataset: SourceDataset
    warnings: tuple[str, ...] = ()
    cleaning: Cleaning = field(default_factory=Cleaning)

    @property
    def participant(self) -> str:
        """The participant's label, without ``sub-``."""
        return self.entities["sub"]

    @property
    def label(self) -> str:
        """All entities as the file name spells them, such as ``sub-01_task-rest_desc-preproc``."""
        return join_entities(self.entities)


class LeftOut(NamedTuple):
    """A BOLD file that could have been read and was not chosen."""

    path: Path
    reason: str


class Unusable(NamedTuple):
    """A BOLD file that was chosen and cannot be run, or a folder that cannot be searched.

    ``label`` is that of the `BoldRun` it would have become, so that what later becomes of it is
    told of the same run; of a participant's folder it is the name, ``sub-01``.
    """

    path: Path
    participant: str
    label: str
    error: UserError


class Discovery(NamedTuple):
    """What a search for BOLD runs found; every list is in natural order.

    ``participants`` are the labels, without ``sub-``, of all participants chosen, also of those
    without a run; ``excluded`` those whom the filters leave without a run.
    """

    runs: list[BoldRun]
    left_out: list[LeftOut]
    unusable: list[Unusable]
    participants: list[str]
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which runs to choose; an empty tuple or None chooses everything.

    Labels are accepted with and without their prefix (``sub-``, ``ses-``, ``task-``, ``run-``,
    ``space-``). Runs that are numbers on both sides are compared as numbers.
    """

    participant_labels: tuple[str, ...] = ()
    exclude_participant_labels: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    task_ids: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    space: str | None = None
    filter_file: Path | None = None
