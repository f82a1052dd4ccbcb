"""What a call of the group level was asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.call import Call
from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs import Selection
from neurostorm_bids.inputs.events import HAEMODYNAMIC_DELAY_S

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
    stimuli : embeddings of the images that events.tsv name as stim_file, see
        `retrieval.read_image_embeddings`; None for no image retrieval.
    event_delay_s : by how much responses lag behind events; None for 5 s.
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
    stimuli: Path | None = None
    event_delay_s: float | None = None
    colour_by: tuple[str, ...] = ()
    n_permutations: int = 0
    seed: int = 0
    debug: bool = False
    call: Call = field(default_factory=Call, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.event_delay_s is not None and self.stimuli is None:
            raise UsageError("--event-delay has an effect only with --stimuli. Leave it out.")

    @property
    def delay_s(self) -> float:
        """By how much responses lag behind events."""
        return HAEMODYNAMIC_DELAY_S if self.event_delay_s is None else self.event_delay_s

    @property
    def columns(self) -> dict[str, str | None]:
        """The columns with the truth, by target; None for that of the same name."""
        return {choice.name: choice.column for choice in self.targets}
