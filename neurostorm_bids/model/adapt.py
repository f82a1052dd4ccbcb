"""What trains when a pretrained backbone is adapted: nothing, prompts, low-rank updates, or all.

Adapting returns a new backbone and leaves the pretrained one as it is, so that every fold and every
seed starts from the same weights.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.block import Block
from neurostorm_bids.model.config import HeadConfig
from neurostorm_bids.model.fields import check_choice, check_int, check_real
from neurostorm_bids.model.heads import LinearHead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from neurostorm_bids.model.config import HeadVersion, ModelConfig, TargetSpec

logger = logging.getLogger(__name__)

Method = Literal["linear", "prompt", "lora", "full"]

LORA_LAYERS = ("mamba.in_proj", "mamba.x_proj", "mamba.out_proj", "mlp.linear1", "mlp.linear2")
"""The layers of a block that get a low-rank update.

Left out is the projection of the step size: it has few columns, a rank by itself.
"""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How a pretrained backbone is adapted to a target; beside it the head always trains.

    Attributes
    ----------
    method : linear trains no weight of the backbone; prompt trains tokens in front of every window
        (TPT); lora trains low-rank updates of the Mamba layers' projections and of the perceptrons;
        full trains everything.
    prompt_len : of prompt, tokens per window.
    rank : of lora, the rank of an update; a matrix with a shorter side gets that as its rank.
    alpha : of lora; an update counts alpha / rank.
    """

    method: Method = "linear"
    prompt_len: int = 50
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        check_choice(self, "method", get_args(Method))
        check_int(self, "prompt_len", low=1, high=4096)
        check_int(self, "rank", low=1, high=4096)
        check_real(self, "alpha", low=0.0, high=math.inf)


class ParameterCount(NamedTuple):
    """How many parameters train, and how many there are."""

    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / max(1, self.total)
        return f"{self.trainable:,} of {self.total:,} parameters ({share:.2f} %)"


class LowRank(nn.Module):
    """Adds scale * up @ down to a weight; nothing at first, for `up` starts at zero.

    Parameters
    ----------
    weight : Tensor, shape (n_out, n_in), the one to be updated.
    adaptation : its rank and alpha.
    generator : of the first values of `down`.
    """

    def __init__(
        self, weight: Tensor, *, adaptation: Adaptation, generator: torch.Generator
    ) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        rank = min(adaptation.rank, n_out, n_in)
        self.scale = adaptation.alpha / adaptation.rank
        bound = n_in**-0.5
        down = torch.empty(rank, n_in).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight))  # (rank, n_in)
        self.up = nn.Parameter(weight.new_zeros(n_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight, in full precision even where products are not."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.up @ self.down)


def adapt(backbone: Backbone, adaptation: Adaptation, *, generator: torch.Generator) -> Backbone:
    """Return a copy of a backbone in which exactly what the method trains requires gradients.

    At first the copy gives what the backbone gives, except with new prompts. Its `config` tells
    their number. Prompts that the backbone has already train on with ``prompt`` and ``full``, and
    stand still with the other methods; low-rank updates it has already are merged first.

    Parameters
    ----------
    backbone : pretrained; not changed.
    adaptation : what trains.
    generator : of new parameters' first values; on the CPU.

    Raises
    ------
    UsageError
        If the backbone has another number of prompts than asked for.
    """
    adapted = merge_lora(backbone).requires_grad_(adaptation.method == "full")
    if adaptation.method == "prompt":
        _train_prompts(adapted, adaptation.prompt_len, generator=generator)
    if adaptation.method == "lora":
        for layer in _lora_layers(adapted):
            update = LowRank(layer.weight, adaptation=adaptation, generator=generator)
            parametrize.register_parametrization(layer, "weight", update)
    logger.info("Adapting by %s: %s of the backbone train", adaptation.method, count(adapted))
    return adapted


def merge_lora(backbone: Backbone) -> Backbone:
    """Return a copy with every low-rank update added into its weight, under the published keys.

    The copy gives what the backbone gives, and all of its parameters require gradients, as in a
    model just loaded. Without low-rank updates it is a plain copy.
    """
    with torch.device("meta"):
        merged = Backbone(backbone.config)
    weights = {key: _read_parameter(backbone, key).clone() for key in merged.state_dict()}
    merged.load_state_dict(weights, strict=True, assign=True)
    return merged.train(backbone.training)


def list_trainable(module: nn.Module) -> list[str]:
    """Return the names of the parameters that require gradients."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def count(module: nn.Module) -> ParameterCount:
    """Count the parameters that train, and all of them."""
    sizes = [(part.numel(), part.requires_grad) for part in module.parameters()]
    return ParameterCount(sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes))


def configure_head(
    config: ModelConfig, target: TargetSpec, *, version: HeadVersion = "v1"
) -> HeadConfig:
    """Return the head, as published, that predicts a target from a backbone of these sizes.

    Parameters
    ----------
    config : of the backbone.
    target : a regression target gets the regression head, whatever the version.
    version : for classes: v1, v2 or v3.

    Raises
    ------
    UsageError
        If the version does not predict classes.
    """
    if target.kind == "regression":
        return HeadConfig(version="regression", n_outputs=1)
    if version not in {"v1", "v2", "v3"}:
        raise UsageError(
            f"Head {version} does not predict classes, but {target.name!r} has "
            f"{len(target.classes)}. Take v1, v2 or v3."
        )
    n_outputs = 1 if target.n_outputs == 2 else target.n_outputs  # noqa: PLR2004 - one logit
    n_tokens = math.prod(config.stage_grid(config.n_stages - 1)) if version == "v3" else 0
    return HeadConfig(version=version, n_outputs=n_outputs, n_tokens=n_tokens)


def make_linear_head(
    coefficients: ArrayLike,
    intercepts: ArrayLike,
    *,
    feature_means: ArrayLike = 0.0,
    feature_sds: ArrayLike = 1.0,
) -> LinearHead:
    """Return the v1 or regression head that does what a fitted linear model does.

    Parameters
    ----------
    coefficients : (n_outputs, n_features), of standardised features; (1, n_features) for the logit
        of the second of two classes, or for a value.
    intercepts : (n_outputs,)
    feature_means, feature_sds : (n_features,), by which features were standardised.
    """
    weight = torch.as_tensor(coefficients, dtype=torch.float64)
    means = torch.as_tensor(feature_means, dtype=torch.float64)
    weight = weight / torch.as_tensor(feature_sds, dtype=torch.float64)
    bias = torch.as_tensor(intercepts, dtype=torch.float64) - (weight * means).sum(dim=1)
    head = LinearHead(weight.shape[1], n_outputs=weight.shape[0])
    with torch.no_grad():
        head.head.weight.copy_(weight)
        head.head.bias.copy_(bias)
    return head.eval()


def _read_parameter(module: nn.Module, key: str) -> Tensor:
    """Return a parameter by its published key, with the update that lies on it."""
    layer, _, name = key.rpartition(".")
    value: Tensor = getattr(module.get_submodule(layer), name)
    return value.detach()


def _blocks(backbone: Backbone) -> list[Block]:
    return [module for module in backbone.modules() if isinstance(module, Block)]


def _lora_layers(backbone: Backbone) -> Iterator[nn.Linear]:
    for block in _blocks(backbone):
        for name in LORA_LAYERS:
            yield cast("nn.Linear", block.get_submodule(name))


def _train_prompts(backbone: Backbone, length: int, *, generator: torch.Generator) -> None:
    """Let the prompts of every block train; make them where there are none."""
    present = backbone.config.prompt_len
    if present not in {0, length}:
        raise UsageError(
            f"The backbone has {present} prompts per window already, but {length} were asked for. "
            f"Ask for {present} to train these on, or start from a backbone without prompts."
        )
    for block in _blocks(backbone):
        if block.prompt is None:
            block.prompt = nn.Parameter(_make_prompts(block.norm1.weight, length, generator))
        block.prompt.requires_grad_()
    backbone.config = replace(backbone.config, prompt_len=length)


def _make_prompts(like: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return small random prompts (1, length, dim) where `like` (dim,) lies."""
    prompts = torch.empty(1, length, len(like))
    return nn.init.trunc_normal_(prompts, std=0.02, generator=generator).to(like)
