"""The Triton kernels without a GPU: in Triton's interpreter, and compiled for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
HERE = Path(__file__).parent


CASES = ("test_triton_scan.py", "test_triton_filters.py", "test_triton_block.py")


def test_the_kernels_equal_the_reference_in_tritons_interpreter():
    """In a process of its own: Triton decides at its import whether it interprets."""
    command = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    found = subprocess.run(
        (sys.executable, *command, *CASES),
        cwd=HERE,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    last = found.stdout.splitlines()[-1]
    assert " passed" in last
    assert "skipped" not in last
