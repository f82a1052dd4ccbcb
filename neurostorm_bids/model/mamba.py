"""The Mamba layer (arXiv 2312.00752) that mixes the tokens of a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurostorm_bids.model.operations import FAST, Operations


class MambaMixer(nn.Module):
    """A selective state-space layer over sequences; parameters carry the published names.

    Parameters
    ----------
    dim : channels of a token.
    d_state : state values per inner channel.
    d_conv : taps of the causal convolution.
    expand : inner channels per channel.
    """

    def __init__(self, dim: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, self.dt_rank, self.d_state = expand * dim, math.ceil(dim / 16), d_state
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        # Arithmetic without memory would import a second of programs, for values nobody looks at.
        if not self.A_log.is_meta:
            _init_decay(self.A_log)
            _init_step(self.dt_proj)

    def forward(self, x: Tensor, *, ops: Operations = FAST) -> Tensor:
        """Mix the tokens of each sequence, each with those before it.

        Parameters
        ----------
        x : Tensor, shape (b, N, dim); fastest when its memory runs (N, b, dim).
        ops : what computes products and the scan.

        Returns
        -------
        Tensor, shape (b, N, dim), with memory that runs (N, b, dim).
        """
        hidden, gate = ops.linear(x.transpose(0, 1), self.in_proj.weight).chunk(2, dim=-1)
        hidden = functional.silu(convolve_causally(hidden, self.conv1d.weight, self.conv1d.bias))
        projected = ops.linear(hidden, self.x_proj.weight)
        step, B, C = torch.split(projected, [self.dt_rank, self.d_state, self.d_state], dim=-1)
        step = ops.linear(step, self.dt_proj.weight)  # its bias is added inside the scan
        y = ops.scan(
            _sequences_first(hidden),
            _sequences_first(step),
            -torch.exp(self.A_log),
            _sequences_first(B),
            _sequences_first(C),
            D=self.D,
            z=_sequences_first(gate),
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
        )
        return ops.linear(y.permute(2, 0, 1), self.out_proj.weight).transpose(0, 1)


def convolve_causally(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Filter each channel over tokens, reading a token and those before it.

    Parameters
    ----------
    x : Tensor, shape (N, b, d)
    weight : Tensor, shape (d, 1, taps); the last tap reads the token itself.
    bias : Tensor, shape (d,)
    """
    taps = weight.to(x.dtype)[:, 0].t().contiguous()  # (taps, d)
    out = x * taps[-1] if bias is None else torch.addcmul(bias.to(x.dtype), x, taps[-1])
    for lag in range(1, min(len(taps), len(x))):
        out[lag:].addcmul_(x[:-lag], taps[-1 - lag])
    return out


def _sequences_first(x: Tensor) -> Tensor:
    """View (N, b, c) as (b, c, N)."""
    return x.permute(1, 2, 0)


def _init_decay(log_rates: Tensor) -> None:
    """Start the rates at which states decay, (inner, d_state), at 1 to d_state."""
    with torch.no_grad():
        log_rates.copy_(torch.arange(1.0, log_rates.shape[1] + 1).log())


def _init_step(projection: nn.Linear, low: float = 1e-3, high: float = 0.1) -> None:
    """Start the step sizes, after softplus, log-uniform between `low` and `high`."""
    rank = projection.in_features
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    with torch.no_grad():
        step = torch.exp(torch.empty_like(projection.bias).uniform_(math.log(low), math.log(high)))
        projection.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus inverted
