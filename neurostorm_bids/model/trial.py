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
    from collections.abc import Callable

    from torch import Tensor

MIN_CAPABILITY = (8, 0)
"""Ampere: the first GPUs whose matrix units know bfloat16."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Relative errors above which the kernels are not used, by precision."""
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
    """Compare a small scan, and a block, with the reference, once per device.

    The first time on a machine, kernels are compiled for it, which takes seconds.
    """
    scan, reason = find_triton_scan()
    if scan is None:
        return Verdict(reason, is_expected=True)
    try:
        if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
            return Verdict("the GPU is older than compute capability 8.0", is_expected=True)
        error = measure_scan_error(scan, device)
        # A comparison with NaN is false.
        if not error <= TOLERANCES[torch.float32]:
            return Verdict(f"scans on {device} are wrong by {error}")
        for dtype, tolerance in TOLERANCES.items():
            error = measure_block_error(device, dtype)
            if not error <= tolerance:
                return Verdict(f"blocks on {device} in {dtype} are wrong by {error}")
    except Exception as err:  # noqa: BLE001 - compilers and drivers raise what they like
        kind, (first, *_) = type(err).__name__, (*str(err).splitlines(), "")
        return Verdict(f"a trial on {device} failed with {kind}: {first:.300}")
    return Verdict()


def measure_scan_error(scan: Scan, device: torch.device) -> float:
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
        return _compare(
            _differentiate(scan, drawn, delta_softplus=True),
            _differentiate(selective_scan_ref, drawn, delta_softplus=True),
        )


def measure_block_error(device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest relative error of a block's result and of the gradient of its tokens.

    Windows are shifted and padded, and prompts stand in front.
    """
    operations = importlib.import_module("neurostorm_bids.model.operations")
    config = importlib.import_module("neurostorm_bids.model.config").ModelConfig.published()
    module = importlib.import_module("neurostorm_bids.model.block")
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng(devices=()),
    ):
        torch.default_generator.manual_seed(0)  # those of GPUs go on as they are
        block = module.Block(config, dim=36, window=(2, 2, 2, 4), shifted=True, prompt_len=3)
        x = torch.randn(1, 3, 2, 1, 6, 36).to(device)
        block = block.to(device).requires_grad_(requires_grad=False)
        expected = _differentiate(block, {"x": x}, ops=operations.REFERENCE)
        ops, x = operations.find_triton_operations(), x.to(dtype)
        found = _differentiate(block.to(dtype), {"x": x}, ops=ops)
        return _compare(found, expected)


def _compare(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    pairs = zip(found, expected, strict=True)
    errors = [(one.float() - other).norm() / other.norm() for one, other in pairs]
    return float(torch.stack(errors).max())


def _differentiate(
    function: Callable[..., Tensor], drawn: dict[str, Tensor], **options: object
) -> tuple[Tensor, ...]:
    """Return the result of a function, and its gradients by all it was given."""
    leaves = {name: part.clone().requires_grad_() for name, part in drawn.items()}
    y = function(**leaves, **options)
    grad = torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape).to(y.dtype)
    return y.detach(), *torch.autograd.grad(y, list(leaves.values()), grad)
