"""Names of output files: the source's entities, and a ``desc`` that says what a file holds."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurostorm_bids.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.pretrained import Model

# The end of BIDS' order of entities; those before it stand as the source file has them.
LAST_ENTITIES = ("space", "atlas", "seg", "res", "den", "label", "stat", "desc")
MAX_LABEL_LENGTH = 40
PLAIN_DESC = "preproc"
RECONSTRUCTION = "reconstruction"


@dataclass(frozen=True, kw_only=True)
class OutputNames:
    """The ``desc`` of one model's files in one call.

    Attributes
    ----------
    scan, clip : of the embeddings of whole runs and of clips.
    target : of the predictions; None for a model without a head.
    attribution : of what drove the predictions, or of reconstruction errors.
    """

    scan: str = "scan"
    clip: str = "clip"
    target: str | None = None
    attribution: str = RECONSTRUCTION


def name_outputs(models: Sequence[Model]) -> list[OutputNames]:
    """Choose the ``desc`` of the files of all models of one call, so that no two are the same.

    One model: ``scan``, ``clip`` and the target's name. Several: ``scan`` and ``clip`` carry the
    model's label (``scanBase``), and so do targets that two models share (``ageBase``).

    Raises
    ------
    UsageError
        If the same model is given twice.
    """
    targets = [
        None if model.target is None else make_label(model.target.name, fallback="target")
        for model in models
    ]
    if len(models) == 1:
        return [OutputNames(target=targets[0], attribution=targets[0] or RECONSTRUCTION)]
    labels = _label_models(models)
    n_users = Counter(target.casefold() for target in targets if target is not None)
    descs = [
        target + label if target and n_users[target.casefold()] > 1 else target
        for label, target in zip(labels, targets, strict=True)
    ]
    return [
        OutputNames(
            scan="scan" + label,
            clip="clip" + label,
            target=desc,
            attribution=desc or RECONSTRUCTION + label,
        )
        for label, desc in zip(labels, descs, strict=True)
    ]


def make_label(text: str, *, fallback: str) -> str:
    """Turn any text into a BIDS label: ASCII letters and digits, later words capitalised.

    Accents are dropped; `fallback` is used where nothing is left.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", errors="ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+", plain) or [fallback]
    label: str = words[0] + "".join(map(_capitalise, words[1:]))
    return label[:MAX_LABEL_LENGTH]


def derive_path(
    output_dir: Path, run: BoldRun, *, suffix: str, extension: str, entities: Mapping[str, str]
) -> Path:
    """Return where a file derived from a run lies: ``sub-X/[ses-Y/]func/NAME``.

    The name keeps every entity of the source file, unknown ones too, in their order. Those given
    here replace the source's or are added in BIDS order, ``desc`` at the end. A source that is not
    ``desc-preproc`` keeps its own ``desc`` in front of ours (``desc-denoisedScan``), so that two
    versions of one run never meet in one file; where we give none, ``desc-preproc`` is left out.

    Parameters
    ----------
    extension : with its dot.
    entities : by key.
    """
    source_desc = run.entities.get("desc", PLAIN_DESC)
    if "desc" in entities and source_desc != PLAIN_DESC:
        entities = {**entities, "desc": source_desc + _capitalise(entities["desc"])}
    pairs = [
        (key, value)
        for key, value in run.entities.items()
        if key not in entities and (key, value) != ("desc", PLAIN_DESC)
    ]
    for key in sorted(entities, key=LAST_ENTITIES.index):
        pairs.insert(_find_place(key, [name for name, _ in pairs]), (key, entities[key]))
    for key, value in pairs:
        if not re.fullmatch(r"[^/\\\0]+", key + value):
            raise DataError(
                f"The entity {key}-{value} of {run.path.name} cannot be part of a file name. "
                "Rename the file as BIDS has it: letters and digits."
            )
    stem = "_".join(f"{key}-{value}" for key, value in pairs)
    folder = output_dir / f"sub-{run.entities['sub']}"
    if "ses" in run.entities:
        folder /= f"ses-{run.entities['ses']}"
    return folder / "func" / f"{stem}_{suffix}{extension}"


def check_distinct(output_dir: Path, runs: Iterable[BoldRun]) -> None:
    """Check that no two runs would be written to the same files.

    Raises
    ------
    UsageError
        If two source files differ only in what an output name does not hold: their dataset.
    """
    taken: dict[Path, BoldRun] = {}
    for run in runs:
        path = derive_path(
            output_dir, run, suffix="embedding", extension=".tsv", entities={"desc": "scan"}
        )
        other = taken.setdefault(path, run)
        if other is not run:
            raise UsageError(
                f"{run.path.name} of {run.dataset.name} and {other.path.name} of "
                f"{other.dataset.name} would be written to the same file, {path.name}. "
                "Give each dataset an output folder of its own."
            )


def _label_models(models: Sequence[Model]) -> list[str]:
    """Return a capitalised label per model; where names meet, the checksum tells them apart."""
    labels = [_capitalise(make_label(m.provenance.name, fallback="model")) for m in models]
    n_users = Counter(label.casefold() for label in labels)
    labels = [
        label if n_users[label.casefold()] == 1 else label + model.provenance.sha256[:8]
        for label, model in zip(labels, models, strict=True)
    ]
    for label, n in Counter(labels).items():
        if n > 1:
            raise UsageError(f"The model {label} is given {n} times. Give each model once.")
    return labels


def _find_place(key: str, names: Sequence[str]) -> int:
    """Return where an entity belongs: before the first one that BIDS puts after it."""
    later = LAST_ENTITIES[LAST_ENTITIES.index(key) + 1 :]
    return next((place for place, name in enumerate(names) if name in later), len(names))


def _capitalise(word: str) -> str:
    return word[:1].upper() + word[1:]
