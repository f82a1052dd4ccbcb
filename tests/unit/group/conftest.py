"""Results of the participant level, written without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neurostorm_bids.derivatives.tables import make_column_names
from neurostorm_bids.group import GroupOptions

SPACE = "space-MNI152NLin6Asym_res-2"
AGE = {
    "name": "age",
    "kind": "regression",
    "classes": [],
    "unit": "years",
    "mean": 40.0,
    "sd": 15.0,
}
SEX = {
    "name": "sex",
    "kind": "classification",
    "classes": ["female", "male"],
    "unit": None,
    "mean": None,
    "sd": None,
}


class Study:
    """A source dataset and an output folder that grow run by run.

    Attributes
    ----------
    source, output : the two folders.
    """

    def __init__(self, folder: Path) -> None:
        self.source, self.output = folder / "fmriprep", folder / "out"
        generators = {"fmriprep": "fMRIPrep", "out": "neurostorm-bids"}
        for name, generator in generators.items():
            (folder / name).mkdir()
            description = {
                "Name": "A test",
                "BIDSVersion": "1.10.1",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": generator, "Version": "1"}],
            }
            (folder / name / "dataset_description.json").write_text(json.dumps(description))

    def tell(self, *rows: str) -> None:
        """Write participants.tsv of the source; cells are separated by blanks."""
        text = "\n".join("\t".join(row.split()) for row in rows)
        (self.source / "participants.tsv").write_text(f"{text}\n")

    def add(self, run: str, *, embedding=None, value=None, probabilities=None, **facts) -> Path:
        """Write what a model says of a run such as ``sub-01_ses-A_task-rest``; return the folder.

        Facts of the sidecar, or ``model``, ``space``, ``label`` (of the model, in the desc), ``fd``
        and ``target``.
        """
        model, space = facts.pop("model", "one"), facts.pop("space", SPACE)
        label, target = facts.pop("label", ""), facts.pop("target", AGE if value else SEX)
        folder = Path(*(part for part in run.split("_") if part[:4] in {"sub-", "ses-"}), "func")
        bold = f"{run}_{space}_desc-preproc_bold.nii.gz"
        for root in (self.source, self.output):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (self.source / folder / bold).touch()
        if "fd" in facts:
            confounds = self.source / folder / f"{run}_desc-confounds_timeseries.tsv"
            confounds.write_text(f"framewise_displacement\nn/a\n{facts.pop('fd')}\n")
        sidecar = {
            "Sources": [f"bids:fmriprep:{(folder / bold).as_posix()}"],
            "ModelName": model,
            "ModelSHA256": model * 8,
            "Grid": {"space": "MNI152NLin6Asym", "repetition_time_s": 0.8},
            "NumberOfVolumes": 100,
            "SourceRepetitionTime": 2.0,
            "BrainCoverage": 0.99,
            "Warnings": [],
            **facts,
        }
        stem = f"{run}_{space}_desc-"
        if embedding is not None:
            names = [f"dim{place:03d}" for place in range(len(embedding))]
            rows = [names, [str(np.float32(number)) for number in embedding]]
            self.write(folder / f"{stem}scan{label}_embedding", rows, sidecar)
        if value is not None:
            column = "zscore" if target["mean"] is None else "value"
            rows = [["level", column, "spread"], ["clip", "1.0", "n/a"], ["run", str(value), "0.5"]]
            name = f"{stem}{target['name']}{label}_predictions"
            self.write(folder / name, rows, sidecar | {"Target": target})
        if probabilities is not None:
            names = make_column_names("probability", target["classes"])
            rows = [["level", *names], ["run", *map(str, probabilities)]]
            name = f"{stem}{target['name']}{label}_predictions"
            self.write(folder / name, rows, sidecar | {"Target": target})
        return self.output / folder

    def write(self, stem: Path, rows: list[list[str]], sidecar: dict) -> None:
        """Write a table and its sidecar."""
        path = self.output / stem
        text = "\n".join("\t".join(row) for row in rows)
        path.with_name(f"{path.name}.tsv").write_text(f"{text}\n")
        path.with_name(f"{path.name}.json").write_text(json.dumps(sidecar))

    def options(self, **changes) -> GroupOptions:
        return GroupOptions(bids_dir=self.source, output_dir=self.output, **changes)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def filled(study):
    """Six people in two sessions, of whom age and sex are predicted well."""
    generator = np.random.default_rng(0)
    study.tell(
        "participant_id age sex",
        "sub-01 21 F",
        "sub-02 33 M",
        "sub-03 45 F",
        "sub-04 56 M",
        "sub-05 62 F",
        "sub-06 n/a n/a",
    )
    for number, age in enumerate((21, 33, 45, 56, 62, 40), start=1):
        person = generator.normal(size=8)
        for session in "AB":
            male = 0.8 if number in {2, 4} else 0.3
            study.add(
                f"sub-{number:02d}_ses-{session}_task-rest",
                embedding=person + 0.1 * generator.normal(size=8),
                value=age + (2 if session == "A" else -2),
                fd=0.1 * number,
            )
            study.add(
                f"sub-{number:02d}_ses-{session}_task-rest",
                probabilities=(1 - male, male),
            )
    return study
