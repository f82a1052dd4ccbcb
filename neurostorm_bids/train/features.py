"""Embeddings of stored runs: computed once, by the only inference path, and kept in a folder."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import hash_configuration
from neurostorm_bids.predict import predict_series
from neurostorm_bids.train.arrays import read_arrays, write_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.scans import Scan

logger = logging.getLogger(__name__)


class RunFeatures(NamedTuple):
    """What a backbone makes of a run of K clips.

    Attributes
    ----------
    onsets_s : (K,), in seconds from the first volume.
    weights : (K,), share of each clip in the run; 0 for clips with too many censored volumes.
    clips : (K, D), embeddings; NaN for such clips.
    """

    onsets_s: NDArray[np.float64]
    weights: NDArray[np.float64]
    clips: NDArray[np.float32]

    @property
    def whole(self) -> NDArray[np.float64]:
        """The run's embedding, (D,)."""
        is_used = self.weights > 0
        mean: NDArray[np.float64] = self.weights[is_used] @ self.clips[is_used].astype(np.float64)
        return mean


def embed_scans(
    model: Model, scans: Sequence[Scan], folder: Path, *, batch_size: int | None = None
) -> list[RunFeatures]:
    """Embed every run with a model's backbone; what is in the folder is not computed again.

    A file's name holds a hash of the model and the name of the stored run, which holds one of the
    run's contents and of the grid.
    """
    key = hash_configuration(
        {
            "version": __version__,
            "model": model.provenance.sha256,
            "config": model.config.to_dict(),
            "grid": model.grid.to_dict(),
        }
    )
    encoder = replace(model, head=None, head_config=None, target=None, calibration=None)
    features, n_new = [], 0
    for scan in tqdm(scans, desc="Embedding runs", unit="run", disable=None):
        path = folder / key[:16] / scan.run.dataset.name / f"{scan.stored.path.stem}.npz"
        arrays = read_arrays(path, RunFeatures._fields)
        if arrays is None:
            prediction = predict_series(encoder, scan.stored.load(), batch_size=batch_size)
            arrays = {
                "onsets_s": prediction.onsets_s,
                "weights": prediction.clip_weights,
                "clips": prediction.clip_embeddings,
            }
            write_arrays(path, arrays)
            n_new += 1
        features.append(RunFeatures(**arrays))
    logger.info("%d run(s) embedded, %d were embedded before", n_new, len(scans) - n_new)
    return features
