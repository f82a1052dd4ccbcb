"""Small trees of derivatives; images are empty files, for discovery never opens one."""

from __future__ import annotations

import json

import pytest

DESCRIPTION = {
    "Name": "fMRIPrep - fMRI PREProcessing workflow",
    "BIDSVersion": "1.4.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.1"}],
}


def _write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def _describe(folder, **changes):
    _write_json(folder / "dataset_description.json", {**DESCRIPTION, **changes})
    return folder


def _add_run(folder, stem, *, repetition_time=2.0, mask=True, confounds="timeseries"):
    parts = stem.split("_")
    session = [part for part in parts[1:2] if part.startswith("ses-")]
    func = folder.joinpath(parts[0], *session, "func")
    func.mkdir(parents=True, exist_ok=True)
    bold = func / f"{stem}_bold.nii.gz"
    bold.touch()
    if repetition_time is not None:
        _write_json(func / f"{stem}_bold.json", {"RepetitionTime": repetition_time})
    if mask:
        (func / f"{'_'.join(parts[:-1])}_desc-brain_mask.nii.gz").touch()
    if confounds:
        of_run = [part for part in parts if part.split("-")[0] not in {"space", "res", "desc"}]
        (func / f"{'_'.join(of_run)}_desc-confounds_{confounds}.tsv").touch()
    return bold


@pytest.fixture
def write_json():
    """Return a function that writes a JSON file, with the folders above it."""
    return _write_json


@pytest.fixture
def describe():
    """Return a function that writes fMRIPrep's dataset_description.json, with changes."""
    return _describe


@pytest.fixture
def add_run():
    """Return a function that writes a BOLD file, its sidecar, mask and confounds."""
    return _add_run


@pytest.fixture
def fmriprep(tmp_path):
    """Return a folder of derivatives that holds only its description."""
    folder = tmp_path / "fmriprep"
    folder.mkdir()
    return _describe(folder)
