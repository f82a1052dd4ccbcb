"""A run, a model and what it says of the run, without an image or a network."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from neurostorm_bids.grid.normalise import Statistics
from neurostorm_bids.grid.resample import Clock
from neurostorm_bids.grid.series import Series
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.inputs import BoldRun, SourceDataset
from neurostorm_bids.model.config import TargetSpec

SEX = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
AGE = TargetSpec(name="age", kind="regression", unit="years", mean=28.0, sd=3.5)
GRID = GridSpec.published(12)
CLIP_LENGTH = 20
N_FEATURES = 6


def _make_dataset(root: Path, name: str = "fmriprep", **description) -> SourceDataset:
    description = {
        "Name": "fMRIPrep",
        "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.1"}],
        **description,
    }
    return SourceDataset(name=name, path=root, description=description)


def _make_run(
    root: Path, label: str = "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc", **changes
) -> BoldRun:
    entities = dict(pair.split("-", maxsplit=1) for pair in label.split("_"))
    folder = root / f"sub-{entities['sub']}" / "func"
    values = {
        "path": folder / f"{label}_bold.nii.gz",
        "entities": entities,
        "space": entities.get("space", "MNI152NLin6Asym"),
        "repetition_time_s": 2.0,
        "brain_mask": folder / f"{label}_mask.nii.gz",
        "confounds": None,
        "dataset": _make_dataset(root),
        "warnings": ("The header says 1 s.",),
    }
    return BoldRun(**{**values, **changes})


def _make_model(name: str = "base", *, target=None, sha256: str = "ab" * 32):
    # The parts of neurostorm_bids.pretrained.Model that are written down; it needs torch.
    provenance = SimpleNamespace(
        name=name, sha256=sha256, source=f"{name}.ckpt", format="published", notes=()
    )
    return SimpleNamespace(
        provenance=provenance,
        target=target,
        grid=GRID,
        clip_length=CLIP_LENGTH,
        precision="float32",
    )


def _make_prediction(target=None, *, n_volumes: int = 50, seed: int = 0):
    """Make a prediction of random numbers with clips of 16 s: back to back, the last at the end."""
    rng = np.random.default_rng(seed)
    starts = [*range(0, n_volumes - CLIP_LENGTH, CLIP_LENGTH), max(0, n_volumes - CLIP_LENGTH)]
    n_clips = len(starts)
    clip_outputs = output = spread = None
    if target is not None:
        raw = rng.random((n_clips, target.n_outputs))
        is_class = target.kind == "classification"
        clip_outputs = (raw / raw.sum(axis=1, keepdims=True) if is_class else raw).astype("f4")
        output = clip_outputs.mean(axis=0)
        with np.errstate(invalid="ignore"):
            spread = (
                clip_outputs.std(axis=0, ddof=1)
                if n_clips > 1
                else np.full(target.n_outputs, np.nan, dtype="f4")
            )
    clip_embeddings = rng.standard_normal((n_clips, N_FEATURES)).astype("f4")
    series = Series(
        spec=GRID,
        brain_mask=np.ones(GRID.shape, dtype=bool),
        frames=np.zeros((3, 12**3), dtype="f4"),
        clock=Clock(
            before=np.zeros(n_volumes, dtype=np.intp),
            after=np.zeros(n_volumes, dtype=np.intp),
            weight=np.zeros(n_volumes),
        ),
        statistics=Statistics(mean=900.0, sd=250.0, minimum=-3.0, n_values=1000),
        source_affine=np.eye(4),
        source_repetition_time_s=2.0,
        brain_coverage=0.98,
        steps=("resampled to 2 mm", "z-scored"),
        warnings=("2 % of the brain lies outside.", "The header says 1 s."),
    )
    # The fields of neurostorm_bids.predict.RunPrediction, whose module needs torch.
    return SimpleNamespace(
        onsets_s=np.asarray(starts) * GRID.repetition_time_s,
        duration_s=CLIP_LENGTH * GRID.repetition_time_s,
        clip_weights=np.full(n_clips, 1 / n_clips),
        clip_embeddings=clip_embeddings,
        embedding=clip_embeddings.mean(axis=0),
        target=target,
        clip_outputs=clip_outputs,
        output=output,
        spread=spread,
        series=series,
        assessment=None,
        clip_censoring=None,
    )


@pytest.fixture
def make_dataset():
    return _make_dataset


@pytest.fixture
def make_run():
    return _make_run


@pytest.fixture
def make_model():
    return _make_model


@pytest.fixture
def make_prediction():
    return _make_prediction


@pytest.fixture
def sex() -> TargetSpec:
    return SEX


@pytest.fixture
def age() -> TargetSpec:
    return AGE


@pytest.fixture
def source(tmp_path) -> Path:
    """Return the folder of an fMRIPrep dataset with its description."""
    folder = tmp_path / "fmriprep"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "fMRIPrep"}')
    return folder


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "neurostorm"


class Killed(BaseException):
    """Stands for the end of the process: nothing is done after it."""


@pytest.fixture
def killed_at(monkeypatch):
    """Return a context in which the process ends at the given change of a name, from 0 on.

    Nothing is cleaned up after it, as after SIGKILL. The context tells by ``.happened`` whether
    there were as many steps.
    """

    @contextmanager
    def die(step: int):
        steps = count()
        kill = SimpleNamespace(happened=False)

        def dying(method):
            def changed(self, *args, **kwargs):
                if next(steps) >= step:
                    kill.happened = True
                    raise Killed
                return method(self, *args, **kwargs)

            return changed

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", dying(Path.replace))
            patched.setattr(Path, "unlink", dying(Path.unlink))
            try:
                yield kill
            except Killed:
                return

    return die
