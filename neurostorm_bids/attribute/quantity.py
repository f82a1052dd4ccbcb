"""The one number of a prediction that is attributed to regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.heads import restore_unit
from neurostorm_bids.predict import run_network

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.pretrained import Model


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number per clip, read off a head's outputs.

    Attributes
    ----------
    target : what the head predicts.
    label : of a classification, the class whose logit it is; None for a value.
    description : what it is, in words.
    unit : its unit.
    """

    target: TargetSpec
    label: str | None
    description: str
    unit: str

    def measure(self, model: Model, clips: Tensor) -> Tensor:
        """Return the number of each clip (B, C, X, Y, Z, T), shape (B,), by the one way there is.

        Raises
        ------
        UsageError
            If the model predicts nothing.
        """
        _, outputs = run_network(model, clips)
        if outputs is None:
            raise UsageError(
                f"The model {model.provenance.name} has no head: it predicts nothing that could be "
                "attributed. Give a model that was fine-tuned."
            )
        return self.read(outputs)

    def read(self, outputs: Tensor) -> Tensor:
        """Read the number of each clip, shape (B,), off a head's outputs (B, n_outputs)."""
        if self.label is None:
            return restore_unit(outputs, self.target)[:, 0]
        place = self.target.classes.index(self.label)
        if len(self.target.classes) > 2:  # noqa: PLR2004
            return outputs[:, place]
        return outputs[:, 0] if place == 1 else -outputs[:, 0]  # one logit, for the second class


def choose_quantity(target: TargetSpec, output: NDArray[np.float32]) -> Quantity:
    """Choose what is attributed: the logit of the predicted class, or the value in its own unit.

    Parameters
    ----------
    target : what the head predicts.
    output : shape (M,), the run's probabilities or value.
    """
    if target.kind == "regression":
        return Quantity(
            target=target,
            label=None,
            description=f"predicted {target.name}",
            unit="z-score" if target.mean is None else target.unit or "arbitrary",
        )
    label = target.classes[int(np.argmax(output))]
    kind = "log-odds" if len(target.classes) == 2 else "logit, before the softmax,"  # noqa: PLR2004
    return Quantity(
        target=target,
        label=label,
        description=f"{kind} of {target.name} = {label}, the class predicted for the run",
        unit="logit",
    )
