"""What a call of the participant level was asked to do; importable without torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from neurostorm_bids.call import Call
from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs import Cleaning, Selection

if TYPE_CHECKING:
    from pathlib import Path

Precision = Literal["float32", "bf16"]
Attribution = Literal["occlusion", "ig", "none"]
AttributionBaseline = Literal["background", "mean"]


def count_available_cpus() -> int:
    """Return the number of CPUs this process may use; Slurm or a container may allow fewer."""
    from joblib import cpu_count  # noqa: PLC0415 - not needed for --help

    count: int = cpu_count()
    return count


@dataclass(frozen=True, kw_only=True)
class TargetScale:
    """Mean and standard deviation by which a regression target was standardised in training."""

    name: str
    mean: float
    sd: float
    unit: str | None = None

    @classmethod
    def parse(cls, text: str) -> TargetScale:
        """Read ``NAME=MEAN,SD[,UNIT]``, as in ``age=28.76,3.68,years``."""
        name, _, rest = text.partition("=")
        parts = [part.strip() for part in rest.split(",", maxsplit=2)]
        try:
            mean, sd = float(parts[0]), float(parts[1])
        except (IndexError, ValueError) as err:
            raise UsageError(
                f"--target-scale {text!r} is not of the form NAME=MEAN,SD[,UNIT], "
                "as in age=28.76,3.68,years."
            ) from err
        if not (name and math.isfinite(mean) and math.isfinite(sd) and sd > 0):
            raise UsageError(
                f"--target-scale {text!r} needs a name, a finite mean and a standard deviation "
                "above zero."
            )
        return cls(name=name, mean=mean, sd=sd, unit=parts[2] if len(parts) > 2 else None)  # noqa: PLR2004


@dataclass(frozen=True, kw_only=True)
class ParticipantOptions:
    """The participant level's options, with their defaults.

    Attributes
    ----------
    bids_dir, output_dir : the dataset that is read, the one that is written.
    models : paths, catalogue names or ``hf://`` addresses.
    derivatives : further fMRIPrep folders, by name.
    selection : which participants, sessions, tasks, runs and space.
    cleaning : what is done to a run before it is read.
    skip_bids_validation : pass over odd descriptions of datasets.
    connectivity : regions whose correlations are written too, a name, a path or ``auto``; see
        `connectivity.find_parcellation`. None writes none.
    target_scales : mean and SD of regression targets that a model file does not hold.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    batch_size : clips at once; None chooses.
    attribution : which regions drove a prediction: ``occlusion``, ``ig`` (integrated gradients) or
        ``none``.
    attribution_baseline : what stands in place of a region: ``background`` or the ``mean`` over
        time of each of its voxels.
    attribution_clips : clips of a run that are looked at, spread evenly; None for all.
    atlas : the regions, a name or path; None for those at hand.
    write_resampled : also write runs on the model's grid and clock.
    nprocs : CPUs to use in all.
    omp_nthreads : CPUs per run; ``nprocs // omp_nthreads`` runs are worked on at a time.
    overwrite : compute again what is already finished.
    stop_on_first_crash : end at the first run that fails.
    precision : of the network's products; outputs are float32.
    memory_bytes : how much memory may be held at once; None does not ask.
    work_dir : temporary files, and what fMRIPrep keeps; None for the system's folder, and for
        ``.work`` in the output folder.
    clean_workdir : remove first what earlier calls kept in `work_dir`.
    run_fmriprep : preprocess a raw dataset first.
    fs_license_file : FreeSurfer's licence, which fMRIPrep needs.
    fmriprep_args : further arguments of fMRIPrep.
    reports_only, boilerplate_only : run nothing; write the reports of participants, or the methods
        text, anew from what is in the output folder.
    debug : keep absolute paths and tracebacks in the logs.
    call : its name, and the options as they were given.
    """

    bids_dir: Path
    output_dir: Path
    models: tuple[str, ...] = ()
    derivatives: tuple[tuple[str, Path], ...] = ()
    selection: Selection = field(default_factory=Selection)
    cleaning: Cleaning = field(default_factory=Cleaning)
    skip_bids_validation: bool = False
    connectivity: str | None = None
    target_scales: tuple[TargetScale, ...] = ()
    device: str = "auto"
    batch_size: int | None = None
    attribution: Attribution = "none"
    attribution_baseline: AttributionBaseline = "background"
    attribution_clips: int | None = 4
    atlas: str | None = None
    write_resampled: bool = False
    nprocs: int | None = None
    omp_nthreads: int | None = None
    overwrite: bool = False
    stop_on_first_crash: bool = False
    precision: Precision = "float32"
    memory_bytes: int | None = None
    work_dir: Path | None = None
    clean_workdir: bool = False
    run_fmriprep: bool = False
    fs_license_file: Path | None = None
    fmriprep_args: tuple[str, ...] = ()
    reports_only: bool = False
    boilerplate_only: bool = False
    debug: bool = False
    call: Call = field(default_factory=Call, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """Where work is kept between calls."""
        return self.work_dir or self.output_dir / ".work"

    @property
    def threads_per_run(self) -> int:
        """CPUs that one run gets: `omp_nthreads`, at most 8 and at most `nprocs` by default."""
        available = self.nprocs or count_available_cpus()
        return min(available, self.omp_nthreads or 8)

    @property
    def runs_at_once(self) -> int:
        """Runs worked on at a time, each in a process of its own when there are several."""
        return max(1, (self.nprocs or count_available_cpus()) // self.threads_per_run)


def parse_memory(text: str) -> int:
    """Read an amount of memory with its unit, as in ``16GB``, and return bytes.

    Units are decimal (kB, MB, GB, TB, or their first letters) or binary (KiB, MiB, GiB, TiB).
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT])(I?B)?", text.strip().upper())
    if match is None or float(match[1]) == 0:
        raise UsageError(
            f"--mem {text!r} is not an amount of memory with its unit, as in 16GB or 16000MB."
        )
    base = 1024 if match[3] == "IB" else 1000
    return int(float(match[1]) * base ** ("KMGT".index(match[2]) + 1))
