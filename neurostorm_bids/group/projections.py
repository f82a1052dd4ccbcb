"""Planes to look at embeddings in: principal components, and UMAP where it is installed."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

_MIN_FOR_UMAP = 10
_N_NEIGHBOURS = 15


class Projection(NamedTuple):
    """Runs in a plane.

    Attributes
    ----------
    name : of the way they came there.
    points : shape (n_runs, 2).
    axes : what the two axes are.
    """

    name: str
    points: Floats
    axes: tuple[str, str]


def project_linearly(vectors: NDArray[np.floating]) -> Projection:
    """Return the first two principal components, of at least two runs.

    Signs, which are arbitrary, are such that the largest loading of each is positive.
    """
    centred = np.asarray(vectors, dtype=np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    largest = np.take_along_axis(right, np.abs(right).argmax(axis=1)[:, None], axis=1)[:, 0]
    points = left * sizes * np.where(largest < 0, -1, 1)
    total = float((sizes**2).sum()) or 1.0
    points = np.pad(points, [(0, 0), (0, max(0, 2 - points.shape[1]))])
    shares = np.pad(sizes**2 / total, (0, max(0, 2 - len(sizes))))
    axes = (f"component 1 ({shares[0]:.0%} of the variance)", f"component 2 ({shares[1]:.0%})")
    return Projection("PCA", points[:, :2], axes)


def project_by_neighbours(vectors: NDArray[np.floating], *, seed: int) -> Projection | str:
    """Return the plane of UMAP, or in words why there is none."""
    if find_spec("umap") is None:
        return "UMAP is not installed (pip install umap-learn), so only PCA is shown."
    if len(vectors) < _MIN_FOR_UMAP:
        return f"UMAP is not shown: it needs {_MIN_FOR_UMAP} runs or more."
    try:
        from umap import UMAP  # noqa: PLC0415 - slow, and not always there

        points = UMAP(
            n_neighbors=min(_N_NEIGHBOURS, len(vectors) - 1), random_state=seed, n_jobs=1
        ).fit_transform(np.asarray(vectors, dtype=np.float32))
    except Exception as err:  # noqa: BLE001 - a picture less must not cost the report
        logger.warning("UMAP failed, and is not shown. %s: %s", type(err).__name__, err)
        return f"UMAP is installed, but failed ({type(err).__name__}), so only PCA is shown."
    return Projection("UMAP", np.asarray(points, dtype=np.float64), ("UMAP 1", "UMAP 2"))
