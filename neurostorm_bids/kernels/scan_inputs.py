"""What every kernel for the selective scan reads, and how it is checked and laid out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Inputs(NamedTuple):
    """What the scan reads; computed in float32.

    Attributes
    ----------
    u, delta : Tensor, shape (b, d, L)
    A : Tensor, shape (d, n)
    B, C : Tensor, shape (b, n, L)
    D, z, delta_bias : Tensor of shape (d,), (b, d, L) and (d,), or None.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None


def check_inputs(inputs: Inputs, *, device: torch.device) -> None:
    """Let nothing reach a kernel that would be read past its end.

    Raises
    ------
    ValueError
        When shapes do not fit together, or a tensor is elsewhere.
    """
    b, d, n_tokens = inputs.u.shape
    n = inputs.A.shape[1]
    wide, narrow = (b, d, n_tokens), (b, n, n_tokens)
    expected = {"u": wide, "delta": wide, "A": (d, n), "B": narrow, "C": narrow, "z": wide}
    for name, part in inputs._asdict().items():
        if part is None:
            continue
        shape = expected.get(name, (d,))
        if tuple(part.shape) != shape or part.device != device:
            found = f"{tuple(part.shape)} on {part.device}"
            raise ValueError(f"Expected {name} to be {shape} on {device}, found {found}")


def put_channels_together(x: Tensor) -> Tensor:
    """Return (b, c, L) with channels one after the other in memory, copied only if they are not."""
    return x if x.stride(1) == 1 else x.transpose(1, 2).contiguous().transpose(1, 2)
