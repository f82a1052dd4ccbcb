"""What baselines read of clips: connectivity where there is enough of it, and words where not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.connectivity import find_parcellation, make_spheres
from neurostorm_bids.grid.censoring import Censoring
from neurostorm_bids.train import rivals

SPACE = "MNI152NLin6Asym"


def make_scan(*, run, n_volumes=40, start_s=0.0, censoring=None):
    stored = SimpleNamespace(
        path=Path("key.safetensors"),
        spec=SimpleNamespace(repetition_time_s=2.0),
        n_volumes=n_volumes,
        start_s=start_s,
        censoring=censoring,
    )
    return SimpleNamespace(run=run, stored=stored)


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
            scans=(make_scan(run=SimpleNamespace(space=SPACE)),),
            used_scans=[0],
            owners=np.zeros(2, dtype=int),
            target=SimpleNamespace(keys=("a", "b"), is_known=np.ones(2, dtype=bool)),
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


@pytest.fixture
def blocks(tmp_path):
    """A run of 50 volumes of 2 s: ten far too bright, then rest and task in turn, ten of each.

    The first of three regions follows the task; volumes 12 to 14 of the second moved.
    """
    rng = np.random.default_rng(0)
    affine = np.diag([-6.0, 6, 6, 1])
    bold = 1000 + rng.normal(0, 1, (12, 12, 12, 50))
    bold[..., :10] += np.linspace(500, 0, 10)
    bold[2:5, 2:10, 2:10, 20:30] += 20
    bold[2:5, 2:10, 2:10, 40:50] += 20
    bold[5:8, 2:10, 2:10, 12:15] += 300
    labels = np.zeros(bold.shape[:3], dtype=np.int16)
    for number in range(3):
        labels[2 + 3 * number : 5 + 3 * number, 2:10, 2:10] = number + 1
    nib.Nifti1Image(bold.astype(np.float32), affine).to_filename(tmp_path / "bold.nii")
    nib.Nifti1Image(labels, affine).to_filename(tmp_path / f"tpl-{SPACE}_atlas.nii.gz")
    mask = np.ones_like(labels, dtype=np.uint8)
    mask[0] = 0
    nib.Nifti1Image(mask, affine).to_filename(tmp_path / "mask.nii.gz")
    run = SimpleNamespace(
        path=tmp_path / "bold.nii",
        brain_mask=tmp_path / "mask.nii.gz",
        confounds=None,
        space=SPACE,
        repetition_time_s=2.0,
        label="sub-01_task-x",
        dataset=SimpleNamespace(name="d"),
    )
    return run, tmp_path / f"tpl-{SPACE}_atlas.nii.gz"


def test_clips_of_a_run_without_its_first_volumes_show_the_time_that_the_model_saw(
    blocks, tmp_path
):
    run, atlas = blocks
    scan = make_scan(run=run, start_s=20.0)
    clips = rivals._list_clips(scan, 10)
    found, _ = rivals._connect(scan, find_parcellation(SPACE, atlas), tmp_path, clips=clips)
    assert found["n_volumes"].tolist() == [10] * 4
    rest_1, task_1, rest_2, task_2 = found["means"][:, 0]
    assert min(task_1, task_2) > max(rest_1, rest_2) + 0.5


def test_volumes_that_were_dropped_or_censored_are_no_part_of_connectivity(blocks, tmp_path):
    run, atlas = blocks
    censoring = Censoring(n_source_volumes=40, volumes=(2, 3, 4), threshold_mm=0.5)
    regions = find_parcellation(SPACE, atlas)
    found, _ = rivals._connect(make_scan(run=run, n_volumes=50), regions, tmp_path, clips=None)
    assert np.tanh(found["values"]).max() > 0.8  # of brightness alone, and never from the folder
    scan = make_scan(run=run, start_s=20.0, censoring=censoring)
    found, _ = rivals._connect(scan, regions, tmp_path, clips=None)
    assert np.abs(np.tanh(found["values"])).max() < 0.5


def test_another_image_with_the_same_names_is_measured_anew(blocks, tmp_path):
    run, atlas = blocks
    scan = make_scan(run=run, n_volumes=50)
    before, _ = rivals._connect(scan, find_parcellation(SPACE, atlas), tmp_path, clips=None)
    image = nib.load(atlas)
    edited = np.asarray(image.dataobj).copy()
    edited[edited > 0] = 4 - edited[edited > 0]
    nib.Nifti1Image(edited, image.affine).to_filename(atlas)
    after, _ = rivals._connect(scan, find_parcellation(SPACE, atlas), tmp_path, clips=None)
    assert before["values"][0] == pytest.approx(after["values"][2])
    assert before["values"][0] != pytest.approx(after["values"][0])
