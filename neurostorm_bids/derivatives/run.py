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
from neurostorm_bids.derivatives.tables import (
    embed_clips,
    embed_run,
    format_table,
    measure_overlap_s,
    tabulate_predictions,
)
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.grid.censoring import MAX_CENSORED_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from neurostorm_bids.derivatives.names import OutputNames
    from neurostorm_bids.derivatives.tables import Column
    from neurostorm_bids.inputs import BoldRun
    from neurostorm_bids.predict import RunPrediction
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)


class _Pair(NamedTuple):
    """A table and the sidecar that declares its columns."""

    table: Path
    sidecar: Path


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
    return all(
        pair.table.is_file() and read_hash(pair.sidecar) == configuration_hash
        for pair in _name_pairs(output_dir, run, names)
    )


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
    provenance = _describe_provenance(
        run, prediction, model=model, configuration_hash=configuration_hash
    )
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
        texts[pair.table] = format_table(columns)
        texts[pair.sidecar] = format_json({**head, **provenance, **declared})
    remove_leftovers(pairs[0].sidecar.parent)
    write_files(texts, seals=[pair.sidecar for pair in pairs])
    for path in texts:
        logger.info("Wrote %s", path.relative_to(output_dir))
    return list(texts)


def _name_pairs(output_dir: Path, run: BoldRun, names: OutputNames) -> list[_Pair]:
    """Name the files of a run and a model: scan, clip and, with a head, predictions."""
    kinds = [(names.scan, "embedding"), (names.clip, "embedding")]
    if names.target is not None:
        kinds.append((names.target, "predictions"))
    return [
        _Pair(
            *(
                derive_path(
                    output_dir, run, suffix=suffix, extension=extension, entities={"desc": desc}
                )
                for extension in (".tsv", ".json")
            )
        )
        for desc, suffix in kinds
    ]


def read_hash(sidecar: Path) -> str | None:
    """Return the configuration hash in a sidecar; None if it is not there or cannot be read."""
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("ConfigurationHash") if isinstance(content, dict) else None


def _describe_provenance(
    run: BoldRun, prediction: RunPrediction, *, model: Model, configuration_hash: str
) -> dict[str, Any]:
    """Return what every sidecar of a run says of where its numbers come from."""
    series = prediction.series
    return {
        "Sources": _list_sources(run),
        "SoftwareName": "neurostorm-bids",
        "SoftwareVersion": __version__,
        "ModelName": model.provenance.name,
        "ModelSHA256": model.provenance.sha256,
        "ModelSource": model.provenance.source,
        "ModelFormat": model.provenance.format,
        "Precision": model.precision,
        "ModelNotes": list(model.provenance.notes),
        "ConfigurationHash": configuration_hash,
        "Grid": series.spec.to_dict(),
        "SourceRepetitionTime": series.source_repetition_time_s,
        "NumberOfVolumes": series.n_volumes,
        "NumberOfClips": len(prediction.onsets_s),
        "ClipLength": model.clip_length,
        "ClipDuration": round(prediction.duration_s, 6),
        "LastClipOverlap": round(measure_overlap_s(prediction), 6),
        "Statistics": {
            name: value if math.isfinite(value) else None
            for name, value in asdict(series.statistics).items()
        },
        "BrainCoverage": series.brain_coverage,
        **_describe_cleaning(prediction),
        "PreparationSteps": list(series.steps),
        "Warnings": list(dict.fromkeys((*run.warnings, *series.warnings))),
    }


def _describe_cleaning(prediction: RunPrediction) -> dict[str, Any]:
    """Return what was dropped, regressed out and censored; only what was asked for."""
    series = prediction.series
    told: dict[str, Any] = {}
    if series.start_s:
        told["DummyScansDuration"] = round(series.start_s, 6)
        told["NumberOfDummyScans"] = round(series.start_s / series.source_repetition_time_s)
    if series.denoising is not None:
        told["Denoising"] = series.denoising
    if series.censoring is not None and prediction.clip_censoring is not None:
        told["Censoring"] = {
            "FramewiseDisplacementThreshold": series.censoring.threshold_mm,
            "NumberOfCensoredVolumes": len(series.censoring.volumes),
            "NumberOfSourceVolumes": series.censoring.n_source_volumes,
            "MaximalShareOfClip": MAX_CENSORED_SHARE,
            "NumberOfClipsUsed": int(prediction.clip_censoring.is_used.sum()),
        }
    return told


def _list_sources(run: BoldRun) -> list[str]:
    """Return the BIDS URIs of the files that were read."""
    confounds = run.confounds if run.cleaning.needs_confounds else None
    return [
        f"bids:{run.dataset.name}:{path.relative_to(run.dataset.path).as_posix()}"
        for path in (run.path, run.brain_mask, confounds)
        if path is not None and path.is_relative_to(run.dataset.path)
    ]
