"""Whether the Triton kernels can be trusted on a GPU: they are tried there before they are used.

They were checked in Triton's interpreter and compiled for GPUs, but compilers, drivers and GPUs
differ. What disagrees with PyTorch's operations on the same device is not used.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, NamedTuple

import torch

from neurostorm_bids.model.scan import Scan, selective_scan_ref

if TYPE_CHECKING:
    from torch import Tensor

MIN_CAPABILITY = (8, 0)
"""Ampere: the first GPUs whose matrix units know bfloat16."""
TOLERANCE = 1e-4
"""Relative error in float32 above which the kernels are not used."""
SHAPES = {
    **dict.fromkeys(("u", "delta", "z"), (3, 40, 37)),
    **dict.fromkeys(("B", "C"), (3, 16, 37)),
    "A": (40, 16),
    **dict.fromkeys(("D", "delta_bias"), (40,)),
}


class Verdict(NamedTuple):
    """What came of it.

    Attributes
    ----------
    reason : why the kernels are not to be used; empty when they are.
    is_expected : whether that is as it should be: nothing is installed, or the GPU is too old.
    """

    reason: str = ""
    is_expected: bool = False


def find_triton_scan() -> tuple[Scan | None, str]:
    """Return the scan in Triton or, where Triton cannot be imported, the reason."""
    try:
        module = importlib.import_module("neurostorm_bids.kernels.triton.scan")
    except (ImportError, OSError, RuntimeError, AttributeError) as err:
        return None, f"Triton cannot be imported: {err}"
    scan: Scan = module.selective_scan_triton
    return scan, ""


@functools.cache
def try_triton(device: torch.device) -> Verdict:
    """Compare a small scan and its gradients with the reference, once per device.

    The first time on a machine, kernels are compiled for it, which takes seconds.
    """
    scan, reason = find_triton_scan()
    if scan is None:
        return Verdict(reason, is_expected=True)
    try:
        if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
            return Verdict("the GPU is older than compute capability 8.0", is_expected=True)
        worst = measure_disagreement(scan, device)
    except Exception as err:  # noqa: BLE001 - compilers and drivers raise what they like
        kind, (first, *_) = type(err).__name__, (*str(err).splitlines(), "")
        return Verdict(f"a trial on {device} failed with {kind}: {first:.300}")
    # A comparison with NaN is false.
    return Verdict() if worst <= TOLERANCE else Verdict(f"results on {device} are wrong by {worst}")


def measure_disagreement(scan: Scan, device: torch.device) -> float:
    """Return the largest relative error of a scan's result and gradients; the seed is its own."""
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        generator = torch.Generator().manual_seed(0)
        drawn = {
            name: torch.randn(shape, generator=generator).to(device)
            for name, shape in SHAPES.items()
        }
        drawn["A"] = -drawn["A"].exp()
        found, expected = _differentiate(scan, drawn), _differentiate(selective_scan_ref, drawn)
    errors = [
        (one - other).norm() / other.norm() for one, other in zip(found, expected, strict=True)
    ]
    return float(torch.stack(errors).max())


def _differentiate(scan: Scan, drawn: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the result of a scan, and its gradients by all it was given."""
    leaves = {name: part.clone().requires_grad_() for name, part in drawn.items()}
    y = scan(**leaves, delta_softplus=True)
    grad = torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape)
    return y.detach(), *torch.autograd.grad(y, list(leaves.values()), grad)
