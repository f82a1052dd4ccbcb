"""The selective scan of Mamba (arXiv 2312.00752): a plain reference and a fast one, in PyTorch.

With h(0) = 0, for each sequence and channel, over tokens t:

    h(t) = exp(delta(t) A) h(t-1) + delta(t) B(t) u(t)
    y(t) = C(t) . h(t) + D u(t),   gated by SiLU(z(t))

Shapes throughout: b sequences, d channels, L tokens, n state values per channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from neurostorm_bids.model.recurrence import Inputs, Recurrence, run_recurrence

if TYPE_CHECKING:
    from torch import Tensor


class Scan(Protocol):
    """What the selective scans have in common; see `selective_scan_ref`."""

    def __call__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        *,
        D: Tensor | None = None,
        z: Tensor | None = None,
        delta_bias: Tensor | None = None,
        delta_softplus: bool = False,
    ) -> Tensor:
        """Return y, shape (b, d, L)."""


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Scan as the formula says, over whole tensors: the reference for every other implementation.

    Computed in float32, or in float64 when `u` is; differentiable by autograd.

    Parameters
    ----------
    u, delta : Tensor, shape (b, d, L)
    A : Tensor, shape (d, n)
    B, C : Tensor, shape (b, n, L)
    D : Tensor, shape (d,), optional
    z : Tensor, shape (b, d, L), optional; the gate.
    delta_bias : Tensor, shape (d,), optional; added to delta.
    delta_softplus : whether delta, bias included, goes through softplus.

    Returns
    -------
    Tensor, shape (b, d, L), in the dtype of `u`.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    step = _make_step(delta, delta_bias, dtype=dtype, softplus=delta_softplus)
    # Laid out (b, d, L), as published; PyTorch would carry another layout on, with another speed.
    x, step, B, C = (part.to(dtype).contiguous() for part in (u, step, B, C))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", step, A.to(dtype)))
    drive = torch.einsum("bdl,bnl,bdl->bdln", step, B, x)
    state = torch.zeros_like(decay[:, :, 0])
    outputs = []
    for token in range(u.shape[2]):
        state = decay[:, :, token] * state + drive[:, :, token]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, token]))
    return _finish(torch.stack(outputs, dim=2), x, D, z=z).to(u.dtype)


def selective_scan_torch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Scan fast: the arguments, the result and the gradients of `selective_scan_ref`.

    A recurrence over tokens that works in place on blocks that fit into the cache, exact for any A;
    its gradient keeps a state every few tokens and computes the others again. Views whose memory
    runs (L, b, d) cost no copy.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        x, step = u.to(dtype), _make_step(delta, delta_bias, dtype=dtype, softplus=delta_softplus)
        inputs = Inputs(
            x=_tokens_first(x),
            step=_tokens_first(step),
            B=_tokens_first(B.to(dtype)),
            C=_tokens_first(C.to(dtype)),
            rates=A.to(dtype).t().contiguous(),
        )
        if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
            y: Tensor = Recurrence.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            y, _ = run_recurrence(inputs)
        return _finish(y.permute(1, 2, 0), x, D, z=z).to(u.dtype)


def _tokens_first(x: Tensor) -> Tensor:
    """Turn (b, c, L) into (L, b, c)."""
    return x.permute(2, 0, 1).contiguous()


def _make_step(delta: Tensor, bias: Tensor | None, *, dtype: torch.dtype, softplus: bool) -> Tensor:
    step = delta.to(dtype)
    if bias is not None:
        step = step + bias.to(dtype)[:, None]
    return functional.softplus(step) if softplus else step


def _finish(y: Tensor, x: Tensor, D: Tensor | None, *, z: Tensor | None) -> Tensor:
    """Add the skip and apply the gate."""
    if D is not None:
        y = torch.addcmul(y, x, D.to(x.dtype)[:, None])
    return y if z is None else y * functional.silu(z.to(x.dtype))
