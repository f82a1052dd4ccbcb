"""The selective scan in Triton, forward and backward, on tensors in a GPU's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neurostorm_bids.kernels.scan_inputs import Inputs, check_inputs, put_channels_together
from neurostorm_bids.kernels.triton.scan_kernels import run_scan, run_scan_back

if TYPE_CHECKING:
    from torch import Tensor

TILE = 16
"""Tokens between the states that the gradient starts from."""
WARP = 32
"""Channels of a program, one for each thread of a warp: programs are many, and none waits."""


def selective_scan_triton(
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
    """Scan in Triton: arguments, result and gradients as of `model.scan.selective_scan_ref`.

    Computes in float32; the result is in the dtype of `u`. Views whose memory runs (L, b, d) or
    (b, L, d) cost no copy; the result's runs (b, L, d). Sums are always taken in the same order.

    Raises
    ------
    ValueError
        When shapes do not fit together, or float64 is given.
    """
    inputs = Inputs(u, delta, A, B, C, D, z, delta_bias)
    _check(inputs)
    y: Tensor
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in inputs):
            y = _Scan.apply(delta_softplus, *inputs)  # type: ignore[no-untyped-call]
        else:
            y, _ = _run_forward(inputs, softplus=delta_softplus)
    return y


class _Scan(Function):
    """The scan with its gradient, which keeps a state every few tokens."""

    @staticmethod
    def forward(ctx: Any, softplus: bool, *inputs: Tensor | None) -> Tensor:  # noqa: ANN401, FBT001
        """Return y (b, d, L)."""
        y, kept = _run_forward(Inputs(*inputs), softplus=softplus, keep=True)  # type: ignore[arg-type]
        ctx.softplus = softplus
        ctx.save_for_backward(*inputs, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of the fields of `Inputs`."""
        *inputs, kept = ctx.saved_tensors
        with torch.cuda.device_of(grad_y):  # type: ignore[no-untyped-call]
            grads = _run_backward(Inputs(*inputs), grad_y, kept, softplus=ctx.softplus)
        given = zip(grads, inputs, strict=True)
        return None, *(None if p is None or g is None else g.to(p.dtype) for g, p in given)


def _run_forward(
    inputs: Inputs, *, softplus: bool, keep: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return y (b, d, L) and, if asked for, the states before each tile of tokens."""
    b, d, n_tokens = inputs.u.shape
    n = inputs.A.shape[1]
    y = inputs.u.new_empty(b, n_tokens, d).transpose(1, 2)
    kept = _make_room(inputs.u, b, -(-n_tokens // TILE), n, d) if keep else None
    if y.numel():
        tensors = _lay_out(inputs)
        run_scan[b, triton.cdiv(d, WARP)](
            *tensors,
            y,
            kept,
            *_find_strides(tensors, y),
            n_tokens,
            d,
            softplus=softplus,
            n_states=n,
            states=triton.next_power_of_2(n),
            channels=WARP,
            tile=TILE,
            num_warps=1,
        )
    return y, kept


def _run_backward(
    inputs: Inputs, grad_y: Tensor, kept: Tensor, *, softplus: bool
) -> tuple[Tensor | None, ...]:
    b, d, n_tokens = inputs.u.shape
    n = inputs.A.shape[1]
    n_blocks = triton.cdiv(d, WARP)
    grad_u, grad_delta = (_make_room(inputs.u, b, n_tokens, d) for _ in range(2))
    grad_z = None if inputs.z is None else _make_room(inputs.u, b, n_tokens, d)
    grad_b, grad_c = (_make_room(inputs.u, n_blocks, b, n_tokens, n) for _ in range(2))
    shared = torch.zeros(b, n + 2, d, device=inputs.u.device)
    if inputs.u.numel():
        tensors = _lay_out(inputs)
        grad_y = put_channels_together(grad_y)
        run_scan_back[b, n_blocks](
            *tensors,
            grad_y,
            kept,
            _make_room(inputs.u, b, TILE, n, d),
            grad_u,
            grad_delta,
            grad_b,
            grad_c,
            grad_z,
            shared,
            *_find_strides(tensors, grad_y),
            n_tokens,
            d,
            softplus=softplus,
            n_states=n,
            states=triton.next_power_of_2(n),
            channels=WARP,
            tile=TILE,
            num_warps=1,
        )
    total = shared.sum(0)
    return (
        grad_u.transpose(1, 2),
        grad_delta.transpose(1, 2),
        total[:n].t(),
        grad_b.sum(0).transpose(1, 2),
        grad_c.sum(0).transpose(1, 2),
        None if inputs.D is None else total[n],
        None if grad_z is None else grad_z.transpose(1, 2),
        None if inputs.delta_bias is None else total[n + 1],
    )


def _lay_out(inputs: Inputs) -> tuple[Tensor | None, ...]:
    """Return the tensors in the kernels' order, channels together: u delta B C z A' D bias."""
    u, delta, B, C = (
        put_channels_together(p) for p in (inputs.u, inputs.delta, inputs.B, inputs.C)
    )
    z = None if inputs.z is None else put_channels_together(inputs.z)
    D, bias = (None if p is None else p.contiguous() for p in (inputs.D, inputs.delta_bias))
    return u, delta, B, C, z, inputs.A.t().contiguous(), D, bias


def _find_strides(tensors: tuple[Tensor | None, ...], last: Tensor) -> list[int]:
    """Return the steps between sequences and between tokens of u, delta, B, C, z and y."""
    found = []
    for part in (*tensors[:5], last):
        found += [0, 0] if part is None else [part.stride(0), part.stride(2)]
    return found


def _make_room(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _check(inputs: Inputs) -> None:
    check_inputs(inputs, device=inputs.u.device)
    for name, part in inputs._asdict().items():
        if part is not None and part.dtype == torch.float64:
            raise ValueError(f"Expected {name} in float32 or half precision, found float64")
    if inputs.A.shape[1] == 0:
        raise ValueError("Expected at least one state value per channel, found none")
