"""Maps from what the model says of a brain to the embedding of the image that was seen.

A map is fitted on responses and image vectors of training runs; what comes back maps responses
(n, n_features) to vectors (n, n_dimensions).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
ImageMap = Callable[[Floats], Floats]
FitMap = Callable[[Floats, Floats], ImageMap]

PENALTIES = tuple(np.logspace(-2, 6, 17))


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """How the contrastive map is trained.

    Attributes
    ----------
    n_steps : of gradient descent, each over all responses or over a batch of them.
    batch_size : responses per step, where there are more.
    learning_rate, weight_decay : of AdamW.
    temperature : at the start; it is learned.
    seed : of the batches.
    """

    n_steps: int = 200
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    temperature: float = 0.1
    seed: int = 0


def fit_ridge_map(responses: Floats, vectors: Floats) -> ImageMap:
    """Fit a linear map by ridge regression; the penalty is chosen by leaving responses out.

    Parameters
    ----------
    responses : (n, n_features), standardised inside.
    vectors : (n, n_dimensions)
    """
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES)).fit(responses, vectors)

    def predict(new: Floats) -> Floats:
        return np.asarray(model.predict(new), dtype=np.float64).reshape(len(new), -1)

    return predict


def fit_contrastive_map(
    responses: Floats, vectors: Floats, *, settings: ContrastiveSettings | None = None
) -> ImageMap:
    """Fit a linear map that makes a response and its own image most similar to each other.

    Training starts from the ridge map and lowers the cross-entropy of both directions, as CLIP does
    (arXiv 2103.00020). Responses to one image share it: none counts as a wrong answer to another.

    Parameters
    ----------
    responses : (n, n_features), standardised inside.
    vectors : (n, n_dimensions); rows that are equal are the same image.
    settings : of the training.
    """
    import torch  # noqa: PLC0415 - all else here does without

    settings = settings or ContrastiveSettings()
    scaler = StandardScaler().fit(responses)
    standardised = scaler.transform(responses)
    ridge = RidgeCV(alphas=PENALTIES).fit(standardised, vectors)
    layer = torch.nn.Linear(responses.shape[1], vectors.shape[1], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.atleast_2d(ridge.coef_)))
        layer.bias.copy_(torch.from_numpy(np.atleast_1d(ridge.intercept_)))
    _train(layer, torch.from_numpy(standardised), vectors, settings)

    def predict(new: Floats) -> Floats:
        with torch.inference_mode():
            mapped: Floats = layer(torch.from_numpy(scaler.transform(new))).numpy()
        return mapped

    return predict


def _train(
    layer: torch.nn.Linear, responses: torch.Tensor, vectors: Floats, settings: ContrastiveSettings
) -> None:
    import torch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(settings.seed)
    image = torch.from_numpy(np.unique(vectors, axis=0, return_inverse=True)[1].reshape(-1))
    target = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float64))
    log_scale = torch.nn.Parameter(torch.tensor(1 / settings.temperature).double().log())
    optimizer = torch.optim.AdamW(
        [*layer.parameters(), log_scale],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    for _ in range(settings.n_steps):
        batch = torch.randperm(len(image), generator=generator)[: settings.batch_size]
        optimizer.zero_grad()
        mapped = torch.nn.functional.normalize(layer(responses[batch]), dim=1)
        wanted = torch.nn.functional.normalize(target[batch], dim=1)
        logits = log_scale.exp() * mapped @ wanted.T  # (batch, batch)
        torch.autograd.backward(_contrast(logits, image[batch]))
        optimizer.step()


def _contrast(logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of both directions; right answers are all rows of the same image."""
    import torch  # noqa: PLC0415

    is_same = (image[:, None] == image[None, :]).to(logits.dtype)
    share = is_same / is_same.sum(dim=1, keepdim=True)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits, share) + entropy(logits.T, share)) / 2
