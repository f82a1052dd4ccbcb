"""What a benchmark ran on: without it, its numbers mean nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def describe_machine(*packages: str) -> dict[str, Any]:
    """Return the processor, the memory and the versions that a measured time depends on.

    Parameters
    ----------
    packages : what to name the version of, besides NumPy and PyTorch.
    """
    n_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _find_processor(),
        "cores": os.cpu_count(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(n_bytes / 2**30, 1),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "torch", *packages)},
    }


def _find_processor() -> str:
    """Return the processor's name: Linux keeps it in a file, others tell it to Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
