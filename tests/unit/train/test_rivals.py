"""What baselines read of clips: connectivity where there is enough of it, and words where not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from neurostorm_bids.connectivity import make_spheres
from neurostorm_bids.train import rivals


@pytest.fixture
def connect(monkeypatch, tmp_path):
    """Connect two clips of one run that show so many volumes of the source."""

    def run(counts):
        spheres = make_spheres()
        found = {
            "values": np.stack([np.full(spheres.n_pairs, float(at)) for at in (1, 2)]),
            "means": np.stack([np.full(len(spheres.names), float(at)) for at in (3, 4)]),
            "n_volumes": np.array(counts),
        }
        monkeypatch.setattr(rivals, "find_parcellation", lambda *_: spheres)
        monkeypatch.setattr(rivals, "_list_clips", lambda *_: rivals._Clips([0.0, 9.0], 9.0))
        monkeypatch.setattr(rivals, "_connect", lambda *_, **_given: (found, ""))
        examples = SimpleNamespace(
            scans=(SimpleNamespace(run=SimpleNamespace(space="MNI152NLin6Asym")),),
            used_scans=[0],
            owners=np.zeros(2, dtype=int),
            target=SimpleNamespace(keys=("a", "b")),
            is_by_clip=True,
            pool=lambda rows: rows,
        )
        return rivals.connect_examples(examples, tmp_path, clip_length=4)

    return run


def test_each_clip_gets_its_own_connectivity_and_activity(connect):
    found = connect([4, 5])
    assert found.connectivity[:, 0].tolist() == [1, 2]
    assert found.activity[:, 0].tolist() == [3, 4]
    assert "of each clip by itself, 4 to 5 volumes" in found.notes[-1]


def test_clips_of_too_few_volumes_have_no_connectivity_and_the_notes_say_so(connect):
    found = connect([3, 5])
    assert found.connectivity is None
    assert found.activity[:, 0].tolist() == [3, 4]
    assert "no baseline here: a clip shows as few as 3 volume(s)" in found.notes[-1]
