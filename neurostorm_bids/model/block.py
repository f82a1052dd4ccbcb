"""The block that every stage is made of, in the encoder and in the decoder."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurostorm_bids.kernels.block_weights import BlockWeights
from neurostorm_bids.model.mamba import MambaMixer
from neurostorm_bids.model.operations import (
    FAST,
    REFERENCE,
    Operations,
    choose_operations,
)
from neurostorm_bids.model.windows import (
    cut_windows,
    fit_window,
    index_windows,
    join_windows,
)

if TYPE_CHECKING:
    from neurostorm_bids.model.config import ModelConfig, Size4
    from neurostorm_bids.model.operations import BlockUpdate

CHUNK_VALUES = 2**19
"""Values of the Mamba layer's inner channels that a block works on at once on a CPU."""


class Block(nn.Module):
    """A Mamba layer over each window, then a perceptron over each token, each added to its input.

    Parameters
    ----------
    config : the model's sizes; only those of the Mamba layer are read.
    dim : channels of a token.
    window : sides along X, Y, Z, T, in patches.
    shifted : whether windows move by half a window.
    drop_path_rate : in training, the share of clips for which an update is left out.
    prompt_len : learned tokens in front of each window.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dim: int,
        window: Size4,
        shifted: bool,
        drop_path_rate: float = 0.0,
        prompt_len: int = 0,
    ) -> None:
        super().__init__()
        self.window, self.shifted, self.drop_path_rate = window, shifted, drop_path_rate
        self.norm1 = nn.LayerNorm(dim)
        self.mamba = MambaMixer(
            dim, d_state=config.d_state, d_conv=config.d_conv, expand=config.expand
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.prompt = nn.Parameter(torch.empty(1, prompt_len, dim)) if prompt_len else None
        if self.prompt is not None:
            nn.init.trunc_normal_(self.prompt, std=0.02)
        self._chunk_tokens = max(1, CHUNK_VALUES // (config.expand * dim))

    def forward(self, x: Tensor, *, ops: Operations = FAST, may_overwrite: bool = False) -> Tensor:
        """Update tokens (B, X, Y, Z, T, C), in their own memory where it `may_overwrite` them.

        At once in C or Triton, where that is there and computes as is asked here. Else whole
        tensors for the reference, for gradients and on a GPU, and on a CPU windows, or chunks of
        them, that stay in its cache. The result is the same.
        """
        ops = choose_operations(ops, x, n_states=self.mamba.d_state)
        window, steps = fit_window(x.shape[1:5], self.window, shifted=self.shifted)
        if ops.update is not None and ops.fits(x, *self.parameters()) and not self._is_hooked():
            update = functools.partial(ops.update, may_overwrite=may_overwrite)
            return self._update_at_once(x, window, steps, update=update)
        if ops is REFERENCE or x.device.type != "cpu" or self.training or self._records(x):
            return self._update(x, window, steps, ops=ops)
        return self._update_in_chunks(x, window, steps, ops=ops)

    def _update_at_once(
        self, x: Tensor, window: Size4, steps: Size4, *, update: BlockUpdate
    ) -> Tensor:
        index = index_windows(x.shape[:5], window, steps, device=x.device)
        shares = None
        if self._drops():
            both = torch.stack([self._draw_shares(x), self._draw_shares(x)], dim=1)
            shares = both.repeat_interleave(len(index) // len(x), dim=0)
        tokens, weights = x.reshape(-1, x.shape[-1]), self._gather_weights()
        updated = update(tokens, index, weights, epsilon=self.norm1.eps, shares=shares)
        return updated.view(x.shape)

    def _is_hooked(self) -> bool:
        """Return whether, in training, somebody changes what the layers within take or give."""
        within = (part for part in self.modules() if part is not self)
        hooks = (hook for part in within for hook in (part._forward_hooks, part._forward_pre_hooks))  # noqa: SLF001
        return self.training and any(hooks)

    def _records(self, x: Tensor) -> bool:
        """Return whether autograd follows this block."""
        is_followed = x.requires_grad or any(part.requires_grad for part in self.parameters())
        return torch.is_grad_enabled() and is_followed

    def _gather_weights(self) -> BlockWeights:
        mamba, mlp = self.mamba, self.mlp
        return BlockWeights(
            *(self.norm1.weight, self.norm1.bias, self.norm2.weight, self.norm2.bias),
            in_proj=mamba.in_proj.weight,
            conv=mamba.conv1d.weight,
            conv_bias=cast("Tensor", mamba.conv1d.bias),
            x_proj=mamba.x_proj.weight,
            step_proj=mamba.dt_proj.weight,
            step_bias=mamba.dt_proj.bias,
            rates=-torch.exp(mamba.A_log),
            skip=mamba.D,
            out_proj=mamba.out_proj.weight,
            linear1=mlp.linear1.weight,
            linear1_bias=mlp.linear1.bias,
            linear2=mlp.linear2.weight,
            linear2_bias=mlp.linear2.bias,
            prompts=None if self.prompt is None else self.prompt[0],
        )

    def _update(self, x: Tensor, window: Size4, steps: Size4, *, ops: Operations) -> Tensor:
        windows = cut_windows(self.norm1(x), window, steps)
        mixed = join_windows(self._mix(windows, ops), window, steps, grid=x.shape[1:5])
        x = x + self._drop_path(mixed)
        return x + self._drop_path(self.mlp(self.norm2(x), ops=ops))

    def _update_in_chunks(
        self, x: Tensor, window: Size4, steps: Size4, *, ops: Operations
    ) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        updated = torch.empty_like(tokens)
        index = index_windows(x.shape[:5], window, steps, device=x.device)  # (n_windows, N)
        has_padding = index.numel() > len(tokens)
        n_chunks = min(len(index), -(-index.numel() // self._chunk_tokens))
        for part in index.tensor_split(n_chunks):
            rows = part.t().flatten()  # (N * b,), tokens first
            is_padding = rows < 0
            chunk = tokens.index_select(0, rows.clamp(min=0))
            normed = self.norm1(chunk)
            if has_padding:
                normed[is_padding] = 0
            windows = normed.view(index.shape[1], -1, x.shape[-1]).transpose(0, 1)
            mixed = self._mix(windows, ops).transpose(0, 1)
            chunk += mixed.reshape(chunk.shape)
            chunk += self.mlp(self.norm2(chunk), ops=ops)
            if has_padding:
                rows, chunk = rows[~is_padding], chunk[~is_padding]
            updated.index_copy_(0, rows, chunk)
        return updated.view(x.shape)

    def _mix(self, windows: Tensor, ops: Operations) -> Tensor:
        """Run the Mamba layer over windows (b, N, C), with the prompts in front of each."""
        if self.prompt is None:
            mixed: Tensor = self.mamba(windows, ops=ops)
            return mixed
        prompts = self.prompt.to(windows.dtype).expand(len(windows), -1, -1)
        mixed = self.mamba(torch.cat([prompts, windows], dim=1), ops=ops)
        return mixed[:, self.prompt.shape[1] :]

    def _drop_path(self, update: Tensor) -> Tensor:
        """Leave the update of a random share of the clips out, and scale that of the others."""
        if not self._drops():
            return update
        return update * self._draw_shares(update).to(update.dtype).view(-1, 1, 1, 1, 1, 1)

    def _drops(self) -> bool:
        return self.training and self.drop_path_rate > 0

    def _draw_shares(self, x: Tensor) -> Tensor:
        """Draw what each clip's update is multiplied by (B,): 0, or else a number above 1."""
        keep = 1 - self.drop_path_rate
        return torch.empty(len(x), device=x.device).bernoulli_(keep) / keep


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between them."""

    def __init__(self, dim: int, *, ratio: int = 4) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, ratio * dim)
        self.linear2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor, *, ops: Operations = FAST) -> Tensor:
        """Map tokens (..., dim) -> (..., dim)."""
        hidden = functional.gelu(ops.linear(x, self.linear1.weight, self.linear1.bias))
        return ops.linear(hidden, self.linear2.weight, self.linear2.bias)
