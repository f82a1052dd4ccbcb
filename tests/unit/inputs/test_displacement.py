from __future__ import annotations

import numpy as np
import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs.displacement import read_displacement


def test_displacement_is_read_with_what_is_missing(tmp_path):
    path = tmp_path / "confounds.tsv"
    path.write_text("csf\tframewise_displacement\n1\tn/a\n2\t0.25\n")
    found = read_displacement(path)
    assert np.isnan(found[0])
    assert found[1] == 0.25
    path.write_text("csf\n1\n")
    assert read_displacement(path) is None
    path.write_text("")
    with pytest.raises(DataError, match="empty"):
        read_displacement(path)
