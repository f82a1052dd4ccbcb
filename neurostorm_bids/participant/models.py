"""The models of a call: loaded once per process, with the scales that the user gave."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.predict import choose_device
from neurostorm_bids.pretrained import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.options import ParticipantOptions, Precision, TargetScale
    from neurostorm_bids.pretrained import Model

logger = logging.getLogger(__name__)


def load_models(options: ParticipantOptions) -> tuple[Model, ...]:
    """Load the models onto the device, once per process and call; see `kept.forget`."""
    return _load(
        options.models,
        options.target_scales,
        device_name=options.device,
        precision=options.precision,
        n_threads=options.threads_per_run,
    )


def forget_models() -> None:
    """Give up the models that were loaded."""
    _load.cache_clear()


@lru_cache(maxsize=1)
def _load(
    names: tuple[str, ...],
    scales: tuple[TargetScale, ...],
    *,
    device_name: str,
    precision: Precision,
    n_threads: int,
) -> tuple[Model, ...]:
    device = choose_device(device_name)
    torch.set_num_threads(n_threads)
    models = tuple(load_model(name) for name in names)
    _scale_targets(models, {scale.name: scale for scale in scales})
    for model in models:
        model.precision = precision
        model.backbone.to(device)
        if model.head is not None:
            model.head.to(device)
    return models


def _scale_targets(models: Sequence[Model], scales: Mapping[str, TargetScale]) -> None:
    """Give regression targets the mean and SD from the command line; tell which have none."""
    targets = {
        m.target.name: m.target for m in models if m.target and m.target.kind == "regression"
    }
    if unknown := sorted(scales.keys() - targets.keys()):
        raise UsageError(
            f"--target-scale names {', '.join(unknown)}, a value that no model given predicts. "
            f"The models predict these values: {', '.join(sorted(targets)) or 'none'}."
        )
    for model in models:
        if model.target is None or model.target.kind != "regression":
            continue
        if scale := scales.get(model.target.name):
            scaled = replace(
                model.target, mean=scale.mean, sd=scale.sd, unit=scale.unit or model.target.unit
            )
            if model.calibration is not None and scaled != model.target:
                model.calibration = model.calibration.keep_novelty()
                logger.warning(
                    "%s is not calibrated for the scale that --target-scale gives: no intervals",
                    model.provenance.name,
                )
            model.target = scaled
        elif model.target.mean is None:
            logger.warning(
                "%s does not hold the mean and SD of %s: its predictions are z-scores. Give them "
                "with --target-scale %s=MEAN,SD,UNIT",
                model.provenance.name,
                model.target.name,
                model.target.name,
            )
