"""Which program computes the selective scan, on which processor.

The choice is made call by call, from where the tensors lie and from what is installed, or by the
variable NEUROSTORM_BACKEND. Results differ by rounding only, so nothing that is written depends on
it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from typing import TYPE_CHECKING

import torch

from neurostorm_bids.errors import MissingFileError, UsageError
from neurostorm_bids.kernels.library import choose_level, find_library, require_library
from neurostorm_bids.kernels.scan import MAX_STATES, selective_scan_c
from neurostorm_bids.model.scan import Scan, selective_scan_ref, selective_scan_torch
from neurostorm_bids.model.trial import find_triton_scan, try_triton

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

VARIABLE = "NEUROSTORM_BACKEND"
BACKENDS = ("reference", "torch", "cpu", "triton", "mamba-ssm")
"""Plain formulas; PyTorch's operations, fast; compiled C; two kinds of kernels for a GPU."""
DEVICES = {"cpu": "cpu", "triton": "cuda", "mamba-ssm": "cuda"}
"""Where a backend computes, if not everywhere."""


def selective_scan(
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
    """Scan by the best program at hand: arguments, result, gradients of `selective_scan_ref`.

    Raises
    ------
    MissingFileError, UsageError
        When NEUROSTORM_BACKEND asks for what is not there, or does not compute here.
    """
    scan = find_scan(choose_backend(u.device, u.dtype, n_states=A.shape[1]))
    return scan(u, delta, A, B, C, D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus)


def read_forced_backend() -> str | None:
    """Return the backend that NEUROSTORM_BACKEND names, or None without one.

    Raises
    ------
    UsageError
        When there is no backend of that name.
    """
    name = os.environ.get(VARIABLE, "")
    if not name:
        return None
    if name not in BACKENDS:
        raise UsageError(
            f"Expected {VARIABLE} to be one of {', '.join(BACKENDS)}, found {name!r:.40}. Unset it "
            "to have the best one chosen."
        )
    return name


def check_forced_backend() -> None:
    """See to it, before any work, that the backend asked for is there.

    Raises
    ------
    MissingFileError, UsageError
        When it is not.
    """
    backend = read_forced_backend()
    if backend is not None:
        find_scan(backend)


def choose_backend(device: torch.device, dtype: torch.dtype, *, n_states: int) -> str:
    """Return the name of the backend for tensors of that device and precision.

    In float64 PyTorch computes whatever was asked for, but for the reference.

    Raises
    ------
    UsageError
        When the backend asked for does not compute on this device or with so many states.
    """
    forced = read_forced_backend()
    if forced in {"reference", "torch"}:
        return forced
    if dtype == torch.float64:
        return "torch"
    if forced is None:
        return _choose_freely(device, n_states)
    if DEVICES[forced] != device.type:
        raise UsageError(
            f"Expected tensors on {DEVICES[forced]} for {VARIABLE}={forced}, found them on "
            f"{device.type}. Choose the device with --device, or unset {VARIABLE}."
        )
    if forced == "cpu" and n_states > MAX_STATES:
        raise UsageError(
            f"Expected at most {MAX_STATES} state values per channel for {VARIABLE}=cpu, found "
            f"{n_states}. Unset {VARIABLE}."
        )
    return forced


def find_scan(backend: str) -> Scan:
    """Return a backend's scan.

    Raises
    ------
    MissingFileError
        When it is not installed.
    """
    if backend == "triton":
        return _require_triton()
    if backend == "cpu":
        _say_once(f"Scan on the CPU: compiled kernels, {choose_level(require_library())}")
        return selective_scan_c
    if backend == "mamba-ssm":
        kernel, reason = _find_cuda_kernel()
        if kernel is None:
            raise MissingFileError(f"Expected mamba-ssm's kernel, found that {reason}.")
        return kernel
    return selective_scan_ref if backend == "reference" else selective_scan_torch


def _choose_freely(device: torch.device, n_states: int) -> str:
    if device.type == "cpu" and n_states <= MAX_STATES and find_library() is not None:
        return "cpu"
    return _choose_for_gpu(device) if device.type == "cuda" else "torch"


def _choose_for_gpu(device: torch.device) -> str:
    verdict = try_triton(device)
    if not verdict.reason:
        _say_once("Kernels on the GPU: Triton's")
        return "triton"
    if not verdict.is_expected:
        _say_once(f"The Triton kernels are not used: {verdict.reason}", "WARNING")
    kernel, reason = _find_cuda_kernel()
    if kernel is not None:
        return "mamba-ssm"
    reasons = f"{verdict.reason}; mamba-ssm: {reason}"
    _say_once(f"No kernel for the scan on the GPU ({reasons}): PyTorch operations are used", "INFO")
    return "torch"


def _require_triton() -> Scan:
    kernel, reason = find_triton_scan()
    if kernel is None:
        raise MissingFileError(
            f"Expected Triton for {VARIABLE}=triton, found that {reason}. Install it (pip install "
            f"triton), or unset {VARIABLE} to have the best backend chosen."
        )
    return kernel


@functools.cache
def _find_cuda_kernel() -> tuple[Scan | None, str]:
    """Return mamba-ssm's scan or, without it or its compiled extension, the reason."""
    try:
        importlib.import_module("selective_scan_cuda")
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        kernel: Scan = interface.selective_scan_fn
    except (ImportError, OSError, RuntimeError, AttributeError) as err:
        if _is_installed("mamba_ssm") and not _is_installed("selective_scan_cuda"):
            return None, (
                "mamba-ssm is installed without its CUDA extension, without which its releases "
                "refuse to run a Mamba-1 layer; install one that was built with it "
                "(MAMBA_FORCE_BUILD=TRUE pip install --no-build-isolation mamba-ssm)"
            )
        return None, f"it cannot be imported: {err}"
    _say_once("Scan on CUDA: the kernel of mamba-ssm")
    return kernel, ""


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@functools.cache
def _say_once(message: str, level: str = "DEBUG") -> None:
    logger.log(logging.getLevelNamesMapping()[level], message)
