"""What stands on the backbone, and how its outputs are read.

Every head takes the backbone's output (B, C, X, Y, Z, T). Parameters carry the published names
without ``output_head.head.`` (embedding: without ``output_head.``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurostorm_bids.errors import DataError

if TYPE_CHECKING:
    from neurostorm_bids.model.config import HeadConfig, TargetSpec


def build_head(config: HeadConfig, n_features: int) -> nn.Module:
    """Return the head of this configuration for a backbone with `n_features` channels.

    Raises
    ------
    DataError
        When the attention heads of v3 do not divide the channels.
    """
    if config.version == "v2":
        return WidenedHead(n_features, n_outputs=config.n_outputs)
    if config.version == "v3":
        return TransformerHead(
            n_features,
            n_outputs=config.n_outputs,
            n_tokens=config.n_tokens,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
        )
    if config.version == "embedding":
        return EmbeddingHead(n_features, n_outputs=config.n_outputs)
    return LinearHead(n_features, n_outputs=config.n_outputs)


def pool_tokens(x: Tensor) -> Tensor:
    """Average a backbone's output over its tokens: (B, C, X, Y, Z, T) -> (B, C)."""
    return x.flatten(2).mean(dim=2)


class LinearHead(nn.Module):
    """v1 and regression: one linear map of the mean token."""

    def __init__(self, n_features: int, *, n_outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(n_features, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_outputs) for features (B, C, X, Y, Z, T)."""
        out: Tensor = self.head(pool_tokens(x))
        return out


class WidenedHead(nn.Module):
    """v2: two linear maps of the mean token; published without an activation between them."""

    def __init__(self, n_features: int, *, n_outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, 4 * n_features)
        self.head = nn.Linear(4 * n_features, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_outputs) for features (B, C, X, Y, Z, T)."""
        out: Tensor = self.head(self.hidden(pool_tokens(x)))
        return out


class TransformerHead(nn.Module):
    """v3: a transformer over all tokens and a learned one, which a linear map then reads."""

    def __init__(
        self, n_features: int, *, n_outputs: int, n_tokens: int, n_layers: int, n_heads: int
    ) -> None:
        super().__init__()
        if n_features % n_heads:
            raise DataError(
                f"The attention heads of a v3 head must divide its channels: expected a divisor of "
                f"{n_features}, found {n_heads}. Check n_heads in the head's configuration."
            )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, n_features))
        self.pos_embed = nn.Parameter(torch.zeros(1, n_tokens + 1, n_features))
        layer = nn.TransformerEncoderLayer(
            n_features, n_heads, dim_feedforward=4 * n_features, batch_first=True
        )
        self.transformer_encoder = nn.TransformerEncoder(layer, n_layers)
        self.norm = nn.LayerNorm(n_features)
        self.head = nn.Linear(n_features, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_outputs) for features (B, C, X, Y, Z, T)."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        # A published head has more positions than tokens, of which it uses the first.
        tokens = self.transformer_encoder(tokens + self.pos_embed[:, : tokens.shape[1]])
        out: Tensor = self.head(self.norm(tokens[:, 0]))
        return out


class EmbeddingHead(nn.Module):
    """A linear map of the mean token, batch norm, and length one: for contrastive objectives."""

    def __init__(self, n_features: int, *, n_outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(n_features, n_outputs, bias=False)
        self.bn1 = nn.BatchNorm1d(n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_outputs), each row of length one, for features (B, C, X, Y, Z, T)."""
        return functional.normalize(self.bn1(self.fc1(pool_tokens(x))), dim=1)


def read_outputs(outputs: Tensor, target: TargetSpec) -> Tensor:
    """Turn a head's outputs into probabilities, or into values in the target's own unit.

    Parameters
    ----------
    outputs : Tensor, shape (n, n_outputs); logits, or one z-score.
    target : what the head predicts.

    Returns
    -------
    Tensor, shape (n, n_classes) or (n, 1)

    Raises
    ------
    DataError
        When the head has another number of outputs than the target needs.
    """
    if target.kind == "classification":
        return find_probabilities(outputs, len(target.classes))
    return restore_unit(outputs, target)


def find_probabilities(logits: Tensor, n_classes: int) -> Tensor:
    """Return probabilities (n, n_classes); for two classes one logit speaks for the second.

    Raises
    ------
    DataError
        When the number of logits does not fit the number of classes.
    """
    expected = 1 if n_classes == 2 else n_classes  # noqa: PLR2004
    _check_outputs(logits, expected, what=f"{n_classes} classes")
    if expected == 1:
        return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
    return torch.softmax(logits, dim=1)


def restore_unit(z: Tensor, target: TargetSpec) -> Tensor:
    """Return z-scores (n, 1) in the target's unit; unchanged where its mean is not known.

    Raises
    ------
    DataError
        When there is more than one value per clip.
    """
    _check_outputs(z, 1, what=f"the regression target {target.name!r}")
    if target.mean is None or target.sd is None:
        return z
    return z * target.sd + target.mean


def _check_outputs(outputs: Tensor, expected: int, *, what: str) -> None:
    if outputs.ndim != 2 or outputs.shape[1] != expected:  # noqa: PLR2004
        raise DataError(
            f"For {what} a head returns (n, {expected}) values, found {tuple(outputs.shape)}. "
            "Check that the target belongs to this model."
        )
