"""What a checkpoint is, as plain values and as the text of a model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.model.weights import Checkpoint

_CARD = """\
# {name}

A NeuroSTORM model for preprocessed fMRI: {kind}, {n_parameters:,} parameters.
`neurostorm-bids` reads this folder:
`neurostorm FMRIPREP_DIR OUTPUT_DIR participant --model FOLDER`.

## Input

Clips of {clip_length} volumes on this grid; a run is resampled to it by its affine.

{grid}

## Output

{n_features} features for each of {n_tokens} tokens per clip, of which the mean is the embedding.
{target}

## Where it comes from

- Source: {source}
- SHA-256 of the source: {source_sha256}
- SHA-256 of `model.safetensors`: {sha256}
{notes}

## Licence

These weights are under the licence of their source. The weights published by the authors of
NeuroSTORM are under the MIT licence.

## Limits

For research; not for diagnosis, and not for decisions about single persons. A prediction holds at
best for people, scanners and preparation like those of its training. Report what a plain baseline,
such as functional connectivity, reaches on the same people beside it.
"""


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a checkpoint is, ready for JSON."""
    parts = {
        "backbone": checkpoint.weights,
        "head": checkpoint.head_weights,
        "decoder": checkpoint.decoder_weights,
    }
    return {
        "name": checkpoint.provenance.name,
        "format": checkpoint.provenance.format,
        "source": checkpoint.provenance.source,
        "sha256": checkpoint.provenance.sha256,
        "parameters": {
            part: sum(tensor.numel() for tensor in weights.values())
            for part, weights in parts.items()
        },
        "model": checkpoint.config.to_dict(),
        "head": None if checkpoint.head is None else checkpoint.head.to_dict(),
        "target": None if checkpoint.target is None else checkpoint.target.to_dict(),
        "grid": None if checkpoint.grid is None else dict(checkpoint.grid),
        "notes": list(checkpoint.provenance.notes),
    }


def write_card(checkpoint: Checkpoint, *, sha256: str) -> str:
    """Return the model card, Markdown, of a checkpoint whose weights' file has this SHA-256."""
    about = describe_checkpoint(checkpoint)
    config = checkpoint.config
    x, y, z, t = config.stage_grid(config.n_stages - 1)
    grid = "\n".join(f"- {name}: {value}" for name, value in (about["grid"] or {}).items())
    return _CARD.format(
        name=about["name"],
        kind=name_kind(checkpoint),
        n_parameters=sum(about["parameters"].values()),
        clip_length=config.clip_length,
        grid=grid,
        n_features=config.n_features,
        n_tokens=x * y * z * t,
        target=_tell_target(checkpoint.target),
        source=about["source"],
        source_sha256=about["sha256"] or "none; made in memory",
        sha256=sha256,
        notes="\n".join(f"- {note}" for note in (*about["notes"], *_tell_lessons(checkpoint))),
    )


def name_kind(checkpoint: Checkpoint) -> str:
    """Say in words what kind of model this is."""
    if checkpoint.decoder_weights:
        return "a masked autoencoder, of which the encoder is used"
    if checkpoint.target is None:
        return "an encoder without a head"
    return f"an encoder with a head for {checkpoint.target.name} ({checkpoint.target.kind})"


def _tell_lessons(checkpoint: Checkpoint) -> tuple[str, ...]:
    n_marks = sum(len(lesson.marks.split()) for lesson in checkpoint.provenance.lessons)
    if not n_marks:
        return ()
    note = (
        f"`config.json` holds marks of the {n_marks} file(s) that the backbone was trained on, by "
        "which a later fine-tuning tells when it is tested on them. A mark is of a file's "
        "contents, and tells something to those alone who have the file."
    )
    return (note,)


def _tell_target(target: TargetSpec | None) -> str:
    if target is None:
        return "It predicts nothing by itself."
    if target.kind == "classification":
        return f"It predicts {target.name}: a probability for each of {', '.join(target.classes)}."
    if target.mean is None:
        return f"It predicts {target.name} as a z-score: the scale of its training is not known."
    unit = target.unit or "its own unit"
    return (
        f"It predicts {target.name} in {unit}; in training its mean was {target.mean:g}, "
        f"its standard deviation {target.sd:g}."
    )
