from __future__ import annotations

import pytest
import torch

from neurostorm_bids.kernels.library import LEVEL_VARIABLE, LEVELS, find_library


@pytest.fixture
def library():
    """Return the compiled library, or skip where no compiler made one."""
    found = find_library()
    if found is None:
        pytest.skip("the C kernels were not compiled (python setup.py build_ext --inplace)")
    return found


@pytest.fixture(params=LEVELS)
def level(request, library, monkeypatch):
    """Compute with one instruction set after the other, as far as this processor has them."""
    if LEVELS.index(request.param) > LEVELS.index(library.best_level):
        pytest.skip(f"this processor has no {request.param}, only {library.best_level}")
    monkeypatch.setenv(LEVEL_VARIABLE, request.param)
    return request.param


@pytest.fixture
def poison():
    """Fill new memory with NaN, so that what is not written shows."""
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)
