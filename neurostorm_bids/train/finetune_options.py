"""What a call of the finetune level was asked to do; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from neurostorm_bids.call import Call
from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs import Cleaning, Selection
from neurostorm_bids.train.options import MAX_SEED, TrainOptions

if TYPE_CHECKING:
    from pathlib import Path

Adapt = Literal["linear", "prompt", "lora", "full"]
Head = Literal["v1", "v2", "v3"]
TargetKind = Literal["classification", "regression"]

K_FOLD, HELD_OUT, BY_SITE = "k-fold", "held-out", "leave-site-out"
MAX_EPOCHS = 20
"""How often clips are gone through by default; a pretraining goes on for longer."""
PATIENCE = 5
"""Evaluations without a lower loss that end a training by default: a quarter of the usual ones."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """The finetune level's options, with their defaults.

    None stands for a default that depends on another option, and is refused with an option
    beside which it has no effect.

    Attributes
    ----------
    bids_dir, output_dir, derivatives, selection, cleaning, skip_bids_validation : as for
        `ParticipantOptions`.
    work_dir : prepared runs, embeddings and checkpoints; None for ``.work`` in the output folder.
    model : what to start from.
    target : column of participants.tsv, phenotype/ or sessions.tsv; ``task``; ``trial_type``.
    target_kind : None infers it.
    event_delay_s : by how much responses lag behind events, for ``trial_type``.
    adapt : what trains beside the head: nothing, prompts, low-rank updates, or everything.
    head : for classes; None for v1.
    prompt_len, lora_rank : of prompt and of lora; None for the defaults of `Adaptation`.
    splits : ``k-fold``, ``held-out``, ``leave-site-out``, or the path of a split file.
    n_folds, held_out_share : of k-fold and of held-out; None for 5 and 0.2.
    group_column : what participants share that must not be on two sides.
    site_column : the site, for leave-site-out, harmonising and the baseline of confounds.
    confound_columns : regressed out of the embeddings, as training participants show.
    harmonise : remove differences between sites from the embeddings (ComBat).
    balance_classes : give every class the same weight, however rare.
    validation_share : of the training participants, who decide when to stop.
    n_seeds : how often splits and learning are repeated, with the seed of `train` and those that
        follow it; the model that is kept is that of the first.
    n_permutations : for p-values; 0 for none.
    coverage : of intervals or sets of classes that the model gives for new runs, between 0 and 1.
    atlas : regions of the functional-connectivity baseline, a name or path; None for Schaefer's
        200 where they lie on this machine, else spheres: nothing is downloaded unasked.
    store_bits : per voxel and volume of the prepared runs.
    batch_size : clips embedded at once; None chooses. (`train` has that of a training.)
    nprocs : processes that prepare runs, and CPUs that torch may use.
    train : how a training runs; of linear only the seed and the device count.
    debug : keep absolute paths in the logs.
    clean_workdir : remove first what earlier calls kept in `work_dir`.
    call : its name, and the options as they were given.
    """

    bids_dir: Path
    output_dir: Path
    model: str
    target: str
    work_dir: Path | None = None
    derivatives: tuple[tuple[str, Path], ...] = ()
    selection: Selection = field(default_factory=Selection)
    cleaning: Cleaning = field(default_factory=Cleaning)
    skip_bids_validation: bool = False
    target_kind: TargetKind | None = None
    event_delay_s: float | None = None
    adapt: Adapt = "linear"
    head: Head | None = None
    prompt_len: int | None = None
    lora_rank: int | None = None
    splits: str = K_FOLD
    n_folds: int | None = None
    held_out_share: float | None = None
    group_column: str | None = None
    site_column: str | None = None
    confound_columns: tuple[str, ...] = ()
    harmonise: bool = False
    balance_classes: bool = False
    validation_share: float = 0.1
    n_seeds: int = 1
    n_permutations: int = 0
    coverage: float = 0.9
    atlas: str | None = None
    store_bits: Literal[8, 16] = 8
    batch_size: int | None = None
    nprocs: int | None = None
    train: TrainOptions = field(default_factory=TrainOptions)
    debug: bool = False
    clean_workdir: bool = False
    call: Call = field(default_factory=Call, compare=False, repr=False)

    def __post_init__(self) -> None:
        is_linear = self.adapt == "linear"
        for name, value, has_effect, beside in (
            ("--head", self.head, not is_linear, "--adapt prompt, lora or full"),
            ("--prompt-len", self.prompt_len, self.adapt == "prompt", "--adapt prompt"),
            ("--lora-rank", self.lora_rank, self.adapt == "lora", "--adapt lora"),
            ("--n-folds", self.n_folds, self.splits == K_FOLD, f"--splits {K_FOLD}"),
            ("--held-out-share", self.held_out_share, self.splits == HELD_OUT, "--splits held-out"),
            ("--confound-columns", self.confound_columns, is_linear, "--adapt linear"),
            ("--harmonise", self.harmonise, is_linear, "--adapt linear"),
            ("--event-delay", self.event_delay_s, self.is_by_clip, "--target trial_type"),
            ("--target-kind", self.target_kind, not self.is_by_clip, "a column of a table"),
        ):
            is_given = value is not None and value is not False and value != ()
            if is_given and not has_effect:
                raise UsageError(f"{name} has an effect only with {beside}. Leave it out.")
        if self.site_column is None and (self.harmonise or self.splits == BY_SITE):
            raise UsageError(
                f"{'--harmonise' if self.harmonise else f'--splits {BY_SITE}'} needs to know the "
                "sites. Give --site-column, such as --site-column site."
            )
        if self.batch_size is not None and not is_linear:
            raise UsageError("The batch size of a training belongs to its own options.")
        last_seed = self.train.seed + self.n_seeds - 1
        if self.n_seeds < 1 or last_seed > MAX_SEED:
            raise UsageError(
                f"Expected one seed or more, up to {MAX_SEED}; found {self.n_seeds} from "
                f"{self.train.seed}. Change --seeds or --random-seed."
            )

    @property
    def is_by_clip(self) -> bool:
        """Whether clips of a run have different targets."""
        return self.target == "trial_type"

    @property
    def seeds(self) -> range:
        """The seeds, from that of `train`."""
        return range(self.train.seed, self.train.seed + self.n_seeds)

    def with_seed(self, seed: int) -> FinetuneOptions:
        """Return the options of one seed alone."""
        return replace(self, n_seeds=1, train=replace(self.train, seed=seed))

    @property
    def folder(self) -> Path:
        """Where prepared runs, embeddings and checkpoints lie."""
        return self.work_dir or self.output_dir / ".work"
