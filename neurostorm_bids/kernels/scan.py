"""The selective scan in C, forward and backward, on tensors in a CPU's memory."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neurostorm_bids.kernels.library import LEVELS, Library, choose_level, require_library
from neurostorm_bids.kernels.scan_inputs import Inputs, check_inputs, put_channels_together
from neurostorm_bids.kernels.threads import share_work

if TYPE_CHECKING:
    from torch import Tensor

MAX_STATES = 64
"""State values per channel, at most."""
PART_VALUES = 2**21
"""State updates that a thread takes at a time in the forward: about a millisecond."""
BACKWARD_PARTS = 16
"""Parts of the backward, whatever the number of threads: sums over them are always the same."""

_POINTERS = ("u", "delta", "B", "C", "z", "rates", "skip", "bias", "grad_y", "y")
_GRADIENTS = ("grad_u", "grad_delta", "grad_B", "grad_C", "grad_z", "grad_shared")
_STRIDED = ("u", "delta", "B", "C", "z", "y", "grad_y")
_GAPS = ("grad_t", "grad_z_t", "grad_B_t")
_SIZES = ("n_sequences", "n_tokens", "n_channels", "n_states", "softplus", "group", "next")


class _Job(ctypes.Structure):
    """``ns_scan`` of ``kernels.h``, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (*_POINTERS, *_GRADIENTS)),
        *((f"{name}_{axis}", ctypes.c_int64) for name in _STRIDED for axis in "bt"),
        *((name, ctypes.c_int64) for name in (*_GAPS, *_SIZES)),
    )


def selective_scan_c(
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
    """Scan in C: arguments, result and gradients as of `model.scan.selective_scan_ref`.

    Computes in float32, half precision too; the result is in the dtype of `u`. Views whose
    memory runs (L, b, d) or (b, L, d) cost no copy; the result's runs (L, b, d).

    Raises
    ------
    MissingFileError
        When the library was not built.
    UsageError
        When an instruction set was asked for that the processor lacks.
    ValueError
        When shapes do not fit together, or more was expected of the kernel than float32.
    """
    if u.dtype == torch.float64:
        raise ValueError("Expected float32 or half precision, found float64: scan with PyTorch")
    with torch.autocast("cpu", enabled=False):
        given = (u, delta, A, B, C, D, z, delta_bias)
        inputs = Inputs(*(None if part is None else part.float() for part in given))  # type: ignore[arg-type]
        y: Tensor
        if torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in inputs):
            y = _Scan.apply(delta_softplus, *inputs)  # type: ignore[no-untyped-call]
        else:
            y = _run_forward(inputs, softplus=delta_softplus)
        return y.to(u.dtype)


class _Scan(Function):
    """The scan with its gradient, which keeps the inputs only and runs the states again."""

    @staticmethod
    def forward(ctx: Any, softplus: bool, *inputs: Tensor | None) -> Tensor:  # noqa: ANN401, FBT001
        """Return y (b, d, L)."""
        ctx.softplus = softplus
        ctx.save_for_backward(*inputs)
        return _run_forward(Inputs(*inputs), softplus=softplus)  # type: ignore[arg-type]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of the fields of `Inputs`."""
        inputs = Inputs(*ctx.saved_tensors)
        return None, *_run_backward(inputs, grad_y, softplus=ctx.softplus)


def _run_forward(inputs: Inputs, *, softplus: bool) -> Tensor:
    n_sequences, n_channels, n_tokens = inputs.u.shape
    y = _make_room(n_tokens, n_sequences, n_channels).permute(1, 2, 0)
    values = max(1, n_channels * n_tokens * inputs.A.shape[1])
    group = max(1, min(PART_VALUES // values, n_sequences // 8))
    _run("forward", inputs, {"y": y}, softplus=softplus, group=group)
    return y


def _run_backward(inputs: Inputs, grad_y: Tensor, *, softplus: bool) -> tuple[Tensor | None, ...]:
    n_sequences, n_channels, n_tokens = inputs.u.shape
    n_states = inputs.A.shape[1]
    group = max(1, -(-n_sequences // BACKWARD_PARTS))
    wide, narrow = (n_tokens, n_sequences, n_channels), (n_tokens, n_sequences, n_states)
    n_parts = -(-n_sequences // group)
    found = {
        "grad_u": _make_room(*wide),
        "grad_delta": _make_room(*wide),
        "grad_B": _make_room(*narrow),
        "grad_C": _make_room(*narrow),
        "grad_z": None if inputs.z is None else _make_room(*wide),
        "grad_shared": _make_room(n_parts, n_states + 2, n_channels).zero_(),
    }
    tensors = found | {"grad_y": grad_y}
    _run("backward", inputs, tensors, softplus=softplus, group=group)
    u, delta, B, C, z = (
        None if part is None else part.permute(1, 2, 0) for part in list(found.values())[:5]
    )
    shared = found["grad_shared"].sum(0)  # type: ignore[union-attr]
    skip = None if inputs.D is None else shared[-2]
    bias = None if inputs.delta_bias is None else shared[-1]
    return u, delta, shared[:-2].t(), B, C, skip, z, bias


def _run(
    direction: str,
    inputs: Inputs,
    others: dict[str, Tensor | None],
    *,
    softplus: bool,
    group: int,
) -> None:
    """Hand the tensors over; `others` holds the fields of ``ns_scan`` beside the inputs."""
    _check(inputs)
    library, level = _choose_kernel()
    n_sequences, n_channels, n_tokens = inputs.u.shape
    tensors: dict[str, Tensor | None] = {
        **inputs._asdict(),
        "rates": inputs.A.t().contiguous(),
        "skip": None if inputs.D is None else inputs.D.contiguous(),
        "bias": None if inputs.delta_bias is None else inputs.delta_bias.contiguous(),
        **others,
    }
    job = _Job(
        n_sequences=n_sequences,
        n_tokens=n_tokens,
        n_channels=n_channels,
        n_states=inputs.A.shape[1],
        softplus=softplus,
        group=group,
        grad_t=n_sequences * n_channels,
        grad_z_t=n_sequences * n_channels,
        grad_B_t=n_sequences * inputs.A.shape[1],
    )
    for name in _STRIDED:
        if (part := tensors.get(name)) is not None:
            tensors[name] = part = put_channels_together(part)
            setattr(job, f"{name}_b", part.stride(0))
            setattr(job, f"{name}_t", part.stride(2))
    for name in (*_POINTERS, *_GRADIENTS):
        part = tensors.get(name)
        setattr(job, name, None if part is None else part.data_ptr())
    job.tensors = tensors  # as long as a thread knows the job, its memory is there
    run = getattr(library.functions, f"ns_scan_{direction}")
    work = functools.partial(run, ctypes.byref(job), level)
    share_work(work, n_parts=-(-n_sequences // group))


def _make_room(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _choose_kernel() -> tuple[Library, int]:
    library = require_library()
    return library, LEVELS.index(choose_level(library))


def _check(inputs: Inputs) -> None:
    check_inputs(inputs, device=torch.device("cpu"))
    for name, part in inputs._asdict().items():
        if part is not None and part.dtype != torch.float32:
            raise ValueError(f"Expected {name} to be of float32, found {part.dtype}")
    n = inputs.A.shape[1]
    if not 1 <= n <= MAX_STATES:
        raise ValueError(f"Expected 1 to {MAX_STATES} state values per channel, found {n}")
