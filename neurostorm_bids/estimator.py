"""The model as a scikit-learn transformer: BOLD runs in, embeddings out."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from nibabel.spatialimages import SpatialImage
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs import BoldRun
from neurostorm_bids.predict import choose_device, predict_run
from neurostorm_bids.pretrained import Model, load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sklearn.utils import Tags

    from neurostorm_bids.predict import RunPrediction

logger = logging.getLogger(__name__)


class NeurostormEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeds BOLD runs with a pretrained model, for use in scikit-learn's pipelines.

    The model learns nothing from the runs it is given: `fit` only loads it. So embeddings may be
    computed once, before a cross-validation rather than in each of its folds, without any leak.

    Parameters
    ----------
    model : a model folder, a published ``.ckpt`` file, a name in the catalogue or an ``hf://``
        address, as `neurostorm_bids.load_model` takes them; or a model that it returned.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    batch_size : clips at once; None chooses.

    Attributes
    ----------
    model_ : the model, loaded.
    n_features_out_ : features of an embedding.

    Examples
    --------
    ::

        embeddings = NeurostormEmbedder("neurostorm-mae-5ds").fit_transform(runs)
        cross_val_score(make_pipeline(StandardScaler(), RidgeCV()), embeddings, age)
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size

    def fit(self, X: Sequence[Any], y: object = None) -> Self:  # noqa: ARG002, N803 - scikit-learn's
        """Load the model; the runs are only counted.

        Parameters
        ----------
        X : see `transform`.
        y : ignored.
        """
        _check_runs(X)
        device, given = choose_device(self.device), self.model
        self.model_ = copy.deepcopy(given) if isinstance(given, Model) else load_model(given)
        self.model_.backbone.to(device).eval()
        if self.model_.head is not None:
            self.model_.head.to(device).eval()
        self.n_features_out_ = self.model_.config.n_features
        return self

    def transform(self, X: Sequence[Any]) -> NDArray[np.float32]:  # noqa: N803 - scikit-learn's
        """Embed runs.

        Parameters
        ----------
        X : n runs of preprocessed BOLD in a standard space. Of a `BoldRun` (`find_bold_runs` in
            `neurostorm_bids.inputs`) the brain mask and repetition time are used. For a file the
            repetition time is read from its JSON sidecar, for a nibabel image from its header, and
            a brain mask is made of the image.

        Returns
        -------
        ndarray of float32, shape (n, n_features_out_)
            The mean over each run's clips.

        Raises
        ------
        DataError, MissingFileError
            When a run cannot be used.
        """
        check_is_fitted(self)
        _check_runs(X)
        embeddings = np.empty((len(X), self.n_features_out_), dtype=np.float32)
        for index, run in enumerate(X):
            prediction = self._predict(run)
            for warning in prediction.series.warnings:
                logger.warning("Run %d of %d: %s", index + 1, len(X), warning)
            embeddings[index] = prediction.embedding
        return embeddings

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the features, those of the columns in the derivatives' tables."""
        check_is_fitted(self)
        width = max(3, len(str(self.n_features_out_ - 1)))
        names = [f"dim{feature:0{width}d}" for feature in range(self.n_features_out_)]
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        """Say that the input is a list of runs, not an array of numbers."""
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags

    def _predict(self, run: object) -> RunPrediction:
        if isinstance(run, BoldRun):
            return predict_run(
                self.model_,
                run.path,
                run.brain_mask,
                run.repetition_time_s,
                batch_size=self.batch_size,
            )
        if isinstance(run, SpatialImage):
            return predict_run(self.model_, run, batch_size=self.batch_size)
        if isinstance(run, str | os.PathLike):
            return predict_run(self.model_, Path(run), batch_size=self.batch_size)
        raise UsageError(
            f"Expected runs as paths, nibabel images or BoldRun, found {type(run).__name__}."
        )


def _check_runs(runs: object) -> None:
    """Raise `UsageError` unless this is a list, or the like, of one or more runs."""
    is_one = isinstance(runs, str | os.PathLike | SpatialImage | BoldRun)
    if is_one or not hasattr(runs, "__len__") or len(runs) == 0:
        raise UsageError(
            f"Expected a list of one or more runs, found {type(runs).__name__}. "
            "Put a single run into a list."
        )
