"""What a call of the group level was asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.call import Call
from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs import Selection

if TYPE_CHECKING:
    from pathlib import Path


class TargetChoice(NamedTuple):
    """A target to tabulate, and the column with its truth; None for that of the same name."""

    name: str
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> TargetChoice:
        """Read ``NAME`` or ``NAME=COLUMN``."""
        name, equals, column = (part.strip() for part in text.partition("="))
        if not name or (equals and not column):
            raise UsageError(f"--target {text!r} is not of the form NAME or NAME=COLUMN.")
        return cls(name, column or None)


@dataclass(frozen=True, kw_only=True)
class GroupOptions:
    """The group level's options, with their defaults.

    Attributes
    ----------
    bids_dir : the dataset whose tables hold the truth and whose confounds tell of motion.
    output_dir : what the participant level wrote; is read and added to.
    targets : which predictions; all if empty.
    models : which models' results, by name or beginning of the checksum; all if empty.
    derivatives : further fMRIPrep folders, by name.
    selection : which participants, sessions, tasks, runs and space.
    colour_by : columns that the map of the embeddings is coloured by, besides the targets.
    n_permutations : for p-values of the scores; 0 for none.
    seed : of everything random.
    debug : keep absolute paths in the report and the logs.
    call : its name, and the options as they were given.
    """

    bids_dir: Path
    output_dir: Path
    targets: tuple[TargetChoice, ...] = ()
    models: tuple[str, ...] = ()
    derivatives: tuple[tuple[str, Path], ...] = ()
    selection: Selection = field(default_factory=Selection)
    colour_by: tuple[str, ...] = ()
    n_permutations: int = 0
    seed: int = 0
    debug: bool = False
    call: Call = field(default_factory=Call, compare=False, repr=False)

    @property
    def columns(self) -> dict[str, str | None]:
        """The columns with the truth, by target; None for that of the same name."""
        return {choice.name: choice.column for choice in self.targets}
