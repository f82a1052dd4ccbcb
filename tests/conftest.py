"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"


def pytest_terminal_summary(terminalreporter):
    """Tell how often the tests of robustness did what."""
    told = Counter()
    for report in terminalreporter.stats.get("", []):
        if report.when == "teardown":
            told.update({k: n for k, n in report.user_properties if k.startswith("counted ")})
    if told:
        terminalreporter.section("what the tests of robustness tried")
        for what, n in sorted(told.items()):
            terminalreporter.write_line(f"{n:6} {what.removeprefix('counted ')}")


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
