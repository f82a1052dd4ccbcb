"""Learning a target from clips: the network, the loss, and the labels of clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurostorm_bids.inputs.events import find_events, label_clips, read_events
from neurostorm_bids.train.step import Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neurostorm_bids.inputs.events import Event
    from neurostorm_bids.model.backbone import Backbone
    from neurostorm_bids.model.config import TargetSpec
    from neurostorm_bids.train.clips import Batch
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.sampling import Sample

    Label = Callable[[Sample], float]


class HeadedBackbone(nn.Module):
    """A backbone with a head: clips (B, C, X, Y, Z, T) -> logits or z-scores (B, n_outputs)."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, clips: Tensor) -> Tensor:
        """Return (B, n_outputs) for clips (B, C, X, Y, Z, T)."""
        outputs: Tensor = self.head(self.backbone(clips))
        return outputs


class Supervised:
    """Cross-entropy of classes, or squared error of z-scores.

    Clips without a label count for nothing.

    Parameters
    ----------
    label : gives the position of a sample's class, or its number in the unit; NaN for none.
    target : what is predicted, with the mean and deviation of training for numbers.
    class_weights : (n_classes,); None weighs classes alike.
    """

    min_samples = 1

    def __init__(
        self,
        label: Label,
        target: TargetSpec,
        *,
        class_weights: NDArray[np.float64] | None = None,
    ) -> None:
        self._label, self._target = label, target
        self._class_weights = class_weights

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Compute the loss of the first clip of each sample."""
        clips = batch.clips[0]
        labels = np.array([self._label(sample) for sample in batch.samples])
        weights = np.isfinite(labels).astype(np.float64)
        labels = np.nan_to_num(labels)
        if self._class_weights is not None:
            weights *= self._class_weights[labels.astype(np.int64)]
        outputs = model(clips).float()
        losses = self._measure(outputs, torch.from_numpy(labels).to(outputs.device))
        weighted = losses * torch.from_numpy(weights).to(losses)
        return Loss(weighted.mean(), {})

    def _measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample, (B,)."""
        if self._target.kind == "regression":
            mean, sd = self._target.mean or 0.0, self._target.sd or 1.0
            return (outputs[:, 0] - ((labels - mean) / sd).to(outputs)).square()
        if outputs.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(
                outputs[:, 0], labels.to(outputs), reduction="none"
            )
        return functional.cross_entropy(outputs, labels.long(), reduction="none")


def weigh_classes(truth: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    """Return weights (n_classes,) by which every class counts alike, and an example 1 on average.

    A class that does not occur has weight 0.
    """
    counts = np.bincount(truth.astype(np.int64), minlength=n_classes)
    n_occurring = int((counts > 0).sum())
    weights: NDArray[np.float64] = np.where(
        counts > 0, len(truth) / (n_occurring * np.maximum(counts, 1)), 0.0
    )
    return weights


def label_samples(
    examples: Examples, *, clip_length: int, roots: Sequence[Path], delay_s: float
) -> Label:
    """Return what tells the label of any clip of the runs, wherever it begins."""
    if not examples.is_by_clip:
        values = {
            (scan.run.dataset.name, scan.run.label): value
            for scan, value in zip(examples.scans, examples.target.encode().tolist(), strict=True)
        }
        return lambda sample: values[sample.run.dataset, sample.run.label]
    codes = {name: float(code) for code, name in enumerate(examples.classes)}
    events: dict[tuple[str, str], list[Event]] = {}
    for scan in examples.scans:
        path = find_events(scan.run.entities, roots=roots)
        found = [] if path is None else read_events(path).events
        events[scan.run.dataset.name, scan.run.label] = found
    step_s = examples.scans[0].stored.spec.repetition_time_s
    begin_s = {
        (scan.run.dataset.name, scan.run.label): scan.stored.start_s for scan in examples.scans
    }

    def label(sample: Sample) -> float:
        own = events[sample.run.dataset, sample.run.label]
        onset_s = [begin_s[sample.run.dataset, sample.run.label] + sample.starts[0] * step_s]
        (name,) = label_clips(own, onset_s, clip_length * step_s, delay_s=delay_s)
        return codes.get(name or "", np.nan)

    return label
