"""Which implementation computes the two costly operations: products and scans.

Every set gives the same result. Layers take the set as an argument, so that a test or a benchmark
runs the same network with another one.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch.nn import functional

from neurostorm_bids.kernels.block import update_block_c
from neurostorm_bids.kernels.patches import embed_patches_c
from neurostorm_bids.kernels.scan import selective_scan_c
from neurostorm_bids.model.backends import choose_backend, find_scan, selective_scan
from neurostorm_bids.model.scan import Scan, selective_scan_ref, selective_scan_torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from neurostorm_bids.kernels.block_weights import BlockWeights

logger = logging.getLogger(__name__)

_SHORT = frozenset({torch.float32, torch.bfloat16, torch.float16})


class Linear(Protocol):
    """What the linear maps have in common: that of ``torch.nn.functional``."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, /) -> Tensor:
        """Return x times the transposed weight, plus bias."""


class BlockUpdate(Protocol):
    """What the programs for a whole block have in common; see `kernels.block.update_block_c`."""

    def __call__(
        self,
        tokens: Tensor,
        index: Tensor,
        weights: BlockWeights,
        *,
        epsilon: float,
        shares: Tensor | None = None,
        may_overwrite: bool = False,
    ) -> Tensor:
        """Return the updated tokens, shape (n, dim)."""


class PatchEmbedding(Protocol):
    """What embeddings of patches have in common; see `kernels.patches.embed_patches_c`."""

    def __call__(
        self, clips: Tensor, weight: Tensor, bias: Tensor, *, patch: tuple[int, int, int]
    ) -> Tensor:
        """Return tokens (B, X', Y', Z', T, dim)."""


class Operations(NamedTuple):
    """One set of implementations.

    Attributes
    ----------
    linear : the linear map of tokens.
    scan : the selective scan.
    update : a whole block, with gradients; None where it is put together from the first two.
    embed : likewise the embedding of patches, where no gradient of the clips is asked for.
    fits : whether `update` takes tensors as these are.
    """

    linear: Linear
    scan: Scan
    update: BlockUpdate | None = None
    embed: PatchEmbedding | None = None
    fits: Callable[..., bool] = lambda *_tensors: False


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
    if product is None or not is_plain(x, weight):
        return functional.linear(x, weight, bias)
    return product(x, weight, bias, "none", [], "")


def is_plain(*tensors: Tensor) -> bool:
    """Return whether all are float32 on the CPU and shall stay so, and no gradient is asked for."""
    if torch.is_grad_enabled() and any(part.requires_grad for part in tensors):
        return False
    return is_single(*tensors)


def is_single(*tensors: Tensor) -> bool:
    """Return whether all are float32 on the CPU and shall stay so."""
    if torch.is_autocast_enabled("cpu"):
        return False
    return all(part.device.type == "cpu" and part.dtype == torch.float32 for part in tensors)


def is_short(*tensors: Tensor) -> bool:
    """Return whether all are float32 or half precision."""
    return all(part.dtype in _SHORT for part in tensors)


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

COMPILED = Operations(
    *(multiply, selective_scan_c),
    update=update_block_c,
    embed=embed_patches_c,
    fits=is_single,
)
"""Blocks in C, and patches but for a gradient of clips. On a CPU, where it was compiled."""

FAST = Operations(linear=multiply, scan=selective_scan)
"""What a user gets: the best of them, or what NEUROSTORM_BACKEND asks for."""


def choose_operations(ops: Operations, x: Tensor, *, n_states: int) -> Operations:
    """Return what FAST stands for on the tensor's device, in its precision; else what was given.

    Raises
    ------
    MissingFileError, UsageError
        When NEUROSTORM_BACKEND asks for what is not there, or does not compute here.
    """
    if ops is not FAST:
        return ops
    backend = choose_backend(x.device, x.dtype, n_states=n_states)
    if backend == "triton":
        return find_triton_operations()
    chosen = {"reference": REFERENCE, "torch": TORCH, "cpu": COMPILED}
    return chosen.get(backend, FAST)


@functools.cache
def find_triton_operations() -> Operations:
    """Return whole blocks in Triton, with gradients, in float32 and half precision; on a GPU.

    Raises
    ------
    MissingFileError
        When Triton is not there.
    """
    scan = find_scan("triton")
    module = importlib.import_module("neurostorm_bids.kernels.triton.block")
    return Operations(multiply, scan, update=module.update_block_triton, fits=is_short)
