"""The only inference path: a BOLD series and a model become embeddings and predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.grid.clips import ClipReader, find_clip_starts, weigh_clips
from neurostorm_bids.grid.read import read_header_repetition_time
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.inputs import read_repetition_time
from neurostorm_bids.model.batching import work_in_batches
from neurostorm_bids.model.heads import pool_tokens, read_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nibabel.spatialimages import SpatialImage
    from numpy.typing import NDArray

    from neurostorm_bids.grid.censoring import ClipCensoring
    from neurostorm_bids.grid.series import Series
    from neurostorm_bids.model.assessment import Assessment
    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.pretrained import Model


@dataclass(frozen=True, kw_only=True)
class RunPrediction:
    """What a model says of one run, clip by clip and as a whole.

    K clips, D features, M outputs (one per class, or one value).

    Attributes
    ----------
    onsets_s : (K,) start of each clip, in seconds from the run's first volume, also where volumes
        at the beginning were dropped.
    duration_s : length of a clip, in seconds.
    clip_weights : (K,) share of each clip in the run's mean; every volume counts once, also where
        the last clip overlaps the one before it. 0 for clips with too many censored volumes.
    clip_embeddings : (K, D) mean over all tokens of the backbone's output; NaN for clips with too
        many censored volumes, which the network never sees.
    embedding : (D,) weighted mean over clips.
    target : what the head predicts; None for a model without a head.
    clip_outputs : (K, M) probabilities per class, or values in the target's own unit; NaN as above.
    output : (M,) weighted mean over clips; of a model with a temperature, that taken out.
    spread : (M,) standard deviation over clips; NaN for a run of a single clip.
    series : the series these numbers come from, with statistics, steps and warnings.
    assessment : how far to trust it; None for a model without a calibration.
    clip_censoring : how much of each clip is censored; None where nobody asked.
    """

    onsets_s: NDArray[np.float64]
    duration_s: float
    clip_weights: NDArray[np.float64]
    clip_embeddings: NDArray[np.float32]
    embedding: NDArray[np.float32]
    target: TargetSpec | None
    clip_outputs: NDArray[np.float32] | None
    output: NDArray[np.float32] | None
    spread: NDArray[np.float32] | None
    series: Series
    assessment: Assessment | None = None
    clip_censoring: ClipCensoring | None = None


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names.

    ``auto`` takes a GPU when there is one. A GPU asked for by name and absent is a `UsageError`,
    never a silent change to the CPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise UsageError(
            f"No device is called {name!r}. Expected auto, cpu, cuda or cuda:N."
        ) from err
    if device.type not in {"cpu", "cuda"}:
        raise UsageError(f"Device {name!r} is not supported. Expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"Device {name!r} was asked for, but torch sees {torch.cuda.device_count()} GPU(s). "
            "Take --device cpu, or check the driver, CUDA_VISIBLE_DEVICES and (in a container) "
            "--gpus or --nv."
        )
    return device


def predict_run(
    model: Model,
    bold: str | Path | SpatialImage,
    mask: str | Path | SpatialImage | None = None,
    repetition_time_s: float | None = None,
    *,
    batch_size: int | None = None,
) -> RunPrediction:
    """Embed one run, and predict from it when the model has a head.

    Parameters
    ----------
    model : from `neurostorm_bids.load_model`; runs where its parameters lie.
    bold : preprocessed BOLD in a standard space, 4D, as a file or a nibabel image.
    mask : brain mask, any grid; made from the image when None, with a warning.
    repetition_time_s : seconds between volumes. None: from the JSON sidecar of a file; from the
        header of a nibabel image, which has nothing else.
    batch_size : clips at once; None chooses (one on a CPU).

    Raises
    ------
    DataError, MissingFileError
        When the image, its mask or its repetition time cannot be used.
    """
    bold = Path(bold) if isinstance(bold, str | Path) else bold
    if repetition_time_s is None:
        repetition_time_s = (
            read_repetition_time(bold)
            if isinstance(bold, Path)
            else read_header_repetition_time(bold)
        )
    series = grid_run(
        bold,
        model.grid,
        repetition_time_s=repetition_time_s,
        brain_mask=Path(mask) if isinstance(mask, str | Path) else mask,
    )
    return predict_series(model, series, batch_size=batch_size)


def predict_series(
    model: Model, series: Series, *, batch_size: int | None = None, progress: bool = False
) -> RunPrediction:
    """Run the model over every clip of a series that lies on the model's grid.

    Clips stand back to back; the last is aligned to the end of the run and overlaps the one before
    it where the length does not divide. `progress` shows a bar over clips on a terminal.

    Raises
    ------
    UsageError
        When the series lies on another grid than the model's.
    TemporaryError
        When even one clip does not fit into the device's memory.
    DataError
        When the network's output is not finite, or every clip has too many censored volumes.
    """
    if series.spec != model.grid:
        raise UsageError(
            f"The series lies on the grid {series.spec}, but the model reads {model.grid}. "
            "Grid the run again with the model's own grid."
        )
    length = model.clip_length
    if padding := series.describe_padding(length):
        series = replace(
            series, steps=(*series.steps, padding), warnings=(*series.warnings, padding)
        )
    starts = find_clip_starts(series.n_volumes, length)
    censoring = series.count_censored(starts, length)
    is_used = np.ones(len(starts), dtype=np.bool_) if censoring is None else censoring.is_used
    if series.censoring is not None and censoring is not None:
        series.censoring.check_any(censoring, name="the run")
    used = [start for start, is_one in zip(starts, is_used, strict=True) if is_one]
    weights = np.zeros(len(starts))
    weights[is_used] = weigh_clips(used, length, series.n_volumes)
    embeddings, outputs = _predict_clips(
        model, series, used, batch_size=batch_size, progress=progress
    )
    embedding = _weighted_mean(embeddings, weights[is_used])
    output = None if outputs is None else _weighted_mean(outputs, weights[is_used])
    assessment = None
    if model.calibration is not None:
        assessment = model.calibration.assess(output, embedding)
        output = None if output is None else model.calibration.sharpen(output)
    return RunPrediction(
        onsets_s=series.start_s
        + np.asarray(starts, dtype=np.float64) * model.grid.repetition_time_s,
        duration_s=length * model.grid.repetition_time_s,
        clip_weights=weights,
        clip_embeddings=_spread_out(embeddings, is_used),
        embedding=embedding,
        target=model.target,
        clip_outputs=None if outputs is None else _spread_out(outputs, is_used),
        output=output,
        spread=None if outputs is None else _spread(outputs),
        series=series,
        assessment=assessment,
        clip_censoring=censoring,
    )


def _spread_out(values: NDArray[np.float32], is_used: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Put the rows of clips that were read among those that were not: (n_used, M) -> (K, M)."""
    rows = np.full((len(is_used), values.shape[1]), np.nan, dtype=np.float32)
    rows[is_used] = values
    return rows


def run_network(model: Model, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run backbone and head: the one way from clips to numbers, with gradients where torch records.

    Parameters
    ----------
    clips : Tensor, shape (B, C, X, Y, Z, T), on the model's device.

    Returns
    -------
    Tensor, shape (B, D, X', Y', Z', T) : the backbone's output.
    Tensor, shape (B, n_outputs) : logits or z-scores, in float32 at least; None for a model that
    predicts nothing.
    """
    is_rough = model.precision == "bf16"
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=is_rough):
        features = model.backbone(clips)
        if model.head is None or model.target is None:
            return features, None
        outputs = model.head(features)
    return features, outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def _predict_clips(
    model: Model,
    series: Series,
    starts: Sequence[int],
    *,
    batch_size: int | None,
    progress: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return embeddings (K, D) and outputs (K, M)."""
    device = next(model.backbone.parameters()).device
    with (
        tqdm(
            total=len(starts), unit="clip", leave=False, disable=None if progress else True
        ) as bar,
        ClipReader(
            series, starts, length=model.clip_length, n_threads=count_readers(device)
        ) as reader,
    ):
        results = work_in_batches(
            lambda batch: _predict_batch(model, reader, batch, device=device),
            starts,
            device=device,
            batch_size=batch_size,
            tell=bar.update,
        )
    embeddings = torch.cat([embedding for embedding, _ in results]).numpy()
    outputs = [output for _, output in results if output is not None]
    return embeddings, torch.cat(outputs).numpy() if outputs else None


def count_readers(device: torch.device) -> int:
    """Return how many threads read ahead: none where the network takes the only CPU."""
    n_threads = torch.get_num_threads()
    return n_threads if device.type == "cuda" else int(n_threads > 1)


def _predict_batch(
    model: Model, reader: ClipReader, starts: Sequence[int], *, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return embeddings (K, D) and outputs (K, M) of clips that are run together, on the CPU."""
    clips = reader.read(starts)
    with torch.inference_mode():
        x = torch.from_numpy(clips)[:, None].to(device)  # (K, 1, X, Y, Z, T)
        features, raw = run_network(model, x)
        embedding = pool_tokens(features).float().cpu()
        output = None
        if raw is not None and model.target is not None:
            output = read_outputs(raw, model.target).float().cpu()
    if not (embedding.isfinite().all() and (output is None or output.isfinite().all())):
        raise DataError(
            f"The network's output for the clips at volumes {list(starts)} is not finite. Either "
            "the weights are damaged or the series holds values far from those of BOLD data."
        )
    return embedding, output


def _weighted_mean(
    values: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the mean over the first axis: values (K, M), weights (K,) that sum to one."""
    mean: NDArray[np.float32] = (weights @ values.astype(np.float64)).astype(np.float32)
    return mean


def _spread(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation over clips: outputs (K, M) -> (M,); NaN when K is 1."""
    if len(outputs) == 1:
        return np.full(outputs.shape[1], np.nan, dtype=np.float32)
    spread: NDArray[np.float32] = outputs.std(axis=0, ddof=1, dtype=np.float64).astype(np.float32)
    return spread
