"""Which implementation computes the two costly operations: products and scans.

Every set gives the same result. Layers take the set as an argument, so that a test or a benchmark
runs the same network with another one.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch.nn import functional

from neurostorm_bids.kernels.scan import selective_scan_c
from neurostorm_bids.model.backends import read_forced_backend, selective_scan
from neurostorm_bids.model.scan import Scan, selective_scan_ref, selective_scan_torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

logger = logging.getLogger(__name__)


class Linear(Protocol):
    """What the linear maps have in common: that of ``torch.nn.functional``."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, /) -> Tensor:
        """Return x times the transposed weight, plus bias."""


class Operations(NamedTuple):
    """One set of implementations.

    Attributes
    ----------
    linear : the linear map of tokens.
    scan : the selective scan.
    """

    linear: Linear
    scan: Scan


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, /) -> Tensor:
    """Map tokens linearly: `torch.nn.functional.linear`, through oneDNN where that is faster.

    PyTorch leaves float32 products to MKL, which reached 100 GFLOP/s on a core of an AMD EPYC where
    oneDNN, which PyTorch carries too, reached 230. That product records no gradient, and is one of
    PyTorch's inner operators: where it is missing, PyTorch's default is used.

    Parameters
    ----------
    x : Tensor, shape (..., n)
    weight : Tensor, shape (m, n)
    bias : Tensor, shape (m,), optional
    """
    product = _find_onednn_product()
    is_plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if product is None or not is_plain or torch.is_autocast_enabled("cpu") or _records(x, weight):
        return functional.linear(x, weight, bias)
    return product(x, weight, bias, "none", [], "")


def _records(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


@functools.cache
def _find_onednn_product() -> Callable[..., Tensor] | None:
    """Return the linear map that PyTorch's own compiler emits on a CPU, or None."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
    except AttributeError:
        logger.debug("This PyTorch has no oneDNN product: its default one is used")
        return None
    return product


REFERENCE = Operations(linear=functional.linear, scan=selective_scan_ref)
"""PyTorch's own product, the scan as its formula says, and whole tensors everywhere."""

TORCH = Operations(linear=multiply, scan=selective_scan_torch)
"""PyTorch's operations, in chunks that fit into the cache."""

COMPILED = Operations(linear=multiply, scan=selective_scan_c)
"""The same products, and the scan in C; on a CPU only, and only where that was compiled."""

FAST = Operations(linear=multiply, scan=selective_scan)
"""What a user gets: the best of them, or what NEUROSTORM_BACKEND asks for."""


def choose_operations(ops: Operations) -> Operations:
    """Return REFERENCE for FAST where NEUROSTORM_BACKEND asks for it, and else what was given."""
    return REFERENCE if ops is FAST and read_forced_backend() == "reference" else ops
