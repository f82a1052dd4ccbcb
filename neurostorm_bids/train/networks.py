"""What contrastive objectives train: an encoder with an embedding head, and a decoder beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.heads import EmbeddingHead, pool_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from neurostorm_bids.model.autoencoder import Reconstruction
    from neurostorm_bids.model.backbone import Backbone

    Gather = Callable[[Tensor], Tensor]

N_EMBEDDING = 128


class ContrastiveEncoder(nn.Module):
    """An encoder whose clips become unit vectors, together with those of all processes.

    Batch norm sees the clips of all processes: what it computes does not depend on how a batch is
    divided among them.

    Parameters
    ----------
    backbone : the encoder.
    gather : joins rows of all processes, with gradients.
    """

    def __init__(self, backbone: Backbone, *, gather: Gather) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = EmbeddingHead(backbone.config.n_features, n_outputs=N_EMBEDDING)
        self._gather = gather

    def forward(self, clips: Tensor) -> Tensor:
        """Embed clips (B, C, X, Y, Z, T) -> (B of all processes, 128)."""
        return embed(clips, backbone=self.backbone, head=self.head, gather=self._gather)


class JointNetwork(nn.Module):
    """A masked autoencoder whose encoder has an embedding head beside the decoder.

    Parameters
    ----------
    autoencoder : the masked autoencoder.
    gather : as for `ContrastiveEncoder`.
    """

    def __init__(self, autoencoder: MaskedAutoencoder, *, gather: Gather) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.head = EmbeddingHead(autoencoder.config.n_features, n_outputs=N_EMBEDDING)
        self._gather = gather

    def forward(self, clips: Tensor, mask: Tensor | None = None) -> Reconstruction | Tensor:
        """Reconstruct masked clips; without a mask, embed them as `ContrastiveEncoder` does."""
        if mask is None:
            backbone = self.autoencoder.backbone
            return embed(clips, backbone=backbone, head=self.head, gather=self._gather)
        reconstruction: Reconstruction = self.autoencoder(clips, mask)
        return reconstruction


def find_parts(network: nn.Module) -> tuple[Backbone, MaskedAutoencoder | None]:
    """Return the encoder of a network of this module, and the autoencoder if there is one."""
    if isinstance(network, ContrastiveEncoder):
        return network.backbone, None
    autoencoder = network.autoencoder if isinstance(network, JointNetwork) else network
    if not isinstance(autoencoder, MaskedAutoencoder):
        raise TypeError(f"expected a network to pretrain, found {type(network).__name__}")
    return autoencoder.backbone, autoencoder


def embed(clips: Tensor, *, backbone: Backbone, head: EmbeddingHead, gather: Gather) -> Tensor:
    """Encode clips, gather their mean tokens from all processes, and embed these."""
    means = gather(pool_tokens(backbone(clips)))  # (B of all processes, C)
    embeddings: Tensor = head(means[..., None, None, None, None])
    return embeddings
