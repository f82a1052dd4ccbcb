"""A small run on a grid, what a model says of it, and the folder that both are written to."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.derivatives import OutputNames, write_dataset_files, write_run
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.inputs import BoldRun, SourceDataset
from neurostorm_bids.model.config import TargetSpec
from neurostorm_bids.predict import RunPrediction
from neurostorm_bids.report.figures import write_run_figures

GRID = GridSpec.published(24)
SEX = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
AGE = TargetSpec(name="age", kind="regression", unit="years", mean=28.0, sd=3.5)
REPETITION_TIME_S = 2.0


def make_bold(*, flip=False, bright_side=None, mean=1000.0, n_volumes=20, seed=0):
    """Make an image of a round head at 8 mm; one side may be bright, voxels run either way."""
    affine = GRID.affine_matrix.copy()
    voxels = np.indices(GRID.shape).reshape(3, -1).T
    world = (voxels @ affine[:3, :3].T + affine[:3, 3]).reshape(*GRID.shape, 3)
    inside = np.linalg.norm((world - [0, -18, 10]) / [70, 85, 70], axis=-1) < 1
    level = np.where(inside, mean, 0.0)
    if bright_side is not None:
        ball = np.linalg.norm(world - [bright_side * 40, -18, 10], axis=-1) < 22
        level[ball] *= 3
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*GRID.shape, n_volumes)) * 10 * inside[..., None]
    data = (level[..., None] + noise).astype("f4")
    mask = inside.astype("u1")
    if flip:
        data, mask = data[::-1], mask[::-1]
        affine = affine @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] += GRID.affine_matrix[:3, 0] * (GRID.shape[0] - 1)
    images = [nib.Nifti1Image(np.ascontiguousarray(a), affine) for a in (data, mask)]
    for image in images:
        image.set_sform(affine, 4)
    return images


@pytest.fixture
def make_series():
    def make(*, spec=GRID, **changes):
        bold, mask = make_bold(**changes)
        return grid_run(bold, spec, repetition_time_s=REPETITION_TIME_S, brain_mask=mask)

    return make


@pytest.fixture(scope="session")
def series():
    bold, mask = make_bold()
    return grid_run(bold, GRID, repetition_time_s=REPETITION_TIME_S, brain_mask=mask)


@pytest.fixture
def make_prediction(series):
    def make(target=SEX, *, n_clips=5, **changes):
        rng = np.random.default_rng(1)
        outputs = None
        if target is not None:
            outputs = rng.random((n_clips, target.n_outputs)).astype("f4")
            if target.kind == "classification":
                outputs /= outputs.sum(axis=1, keepdims=True)
        embeddings = rng.standard_normal((n_clips, 6)).astype("f4") + 3
        values = {
            "onsets_s": np.arange(n_clips) * 8.0,
            "duration_s": 8.0,
            "clip_weights": np.full(n_clips, 1 / n_clips),
            "clip_embeddings": embeddings,
            "embedding": embeddings.mean(axis=0),
            "target": target,
            "clip_outputs": outputs,
            "output": None if outputs is None else outputs.mean(axis=0),
            "spread": None if outputs is None else outputs.std(axis=0),
            "series": series,
        }
        return RunPrediction(**{**values, **changes})

    return make


def make_model(name="base", target=SEX, sha256="ab" * 32):
    provenance = SimpleNamespace(
        name=name, sha256=sha256, source=f"{name}.ckpt", format="published", notes=("A note.",)
    )
    return SimpleNamespace(
        provenance=provenance,
        target=target,
        grid=GRID,
        clip_length=10,
        calibration=None,
        precision="float32",
    )


@pytest.fixture
def make_run(tmp_path):
    def make(label="sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc", **changes):
        entities = dict(pair.split("-", maxsplit=1) for pair in label.split("_"))
        source = tmp_path / "fmriprep"
        description = {
            "Name": "fMRIPrep",
            "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.1"}],
        }
        values = {
            "path": source / f"sub-{entities['sub']}" / "func" / f"{label}_bold.nii.gz",
            "entities": entities,
            "space": "MNI152NLin6Asym",
            "repetition_time_s": REPETITION_TIME_S,
            "brain_mask": None,
            "confounds": None,
            "dataset": SourceDataset(name="fmriprep", path=source, description=description),
        }
        return BoldRun(**{**values, **changes})

    return make


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def work_on(output, make_run, make_prediction):
    """Return a function that writes a run's results and figures, as the participant level does."""

    def work(run=None, *, target=SEX, model=None, names=None, **changes):
        run = run or make_run()
        model = model or make_model(target=target)
        names = names or OutputNames(target=None if target is None else target.name)
        prediction = make_prediction(target, **changes)
        write_dataset_files(
            output, datasets=[run.dataset], participants=[run.participant], models=[model]
        )
        write_run(output, run, prediction, model=model, names=names, configuration_hash="h")
        return write_run_figures(output, run, prediction, model=model, names=names)

    return work
