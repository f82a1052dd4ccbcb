"""A small tree of derivatives, and calls of the level without a network."""

from __future__ import annotations

import json
from itertools import count

import pytest

from neurostorm_bids.call import Call
from neurostorm_bids.options import ParticipantOptions
from neurostorm_bids.participant import jobs, level

STEM = "sub-{}_task-rest_space-MNI152NLin6Asym_desc-preproc"


class Source:
    """Derivatives of some participants, a run each; images are empty, for nothing opens them."""

    def __init__(self, folder, labels):
        self.folder = folder
        for label in labels:
            (folder / f"sub-{label}" / "func").mkdir(parents=True)
            (folder / f"sub-{label}" / "func" / f"{STEM.format(label)}_bold.nii.gz").touch()
            self.set_time(label, 2.0)
        about = {"Name": "x", "BIDSVersion": "1.4.0", "DatasetType": "derivative"}
        (folder / "dataset_description.json").write_text(json.dumps(about))

    def set_time(self, label, seconds):
        """Write the sidecar of a participant's run; above 100 s it cannot be used."""
        path = self.folder / f"sub-{label}" / "func" / f"{STEM.format(label)}_bold.json"
        path.write_text(json.dumps({"RepetitionTime": seconds}))


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "fmriprep", ["01", "02"])


@pytest.fixture
def ask(source, tmp_path, monkeypatch):
    """Return the options of one more call; its models are none, so usable runs are finished."""
    for module in (jobs, level):
        monkeypatch.setattr(module, "load_models", lambda _: ())

    numbers = count(1)

    def ask(**options):
        call = Call(run_uuid=f"20260101-{next(numbers):06}_x")  # calls sort by the second
        values = {"models": ("none",), "output_dir": tmp_path / "out", "call": call}
        return ParticipantOptions(bids_dir=source.folder, **{**values, **options})

    return ask
