"""One gridded run <-> one file that can be read in part: brain voxels only, in 8 or 16 bits.

The tensors of a file: ``offset`` and ``step`` (float32, one number per brain voxel), ``frames``
(uint8 or uint16, source volumes by brain voxels; value = offset + step * code) and ``brain_mask``
(the grid's voxels, eight to a byte). Everything else is one JSON text in its metadata.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.grid.censoring import Censoring
from neurostorm_bids.grid.normalise import Statistics
from neurostorm_bids.grid.quantise import (
    Codes,
    NBits,
    Quantisation,
    count_coarse_voxels,
    make_quantisation,
)
from neurostorm_bids.grid.resample import Clock, find_clock, reflect_in_time
from neurostorm_bids.grid.runfile import Tensor, open_tensors, write_tensors
from neurostorm_bids.grid.series import Series, check_clip
from neurostorm_bids.grid.spec import MAX_REPETITION_TIME_S, MAX_VOLUMES, GridSpec
from neurostorm_bids.grid.storedclip import StoredClip

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = "neurostorm-run"
FORMAT_VERSION = 2
"""To be raised when the file changes, or when gridding the same source gives other values."""

_N_BITS: dict[str, NBits] = {"U8": 8, "U16": 16}


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """How runs are stored.

    Parameters
    ----------
    n_bits : of a value, 8 or 16.
    max_coarse_share : where 8 bits would spoil the fluctuation of a larger share of the brain
        voxels, because spikes are many times larger than it, a run is stored in 16 bits.
    """

    n_bits: NBits = 8
    max_coarse_share: float = 0.01

    def __post_init__(self) -> None:
        if self.n_bits not in get_args(NBits) or not 0 <= self.max_coarse_share <= 1:
            raise UsageError(
                "A store takes 8 or 16 bits for a value, and a share of coarse voxels from 0 to 1; "
                f"found {self.n_bits} bits and {self.max_coarse_share}."
            )


class _Header(NamedTuple):
    spec: GridSpec
    clock: Clock
    n_brain: int
    n_bits: NBits
    fingerprint: str | None
    facts: dict[str, Any]  # the remaining fields of a Series


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A run in a store, to be read in part; made by `StoredRun.open`.

    It holds neither an open file nor an array, so it can be pickled, survives a fork, and may be
    kept by the thousand. Each reading maps the file anew and copies what it needs; what is read
    often stays in the system's page cache, shared by all processes.

    Parameters
    ----------
    path : the file.
    spec : its grid.
    n_volumes : volumes on the model's clock, before any padding.
    start_s : seconds of the run before its first volume here.
    censoring : volumes that moved too much; None where nobody asked.
    fingerprint : of the BOLD file that it was made from; None where that is not told.
    """

    path: Path
    spec: GridSpec
    n_volumes: int
    start_s: float = 0.0
    censoring: Censoring | None = None
    fingerprint: str | None = None

    @classmethod
    def open(cls, path: Path) -> StoredRun:
        """Read the front of a file and check it; no values are read.

        Raises
        ------
        MissingFileError, ReadError
            If the file is not there or cannot be read.
        DataError
            If it is damaged, cut short or of another kind.
        """
        with open_tensors(path) as file:
            header = _read_header(file)
        return cls(
            path=path,
            spec=header.spec,
            n_volumes=header.clock.n_volumes,
            start_s=header.facts["start_s"],
            censoring=header.facts["censoring"],
            fingerprint=header.fingerprint,
        )

    def read_clip(self, start: int, length: int) -> NDArray[np.float32]:
        """Read consecutive volumes of the model's clock, as `Series.read_clip` does.

        Of the file, only the source volumes that make these are read.
        """
        return self._load(start, start + length).read_clip(start, length)

    def read_stored_clip(self, start: int, length: int) -> StoredClip:
        """Read what makes a clip as it is stored, to be restored elsewhere."""
        check_clip(start, length, n_volumes=self.n_volumes)
        with open_tensors(self.path) as file:
            part = _read_part(file, start, start + length)
        volumes = reflect_in_time(np.arange(start, start + length), part.header.clock.n_volumes)
        return StoredClip(
            codes=part.codes,
            quantisation=part.quantisation,
            mask_bits=part.mask_bits,
            shape=part.header.spec.shape,
            before=part.clock.before[volumes],
            after=part.clock.after[volumes],
            weight=part.clock.weight[volumes].astype(np.float32),
            statistics=part.header.facts["statistics"],
            clip_negatives=part.header.facts["clip_negatives"],
        )

    def read_all(self) -> NDArray[np.float32]:
        """Read every volume of the model's clock: float32, shape (X, Y, Z, T)."""
        return self.load().read_all()

    def load(self) -> Series:
        """Read the whole run into memory: what was written, but for the rounding."""
        return self._load(0, self.n_volumes)

    def _load(self, start: int, stop: int) -> Series:
        """Make a series whose frames reach as far as volumes `start` to `stop` need them."""
        with open_tensors(self.path) as file:
            part = _read_part(file, start, stop)
            spec = part.header.spec
            mask = np.unpackbits(part.mask_bits, count=math.prod(spec.shape))
            return Series(
                spec=spec,
                brain_mask=mask.view(np.bool_).reshape(spec.shape),
                frames=part.quantisation.decode(part.codes),
                clock=part.clock,
                **part.header.facts,
            )


class _Part(NamedTuple):
    header: _Header
    codes: NDArray[Codes]
    quantisation: Quantisation
    mask_bits: NDArray[np.uint8]
    clock: Clock  # of the volumes that are here


def _read_part(file: Any, start: int, stop: int) -> _Part:  # noqa: ANN401 - as below
    """Read the source volumes that volumes `start` to `stop` of the model's clock need."""
    header = _read_header(file)
    clock, n_voxels = header.clock, math.prod(header.spec.shape)
    first_volume, last_volume = np.clip((start, stop - 1), 0, clock.n_volumes - 1)
    first, last = int(clock.before[first_volume]), int(clock.after[last_volume])
    offset, step = file.get_tensor("offset"), file.get_tensor("step")
    mask_bits = file.get_tensor("brain_mask")
    n_marked = int(np.unpackbits(mask_bits, count=n_voxels).sum())
    if n_marked != header.n_brain:
        raise DataError(f"its mask has {n_marked} voxels, its frames {header.n_brain}")
    return _Part(
        header=header,
        codes=file.get_slice("frames")[first : last + 1],
        quantisation=Quantisation(offset, step, header.n_bits),
        mask_bits=mask_bits,
        clock=Clock(before=clock.before - first, after=clock.after - first, weight=clock.weight),
    )


def write_run(
    series: Series,
    path: Path,
    *,
    settings: StoreSettings | None = None,
    source: Mapping[str, Any] | None = None,
) -> None:
    """Write a run into a file, whole or not at all.

    Parameters
    ----------
    series : all of the run, in memory.
    path : ends in ``.safetensors``; its folder is made if need be.
    settings : the defaults if None.
    source : what the run was made from, to be kept in the file; ready for JSON.

    Raises
    ------
    DataError
        If the run holds values that are not finite.
    OutputError
        If the file cannot be written.
    TemporaryError
        If another process is writing it.
    """
    quantisation, step = _choose_quantisation(series.frames, settings or StoreSettings())
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "grid": series.spec.to_dict(),
        "source": dict(source or {}),
        "statistics": asdict(series.statistics),
        "source_affine": series.source_affine.tolist(),
        "source_repetition_time_s": series.source_repetition_time_s,
        "brain_coverage": series.brain_coverage,
        "steps": [*series.steps, step],
        "warnings": list(series.warnings),
        "clip_negatives": series.clip_negatives,
        "start_s": series.start_s,
        "censoring": None if series.censoring is None else asdict(series.censoring),
        "denoising": series.denoising,
    }
    mask = np.packbits(series.brain_mask)
    per_voxel = np.dtype("<f4"), quantisation.offset.shape
    tensors = {
        "offset": Tensor(*per_voxel, [quantisation.offset]),
        "step": Tensor(*per_voxel, [quantisation.step]),
        "frames": Tensor(
            quantisation.dtype, series.frames.shape, quantisation.encode(series.frames)
        ),
        "brain_mask": Tensor(mask.dtype, mask.shape, [mask]),
    }
    write_tensors(path, tensors, {"run": json.dumps(facts)})


def _choose_quantisation(
    frames: NDArray[np.float32], settings: StoreSettings
) -> tuple[Quantisation, str]:
    """Take the bits that are asked for, or 16 where these are too few; and say so in words."""
    n_brain = frames.shape[1]
    quantisation = make_quantisation(frames, settings.n_bits)
    n_coarse = count_coarse_voxels(frames, quantisation)
    if settings.n_bits == _N_BITS["U8"] and n_coarse > settings.max_coarse_share * n_brain:
        quantisation = make_quantisation(frames, _N_BITS["U16"])
        n_left = count_coarse_voxels(frames, quantisation)
        return quantisation, (
            f"Stored in 16 bits per value, because in 8 the fluctuation of {n_coarse} of {n_brain} "
            f"voxels would drown in the range of their spikes; {n_left} are left."
        )
    return quantisation, (
        f"Stored in {settings.n_bits} bits per value; in {n_coarse} of {n_brain} voxels spikes "
        "make the steps coarse for the fluctuation."
    )


def _read_header(file: Any) -> _Header:  # noqa: ANN401 - the library gives no types
    """Read and check the front of a file; what fails in here means damage."""
    facts = json.loads(file.metadata()["run"])
    found = (facts.pop("format"), facts.pop("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise DataError(f"expected {(FORMAT, FORMAT_VERSION)}, found {found}")
    spec = GridSpec.from_dict(facts.pop("grid"))
    frames = file.get_slice("frames")
    n_source_volumes, n_brain = frames.get_shape()
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    expected = {
        "offset": (n_brain,),
        "step": (n_brain,),
        "frames": (n_source_volumes, n_brain),
        "brain_mask": (-(-math.prod(spec.shape) // 8),),
    }
    if shapes != expected:
        raise DataError(f"expected tensors of shapes {expected}, found {shapes}")
    fingerprint = _find_fingerprint(facts.pop("source"))
    if not all(math.isfinite(value) for value in facts["statistics"].values()):
        raise DataError(f"its statistics are {facts['statistics']}")
    facts["statistics"] = Statistics(**facts["statistics"])
    facts["source_affine"] = np.array(facts["source_affine"], dtype=np.float64).reshape(4, 4)
    facts["censoring"] = Censoring.from_dict(facts["censoring"])
    facts["steps"], facts["warnings"] = tuple(facts["steps"]), tuple(facts["warnings"])
    if not 0 <= facts["start_s"] < math.inf:
        raise DataError(f"it begins at {facts['start_s']} s")
    clock = _lay_clock(n_source_volumes, facts["source_repetition_time_s"], spec)
    n_bits = _N_BITS[frames.get_dtype()]
    return _Header(spec, clock, n_brain, n_bits, fingerprint, facts)


def _find_fingerprint(source: Mapping[str, Any]) -> str | None:
    """Return that of the BOLD file, where the source of a run tells it as `prepare` does."""
    bold = source.get("bold")
    found = bold.get("fingerprint") if isinstance(bold, dict) else None
    return found if isinstance(found, str) else None


def _lay_clock(n_source_volumes: int, source_repetition_time_s: float, spec: GridSpec) -> Clock:
    """Lay the model's clock over a run, unless that would take no sense and much memory."""
    n_volumes = n_source_volumes * source_repetition_time_s / spec.repetition_time_s
    if not (0 < source_repetition_time_s <= MAX_REPETITION_TIME_S and n_volumes <= MAX_VOLUMES):
        raise DataError(
            f"{n_source_volumes} volumes of {source_repetition_time_s} s at "
            f"{spec.repetition_time_s} s are no run"
        )
    return find_clock(
        n_source_volumes,
        source_repetition_time_s=source_repetition_time_s,
        repetition_time_s=spec.repetition_time_s,
    )
