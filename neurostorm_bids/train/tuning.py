"""Adapting a backbone by gradients, in every fold and for the model that is kept."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import hash_configuration
from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.store import StoredRun
from neurostorm_bids.inputs.events import HAEMODYNAMIC_DELAY_S
from neurostorm_bids.model.adapt import Adaptation, adapt, configure_head, count, merge_lora
from neurostorm_bids.model.config import TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.predict import predict_series
from neurostorm_bids.train.calibrate import Embedded
from neurostorm_bids.train.clips import ClipDataset
from neurostorm_bids.train.evaluate import FoldOutputs, gather_folds
from neurostorm_bids.train.files import BEST, read_weights
from neurostorm_bids.train.fit import fit
from neurostorm_bids.train.sampling import SampleOrder
from neurostorm_bids.train.supervised import (
    HeadedBackbone,
    Supervised,
    label_samples,
    weigh_classes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from neurostorm_bids.inputs.targets import Target
    from neurostorm_bids.model.adapt import ParameterCount
    from neurostorm_bids.pretrained import Model
    from neurostorm_bids.train.evaluate import OutOfFold
    from neurostorm_bids.train.examples import Examples
    from neurostorm_bids.train.finetune_options import FinetuneOptions
    from neurostorm_bids.train.fit import FitResult
    from neurostorm_bids.train.splits import Fold, Splits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A model that was adapted.

    Attributes
    ----------
    model : ready for use; low-rank updates are merged, prompts kept.
    parameters : how many were trained, of backbone and head together.
    result : what the training came to.
    """

    model: Model
    parameters: ParameterCount
    result: FitResult


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuner:
    """What every training of one call shares.

    Attributes
    ----------
    fabric : the device.
    model : to start from; stays as it is.
    examples : of all participants.
    options : how.
    roots : where events are looked for.
    folder : for checkpoints; one call's trainings lie in a folder of its own below it.
    """

    fabric: Fabric
    model: Model
    examples: Examples
    options: FinetuneOptions
    roots: Sequence[Path]
    folder: Path

    def tune(self, train: Sequence[str], validation: Sequence[str]) -> Tuned:
        """Train on some participants, and keep the weights with which others have least loss."""
        options, examples = self.options, self.examples
        is_train = np.isin(np.asarray(examples.participants, dtype=str), train)
        truth = examples.truth[is_train]
        spec = make_target_spec(examples.target, truth)
        network, config, parameters = self._make_network(spec)
        weights = (
            weigh_classes(truth, len(spec.classes))
            if options.balance_classes and spec.classes
            else None
        )
        length = self.model.clip_length
        delay = HAEMODYNAMIC_DELAY_S if options.event_delay_s is None else options.event_delay_s
        label = label_samples(examples, clip_length=length, roots=self.roots, delay_s=delay)
        settings = self._list_settings(train, validation)
        folder = self.folder / hash_configuration(settings)[:16]
        result = fit(
            self.fabric,
            network,
            Supervised(label, spec, class_weights=weights),
            train=self._make_dataset(train),
            validation=self._make_dataset(validation),
            options=options.train,
            folder=folder,
            settings=settings,
        )
        network.load_state_dict(read_weights(folder / BEST))
        network.eval()
        model = replace(
            self.model,
            config=network.backbone.config,
            head_config=config,
            backbone=merge_lora(network.backbone),
            head=network.head,
            target=spec,
        )
        return Tuned(model=model, parameters=parameters, result=result)

    def evaluate(self, splits: Splits) -> tuple[OutOfFold, list[Tuned]]:
        """Train in every fold, and predict the participants it tests by the only inference path."""
        examples = self.examples
        tuned: list[Tuned] = []

        def predict(_: int, fold: Fold) -> FoldOutputs:
            logger.info("Fold %s: training on %d participants", fold.name, len(fold.train))
            one = self.tune(fold.train, fold.validation)
            tuned.append(one)
            rows = self.predict(one.model, fold.test)
            note = (
                f"the lowest validation loss was after update {one.result.best_step}. "
                f"{one.result.describe_end()}"
            )
            return FoldOutputs(examples.pool(rows), (note,), row_outputs=rows)

        found = gather_folds(
            splits,
            examples.participants,
            predict,
            n_outputs=max(1, len(examples.classes)),
            row_participants=examples.target.participants,
        )
        return found, tuned

    def predict(self, model: Model, participants: Iterable[str]) -> NDArray[np.float64]:
        """Predict all rows of participants: (n_rows, M); NaN for those of others."""
        examples, wanted = self.examples, set(participants)
        n_rows = len(examples.target.keys)
        rows = np.full((n_rows, max(1, len(examples.classes))), np.nan)
        for position in examples.used_scans:
            scan = examples.scans[position]
            if scan.run.participant not in wanted:
                continue
            found = predict_series(model, scan.stored.load())
            rows[examples.owners == position] = (
                found.clip_outputs if examples.is_by_clip else found.output
            )
        return rows

    def embed(self, model: Model, participants: Iterable[str]) -> Embedded:
        """Embed the used runs of participants with an adapted model."""
        wanted, scans = set(participants), self.examples.scans
        chosen = [scans[at] for at in self.examples.used_scans]
        chosen = [scan for scan in chosen if scan.run.participant in wanted]
        encoder = replace(model, head=None, head_config=None, target=None)
        found = [predict_series(encoder, scan.stored.load()).embedding for scan in chosen]
        return Embedded(
            np.stack(found).astype(np.float64), tuple(scan.run.participant for scan in chosen)
        )

    def _make_network(self, spec: TargetSpec) -> tuple[HeadedBackbone, Any, ParameterCount]:
        options = self.options
        given = {"prompt_len": options.prompt_len, "rank": options.lora_rank}
        adaptation = Adaptation(
            method=options.adapt, **{name: value for name, value in given.items() if value}
        )
        generator = torch.Generator().manual_seed(options.train.seed)
        torch.manual_seed(options.train.seed)
        backbone = adapt(self.model.backbone, adaptation, generator=generator)
        config = configure_head(backbone.config, spec, version=options.head or "v1")
        head = build_head(config, backbone.config.n_features)
        network = HeadedBackbone(backbone, head)
        parameters = count(network)
        logger.info("%s of backbone and head train", parameters)
        return network, config, parameters

    def _make_dataset(self, participants: Sequence[str]) -> ClipDataset:
        examples, wanted = self.examples, set(participants)
        runs = [
            examples.scans[position].training_run
            for position in examples.used_scans
            if examples.scans[position].run.participant in wanted
        ]
        if not runs:
            raise DataError("A fold has no run to learn from, or none to decide when to stop.")
        length = self.model.clip_length
        order = SampleOrder(
            runs, clip_length=length, clips_per_sample=1, seed=self.options.train.seed
        )
        return ClipDataset(order, clip_length=length, open_run=StoredRun.open)

    def _list_settings(self, train: Sequence[str], validation: Sequence[str]) -> dict[str, Any]:
        """Return what decides the numbers; trainings that differ in any of it lie apart."""
        options, examples = self.options, self.examples
        values = [*zip(examples.target.keys, map(str, examples.target.values), strict=True)]
        return {
            "version": __version__,
            "model": self.model.provenance.sha256,
            "adapt": [options.adapt, options.prompt_len, options.lora_rank, options.head],
            "target": hashlib.sha256(repr((examples.classes, values)).encode()).hexdigest(),
            "event_delay_s": options.event_delay_s,
            "balance_classes": options.balance_classes,
            "train": list(train),
            "validation": list(validation),
            "runs": [scan.stored.path.name for scan in examples.scans],
            "options": options.train.describe_numbers()
            | {"max_epochs": options.train.max_epochs, "max_steps": options.train.max_steps}
            # By these it is decided which of the weights are kept.
            | {"evaluate_every": options.train.evaluate_every, "patience": options.train.patience},
        }


def make_target_spec(target: Target, truth: NDArray[np.float64]) -> TargetSpec:
    """Describe a target for a model folder, with mean and deviation of the training examples.

    Raises
    ------
    DataError
        If all training examples have the same number.
    """
    if target.kind == "classification":
        return TargetSpec(name=target.name, kind="classification", classes=target.classes)
    mean, sd = float(truth.mean()), float(truth.std(ddof=1)) if len(truth) > 1 else 0.0
    if not sd > 0:
        raise DataError(
            f"Expected training participants of different {target.name}, found {mean:g} in all."
        )
    return TargetSpec(name=target.name, kind="regression", unit=target.unit, mean=mean, sd=sd)
