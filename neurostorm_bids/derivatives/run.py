"""The files of one run: embeddings, predictions and their sidecars."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_files
from neurostorm_bids.derivatives.names import derive_path
from neurostorm_bids.derivatives.prediction_tables import (
    embed_clips,
    embed_run,
    measure_overlap_s,
    tabulate_predictions,
)
from neurostorm_bids.derivatives.tables import format_table
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.derivatives.versions import list_versions
from neurostorm_bids.errors import UserError
from neurostorm_bids.grid.censoring import MAX_CENSORED_SHARE
from neurostorm_bids.inputs.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from neurostorm_bids.derivatives.names import OutputNames
    from neurostorm_bids.derivatives.tables import Column
    from neurostorm_bids.grid.censoring import ClipCensoring
    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.predict import RunPrediction
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A table or an image, and its sidecar."""

    content: Path
    sidecar: Path


def name_pair(
    output_dir: Path, run: BoldRun, *, suffix: str, extension: str, **entities: str
) -> Pair:
    """Name a file derived from a run, and its sidecar."""
    content, sidecar = (
        derive_path(output_dir, run, suffix=suffix, extension=end, entities=entities)
        for end in (extension, ".json")
    )
    return Pair(content, sidecar)


def have_hash(pairs: Iterable[Pair], configuration_hash: str) -> bool:
    """Return whether all files are there, made with this configuration."""
    return all(
        pair.content.is_file() and read_hash(pair.sidecar) == configuration_hash for pair in pairs
    )


def hash_configuration(configuration: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that decides what a run's files hold.

    Parameters
    ----------
    configuration : strings, finite numbers, booleans, None, lists and mappings of these. The order
        of the keys does not matter.
    """
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_finished(
    output_dir: Path, run: BoldRun, *, names: OutputNames, configuration_hash: str
) -> bool:
    """Return whether all files of a run and a model are there, made with this configuration."""
    return have_hash(_name_pairs(output_dir, run, names), configuration_hash)


def write_run(
    output_dir: Path,
    run: BoldRun,
    prediction: RunPrediction,
    *,
    model: Model,
    names: OutputNames,
    configuration_hash: str,
) -> list[Path]:
    """Write what a model says of a run, and return the paths of the files.

    Old files of the same names stop being finished before the first new one appears, and the new
    ones are finished only when the last is in place: see `is_finished`.

    Raises
    ------
    OutputError
        If the operating system refuses.
    """
    provenance = {
        **describe_source(
            run,
            prediction.series,
            configuration_hash=configuration_hash,
            clip_censoring=prediction.clip_censoring,
        ),
        **describe_model(model),
        **_describe_clips(prediction),
    }
    contents: list[tuple[dict[str, Any], list[Column]]] = [
        ({"Description": "Embedding of the whole run."}, embed_run(prediction)),
        ({"Description": "Embedding of each clip of the run."}, embed_clips(prediction)),
    ]
    if prediction.target is not None:
        about = f"Prediction of {prediction.target.name}, per clip and for the run."
        contents.append(
            (
                {"Description": about, "Target": prediction.target.to_dict()},
                tabulate_predictions(prediction),
            )
        )
    pairs = _name_pairs(output_dir, run, names)
    texts: dict[Path, str] = {}
    for pair, (head, columns) in zip(pairs, contents, strict=True):
        declared = {column.name: column.declare() for column in columns}
        texts[pair.content] = format_table(columns)
        texts[pair.sidecar] = format_json({**head, **provenance, **declared})
    remove_leftovers(pairs[0].sidecar.parent)
    write_files(texts, seals=[pair.sidecar for pair in pairs])
    for path in texts:
        logger.info("Wrote %s", path.relative_to(output_dir))
    return list(texts)


def _name_pairs(output_dir: Path, run: BoldRun, names: OutputNames) -> list[Pair]:
    """Name the files of a run and a model: scan, clip and, with a head, predictions."""
    kinds = [(names.scan, "embedding"), (names.clip, "embedding")]
    if names.target is not None:
        kinds.append((names.target, "predictions"))
    return [
        name_pair(output_dir, run, suffix=suffix, extension=".tsv", desc=desc)
        for desc, suffix in kinds
    ]


def read_hash(sidecar: Path) -> str | None:
    """Return the configuration hash in a sidecar; None if it is not there or cannot be read."""
    try:
        found = read_json_object(sidecar).get("ConfigurationHash")
    except UserError:
        return None
    return found if isinstance(found, str) else None


def describe_source(
    run: BoldRun,
    series: Series,
    *,
    configuration_hash: str,
    clip_censoring: ClipCensoring | None = None,
) -> dict[str, Any]:
    """Return what the sidecar of any file says of the run it comes from."""
    return {
        "Sources": _list_sources(run),
        "SoftwareName": "neurostorm-bids",
        "SoftwareVersion": __version__,
        "SoftwareEnvironment": list_versions(),
        "ConfigurationHash": configuration_hash,
        "Grid": series.spec.to_dict(),
        "SourceRepetitionTime": series.source_repetition_time_s,
        "NumberOfVolumes": series.n_volumes,
        "Statistics": {
            name: value if math.isfinite(value) else None
            for name, value in asdict(series.statistics).items()
        },
        "BrainCoverage": series.brain_coverage,
        **_describe_cleaning(series, clip_censoring),
        "PreparationSteps": list(series.steps),
        "Warnings": list(dict.fromkeys((*run.warnings, *series.warnings))),
    }


def _describe_cleaning(series: Series, clip_censoring: ClipCensoring | None) -> dict[str, Any]:
    """Return what was dropped, regressed out and censored; only what was asked for."""
    told: dict[str, Any] = {}
    if series.start_s:
        told["DummyScansDuration"] = round(series.start_s, 6)
        told["NumberOfDummyScans"] = round(series.start_s / series.source_repetition_time_s)
    if series.denoising is not None:
        told["Denoising"] = series.denoising
    if series.censoring is not None:
        told["Censoring"] = {
            "FramewiseDisplacementThreshold": series.censoring.threshold_mm,
            "NumberOfCensoredVolumes": len(series.censoring.volumes),
            "NumberOfSourceVolumes": series.censoring.n_source_volumes,
            "MaximalShareOfClip": MAX_CENSORED_SHARE,
        }
        if clip_censoring is not None:
            told["Censoring"]["NumberOfClipsUsed"] = int(clip_censoring.is_used.sum())
    return told


def describe_model(model: Model) -> dict[str, Any]:
    """Return what the sidecar of any file says of the model that made it."""
    return {
        "ModelName": model.provenance.name,
        "ModelSHA256": model.provenance.sha256,
        "ModelSource": model.provenance.source,
        "ModelFormat": model.provenance.format,
        "Precision": model.precision,
        "ModelNotes": list(model.provenance.notes),
        "ClipLength": model.clip_length,
    }


def _describe_clips(prediction: RunPrediction) -> dict[str, Any]:
    return {
        "NumberOfClips": len(prediction.onsets_s),
        "ClipDuration": round(prediction.duration_s, 6),
        "LastClipOverlap": round(measure_overlap_s(prediction), 6),
    }


def describe_reference(run: BoldRun) -> dict[str, str]:
    """Return what the sidecar of an image says it is aligned with: the run it comes from."""
    sources = _list_sources(run)
    return {"SpatialReference": sources[0]} if sources else {}


def _list_sources(run: BoldRun) -> list[str]:
    """Return the BIDS URIs of the files that were read."""
    confounds = run.confounds if run.cleaning.needs_confounds else None
    return [
        f"bids:{run.dataset.name}:{path.relative_to(run.dataset.path).as_posix()}"
        for path in (run.path, run.brain_mask, confounds)
        if path is not None and path.is_relative_to(run.dataset.path)
    ]
