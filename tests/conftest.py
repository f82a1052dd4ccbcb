"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.fixture(autouse=True)
def _keep_threads():
    """Give PyTorch its number of threads back after a test that called the command."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Return the folder with numbers that the published research code produced."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and published files, or skip where it is not at hand."""
    folder = Path(os.environ.get("NEUROSTORM_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "realdata").is_dir():
        pytest.skip(
            f"real data not at hand: no folder {folder / 'realdata'} (set NEUROSTORM_SHARED)"
        )
    return folder
