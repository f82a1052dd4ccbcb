"""The Triton kernels as a GPU would run them: compiled for it, which takes none."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("an interpreted kernel is not compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neurostorm_bids.kernels.triton import (
    block_kernels,
    filter_kernels,
    filters,
    scan,
    scan_kernels,
)
from neurostorm_bids.kernels.triton.block import choose_sizes

MAX_SHARED = {80: 163 * 2**10, 90: 227 * 2**10}
"""Bytes of shared memory that a program may have, by compute capability."""
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
HALF = frozenset({"u", "delta", "z", "y", "grad_y", "mixed", "hidden", "step", "scanned", "x"})
NUMBERS = ("n_", "length", "x_row")
STRIDES = ("_sequence", "_token")


def type_of(name, kernel, dtype):
    """Return the type with which a kernel's parameter is given."""
    if name == "epsilon":
        return "fp32"
    if name == "index":
        return "*i64"
    if name.startswith(NUMBERS) or (name.endswith(STRIDES) and "scan" in kernel.__name__):
        return "i32"
    is_half = name in HALF or (name == "out" and kernel.__name__ == "project_windows")
    return TYPES[dtype] if is_half else "*fp32"


def compile_for(capability, kernel, dtype, *, num_warps, num_stages=3, **constants):
    """Return the compiled kernel; `constants` are parameters that are fixed, or None."""
    signature = {
        name: "constexpr" if name in constants else type_of(name, kernel, dtype)
        for name in kernel.arg_names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    return triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": num_warps, "num_stages": num_stages},
    )


def measure_spilled(compiled, folder):
    """Return the bytes per thread that did not fit into registers, as the machine code tells."""
    path = folder / "kernel.cubin"
    path.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    told = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    return int(re.search(r"STACK:(\d+)", told.stdout)[1])


@pytest.fixture(autouse=True)
def _cold(monkeypatch, tmp_path):
    """Compile anew."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.float32), (90, torch.bfloat16)])
@pytest.mark.parametrize("direction", ["forward", "forward for a backward", "backward"])
def test_a_step_of_the_scan_waits_for_no_other_thread(capability, dtype, direction, tmp_path):
    is_forward = direction != "backward"
    kernel = scan_kernels.run_scan if is_forward else scan_kernels.run_scan_back
    constants = {"softplus": True, "n_states": 16, "states": 16, "tile": scan.TILE}
    compiled = compile_for(
        capability,
        kernel,
        dtype,
        num_warps=1,
        channels=scan.WARP,
        **constants,
        **({"kept": None} if direction == "forward" else {}),
    )
    assert measure_spilled(compiled, tmp_path) <= 16
    if is_forward:
        assert "shfl" not in compiled.asm["ptx"]
        assert "bar.sync" not in compiled.asm["ptx"]


@pytest.mark.parametrize(
    ("capability", "dim", "dtype"),
    [(80, 36, torch.float32), (90, 36, torch.bfloat16), (80, 288, torch.bfloat16)],
)
def test_the_parts_of_a_block_fit_on_the_chip(capability, dim, dtype, tmp_path):
    inner, rank = 2 * dim, -(-dim // 16)
    sizes = choose_sizes(dim, rank=rank, n_states=16, dtype=dtype)
    kernels = {
        "project": (
            block_kernels.project_windows,
            {"dim": dim, "n_out": 2 * inner, "prompts": None},
        ),
        "prepare": (
            block_kernels.prepare_scan,
            {"inner": inner, "rank": rank, "n_narrow": 32, "taps": 4},
        ),
        "finish": (
            block_kernels.finish_tokens,
            {"dim": dim, "inner": inner, "wide": 4 * dim, "shares": None},
        ),
    }
    for name, (kernel, constants) in kernels.items():
        compiled = compile_for(capability, kernel, dtype, **constants, **sizes[name])
        assert compiled.metadata.shared <= MAX_SHARED[capability], name
        assert measure_spilled(compiled, tmp_path) <= 16, name
        if dtype == torch.bfloat16:
            assert "mma" in compiled.asm["ptx"], name


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["run_filter", "run_filter_back", "spread_back"])
def test_filters_compile(capability, name, tmp_path):
    kernel = getattr(filter_kernels, name)
    compiled = compile_for(capability, kernel, torch.bfloat16, inner=72, taps=4, **filters.SIZES)
    assert measure_spilled(compiled, tmp_path) == 0
