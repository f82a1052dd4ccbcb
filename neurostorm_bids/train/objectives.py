"""What a model is pretrained for: masked reconstruction, contrast between clips, or both.

Masks and augmentations of a sample come from its own generators, so they are the same in whichever
batch and process it is worked on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.augment import augment_clips
from neurostorm_bids.model.contrastive import instance_contrastive, local_local_contrastive
from neurostorm_bids.model.masking import draw_mask, number_units
from neurostorm_bids.train.sampling import Purpose
from neurostorm_bids.train.step import Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from neurostorm_bids.model.augment import AugmentConfig
    from neurostorm_bids.model.autoencoder import Reconstruction
    from neurostorm_bids.model.config import ModelConfig
    from neurostorm_bids.model.masking import MaskScheme
    from neurostorm_bids.train.clips import Batch
    from neurostorm_bids.train.sampling import Sample
    from neurostorm_bids.train.step import Objective

    Gather = Callable[[Tensor], Tensor]

Contrast = Literal["instance", "local"]


class MaskedReconstruction:
    """Reconstruct hidden tokens; the model takes clips and a mask and gives a `Reconstruction`.

    The loss is the mean over clips of each clip's mean squared error over its masked patches. Where
    all clips have as many masked patches, as in every scheme but those of an atlas, that is the
    mean over all masked patches of a batch.

    Parameters
    ----------
    config : sizes of the model.
    scheme, ratio : what is masked, and how much of it.
    regions : of the atlas schemes, see `number_units`.
    augment : how clips are changed in training; None for not at all.
    voxel_size_mm : for `augment`.
    """

    min_samples = 1

    def __init__(
        self,
        config: ModelConfig,
        *,
        scheme: MaskScheme,
        ratio: float,
        regions: Tensor | None = None,
        augment: AugmentConfig | None = None,
        voxel_size_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        self._ratio = ratio
        self._units = number_units(
            scheme, config.stage_grid(0), window=config.first_window_size, regions=regions
        )
        self._augment, self._voxel_size_mm = augment, voxel_size_mm

    def draw_masks(self, samples: Sequence[Sample]) -> Tensor:
        """Draw the masks of samples: bool, shape (B, X', Y', Z', T')."""
        masks = [
            draw_mask(
                self._units,
                ratio=self._ratio,
                n_clips=1,
                generator=sample.make_generator(Purpose.MASK),
            )
            for sample in samples
        ]
        return torch.cat(masks)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Compute the loss of the first clip of each sample."""
        clips = batch.clips[0]
        if model.training and self._augment is not None:
            clips = augment_samples(
                clips,
                batch.samples,
                config=self._augment,
                voxel_size_mm=self._voxel_size_mm,
                view=0,
            )
        mask = self.draw_masks(batch.samples).to(clips.device)
        reconstruction: Reconstruction = model(clips, mask)
        return Loss(average_masked(reconstruction.patch_error, mask), {})


class Contrasting:
    """Tell participants or clips apart; the model takes clips and gives embeddings.

    Parameters
    ----------
    contrasts : ``instance``: two clips of a participant against those of others; ``local``: two
        augmentations of a clip against the other clips of its run.
    augment : how clips are changed, in evaluation too.
    gather : joins rows of all processes, as the model does with its embeddings.
    voxel_size_mm : for `augment`.
    """

    min_samples = 2

    def __init__(
        self,
        contrasts: Sequence[Contrast] = ("instance", "local"),
        *,
        augment: AugmentConfig,
        gather: Gather,
        voxel_size_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        if not contrasts or not {"instance", "local"}.issuperset(contrasts):
            raise UsageError(
                f"Contrasts are instance, local or both; found {', '.join(contrasts) or 'none'}."
            )
        self._contrasts, self._augment, self._gather = tuple(contrasts), augment, gather
        self._voxel_size_mm = voxel_size_mm

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Compute the mean of the contrasts over samples of two clips each, of all processes."""
        first = [self._embed(model, batch, clip, view=clip) for clip in (0, 1)]
        parts: dict[str, Tensor] = {}
        if "instance" in self._contrasts:
            people = self._number(batch, [(sample.run.participant,) for sample in batch.samples])
            parts["instance"] = (
                instance_contrastive(*first, participants=people)
                if bool((people != people[0]).any())
                else first[0].sum() * 0  # by chance there is nobody to tell apart in this batch
            )
        if "local" in self._contrasts:
            second = [self._embed(model, batch, clip, view=2 + clip) for clip in (0, 1)]
            runs = self._number(
                batch,
                [(s.run.dataset, s.run.participant, s.run.label) for s in batch.samples],
            )
            parts["local"] = local_local_contrastive(
                torch.cat(first), torch.cat(second), runs=runs.repeat(2)
            )
        return Loss(torch.stack(list(parts.values())).mean(), parts)

    def _embed(self, model: nn.Module, batch: Batch, clip: int, *, view: int) -> Tensor:
        clips = augment_samples(
            batch.clips[clip],
            batch.samples,
            config=self._augment,
            voxel_size_mm=self._voxel_size_mm,
            view=view,
        )
        embeddings: Tensor = model(clips)
        return embeddings

    def _number(self, batch: Batch, names: Sequence[tuple[str, ...]]) -> Tensor:
        """Give names numbers that are the same in all processes."""
        digests = [hashlib.sha256(repr(name).encode()).digest() for name in names]
        numbers = [int.from_bytes(digest[:7]) for digest in digests]
        return self._gather(torch.tensor(numbers, device=batch.clips[0].device))


class WeightedSum:
    """Several objectives of one model, each times its weight.

    Parameters
    ----------
    objectives : weight and objective, by the name that its losses are logged under.
    """

    def __init__(self, objectives: Mapping[str, tuple[float, Objective]]) -> None:
        self._objectives = dict(objectives)
        self.min_samples = max(one.min_samples for _, one in self._objectives.values())

    def find(self, name: str) -> Objective:
        """Return one of the objectives by its name."""
        return self._objectives[name][1]

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Compute the sum; its parts are those of the objectives, without their weights."""
        terms: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for name, (weight, objective) in self._objectives.items():
            value, own_parts = objective(model, batch)
            terms.append(weight * value)
            parts |= {name: value} | {f"{name}_{part}": own for part, own in own_parts.items()}
        return Loss(torch.stack(terms).sum(), parts)


def augment_samples(
    clips: Tensor,
    samples: Sequence[Sample],
    *,
    config: AugmentConfig,
    voxel_size_mm: tuple[float, float, float],
    view: int,
) -> Tensor:
    """Change each clip (B, 1, X, Y, Z, T) by its sample's own random numbers, other for each view.

    They are drawn on the CPU, so that they are the same on every device.
    """
    changed = []
    for clip, sample in zip(clips.unsqueeze(1), samples, strict=True):
        generator = sample.make_generator(Purpose.AUGMENTATION)
        generator.manual_seed(generator.initial_seed() + view)
        changed.append(
            augment_clips(clip, config=config, generator=generator, voxel_size_mm=voxel_size_mm)
        )
    return torch.cat(changed)


def average_masked(patch_error: Tensor, mask: Tensor) -> Tensor:
    """Average (B, X', Y', Z', T') over the masked patches of each clip, then over clips."""
    sums = (patch_error * mask).flatten(1).sum(1)
    return (sums / mask.flatten(1).sum(1)).mean()
