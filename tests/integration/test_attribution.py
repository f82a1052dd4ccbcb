"""Attributions and resampled runs from outside: calls of the command, then what they wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.config import HeadConfig, TargetSpec
from neurostorm_bids.model.heads import build_head
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.pretrained import load_model, save_model

P = "sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym"
TABLE = f"{P}_atlas-atlas_desc-sex_attribution"
MAP = f"{P}_res-8mm_desc-sexAttribution_bold"
RESAMPLED = f"{P}_res-8mm_desc-resampled_bold"
VALIDATE = "from bids_validator_deno import cli; cli()"


class LeftIsRight(torch.nn.Module):
    """A backbone whose one feature is the mean of the left of the brain."""

    def __init__(self, grid):
        super().__init__()
        voxels = np.indices(grid.shape).reshape(3, -1)
        x_mm = (grid.affine_matrix[:3, :3] @ voxels + grid.affine_matrix[:3, 3:])[0]
        left = torch.from_numpy((x_mm < 0).reshape(grid.shape).astype(np.float32))
        self.left = torch.nn.Parameter(left)

    def forward(self, x):
        return (x * self.left[..., None]).mean(dim=(2, 3, 4, 5), keepdim=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two people's runs at 8 mm, an atlas of slabs, and models: with a head, a decoder, neither."""
    folder = tmp_path_factory.mktemp("attribution")
    write_cohort(folder / "fmriprep", n_people=2, n_volumes=16)
    encoder = load_model(write_encoder(folder / "models"))
    torch.manual_seed(1)
    head = HeadConfig(version="v1", n_outputs=1)
    sex = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
    module = build_head(head, encoder.config.n_features)
    save_model(replace(encoder, head=module, head_config=head, target=sex), folder / "models/sex")
    autoencoder = MaskedAutoencoder(encoder.config, scheme=MaskScheme.parse("random/tube"))
    own = encoder.backbone.state_dict()
    weights = {k: v for k, v in autoencoder.published_state().items() if k not in own}
    pretrained = replace(encoder, decoder_weights=weights, mask_scheme="random/tube")
    save_model(pretrained, folder / "models/pretrained")
    return folder


def call(made, output, *arguments, model="sex"):
    fixed = ["participant", "--device", "cpu", "--participant-label", "01"]
    model = str(made / "models" / model)
    return main(
        [str(made / "fmriprep"), str(output), *fixed, "--model", model, *map(str, arguments)]
    )


def atlas_of(made):
    return made / "fmriprep" / "atlas_space-MNI152NLin6Asym_dseg.nii.gz"


def read_sidecar(path):
    return json.loads(path.read_text())


def list_mtimes(output):
    return {p: p.stat().st_mtime_ns for p in output.rglob("func/*")}


@pytest.fixture(scope="module")
def output(made, tmp_path_factory):
    """Return what occlusion of one clip and a resampled run leave."""
    output = tmp_path_factory.mktemp("out") / "out"
    arguments = ["--attribution", "occlusion", "--attribution-clips", "1", "--write-resampled"]
    assert call(made, output, *arguments, "--atlas", atlas_of(made)) == 0
    before = (output / f"{MAP}.nii.gz").read_bytes()
    halves = write_halves(made, tmp_path_factory.mktemp("halves"))
    assert call(made, output, *arguments, "--atlas", halves) == 0
    assert (output / f"{MAP}.nii.gz").read_bytes() == before
    return output


def test_the_table_has_a_row_for_each_region_and_the_sidecar_declares_it(output):
    table = pd.read_csv(output / f"{TABLE}.tsv", sep="\t")
    assert table["index"].tolist() == list(range(7))
    assert table["name"].tolist() == ["outside all regions", *(f"slab{i}" for i in range(1, 7))]
    assert table["n_voxels"].sum() > 1000
    sidecar = read_sidecar(output / f"{TABLE}.json")
    assert set(table.columns) <= set(sidecar)
    assert sidecar["attribution"]["Units"] == "logit"
    assert (sidecar["Method"], sidecar["Baseline"]) == ("occlusion", "background")
    assert sidecar["Class"] in {"F", "M"}
    assert len(sidecar["ModelSHA256"]) == 64
    assert all(uri.startswith("bids:") for uri in sidecar["Sources"])
    assert sidecar["NumberOfClipsUsed"] == len(sidecar["ClipOnsets"]) == 1


def test_the_map_lies_on_the_runs_own_voxels_with_each_regions_value(made, output):
    image = nib.load(output / f"{MAP}.nii.gz")
    source = nib.load(made / "fmriprep" / f"{P}_desc-preproc_bold.nii.gz")
    assert image.shape == (*source.shape[:3], 1)
    np.testing.assert_allclose(image.affine, source.affine)
    assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(source.affine)
    table = pd.read_csv(output / f"{TABLE}.tsv", sep="\t")
    found = set(np.unique(image.get_fdata(dtype=np.float32)).tolist())
    assert {np.float32(value).item() for value in table["attribution"].dropna()} <= found
    sidecar = read_sidecar(output / f"{MAP}.json")
    assert sidecar["RepetitionTime"] == pytest.approx(float(image.header.get_zooms()[3]))
    assert sidecar["RepetitionTime"] == sidecar["SourceRepetitionTime"]  # not the run's length
    assert sidecar["SkullStripped"] is True
    assert "nearest voxel" in sidecar["Resolution"]


def test_another_atlas_has_a_map_of_its_own(made, output, capsys):
    tables, maps = (
        {
            read_sidecar(path)["Atlas"]: path.name.removesuffix(".json")
            for path in (output / P).parent.glob(f"*{ending}")
        }
        for ending in ("_attribution.json", "Attribution_bold.json")
    )
    names = ("atlas_space-MNI152NLin6Asym_dseg", "halves_space-MNI152NLin6Asym_dseg")
    assert set(tables) == set(maps) == set(names)
    assert maps[names[0]] == MAP.rpartition("/")[2]
    assert maps[names[1]].endswith("_res-8mm_desc-sexHalvesAttribution_bold")
    image = nib.load((output / P).parent / f"{maps[names[1]]}.nii.gz")
    values = pd.read_csv((output / P).parent / f"{tables[names[1]]}.tsv", sep="\t")["attribution"]
    assert set(np.unique(image.get_fdata())) <= {0.0, *np.float32(values).astype(float)}
    how = ["--attribution", "occlusion", "--attribution-clips", "1"]
    assert call(made, output, *how, "--atlas", atlas_of(made)) == 0
    assert "Nothing to do" in capsys.readouterr().err


def test_the_validator_finds_no_error_and_no_warning(output):
    report = subprocess.run(
        [sys.executable, "-c", VALIDATE, "--format", "json", output],
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    assert json.loads(report)["issues"]["issues"] == []


def test_gzip_names_no_file_and_no_time(output):
    for name in (MAP, RESAMPLED):
        head = (output / f"{name}.nii.gz").read_bytes()[:10]
        assert head[3:8] == bytes(5)  # no flags, so no name; no time


def test_a_resampled_run_read_again_is_the_same_run(made, output, tmp_path):
    image = nib.load(output / f"{RESAMPLED}.nii.gz")
    sidecar = read_sidecar(output / f"{RESAMPLED}.json")
    assert sidecar["RepetitionTime"] == pytest.approx(float(image.header.get_zooms()[3]))
    assert image.get_data_dtype() == np.float32
    assert sidecar["NumberOfVolumes"] == image.shape[3] == 40
    again = tmp_path / "again" / "sub-01" / "func"
    again.mkdir(parents=True)
    (tmp_path / "again" / "dataset_description.json").write_text(
        json.dumps({"Name": "again", "BIDSVersion": "1.10.1", "DatasetType": "derivative"})
    )
    stem = "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc_bold"
    nib.save(image, again / f"{stem}.nii.gz")
    (again / f"{stem}.json").write_text(json.dumps({"RepetitionTime": sidecar["RepetitionTime"]}))
    source = made / "fmriprep" / f"{P}_desc-preproc_bold.nii.gz"
    brain = source.with_name(source.name.replace("preproc_bold", "brain_mask"))
    grid = load_model(made / "models" / "sex").grid
    series = grid_run(source, grid, repetition_time_s=2.0, brain_mask=brain)
    assert not np.asarray(image.dataobj)[~series.brain_mask].any()
    mask = nib.Nifti1Image(series.brain_mask.astype(np.uint8), image.affine)
    nib.save(mask, again / f"{stem.replace('preproc_bold', 'brain_mask')}.nii.gz")
    model = str(made / "models" / "sex")
    folders = [str(tmp_path / "again"), str(tmp_path / "out")]
    assert main([*folders, "participant", "--device", "cpu", "--model", model]) == 0
    tables = [
        pd.read_csv(folder / f"{P}_desc-clip_embedding.tsv", sep="\t")
        for folder in (output, tmp_path / "out")
    ]
    np.testing.assert_allclose(*(table.to_numpy() for table in tables), rtol=1e-4, atol=1e-5)


def test_what_is_asked_for_later_is_all_that_is_computed(made, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(made, output) == 0
    before = list_mtimes(output)
    how = ["--attribution", "ig", "--attribution-clips", "1", "--atlas", atlas_of(made)]
    assert call(made, output, *how) == 0
    after = list_mtimes(output)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 4
    sidecar = read_sidecar(output / f"{TABLE}.json")
    assert abs(sidecar["RelativeCompletenessError"]) < 0.2
    table = pd.read_csv(output / f"{TABLE}.tsv", sep="\t")
    assert table["attribution"].sum() == pytest.approx(sidecar["SumOfAttributions"], abs=1e-5)
    capsys.readouterr()
    assert call(made, output, *how) == 0
    assert "Nothing to do" in capsys.readouterr().err
    assert list_mtimes(output) == after
    assert call(made, output, "--write-resampled") == 0
    assert after.items() <= list_mtimes(output).items()
    (output / f"{MAP}.nii.gz").unlink()
    assert call(made, output, *how) == 0
    assert (output / f"{MAP}.nii.gz").is_file()


def test_left_stays_left_from_the_file_to_the_map(made, tmp_path, monkeypatch):
    loaded = load_model(made / "models" / "sex")
    head = HeadConfig(version="v1", n_outputs=1)
    planted = replace(
        loaded,
        backbone=LeftIsRight(loaded.grid),
        head=build_head(head, 1),
        head_config=head,
    )
    monkeypatch.setattr("neurostorm_bids.participant.models.load_model", lambda _: planted)
    for method in ("occlusion", "ig"):
        output = tmp_path / method
        how = ["--attribution", method, "--attribution-clips", "1", "--overwrite"]
        atlas = write_halves(made, tmp_path)
        assert call(made, output, *how, "--atlas", atlas, "--nprocs", "1") == 0
        table = pd.read_csv(next(output.rglob("*_attribution.tsv")), sep="\t").set_index("name")
        assert abs(table.loc["left", "attribution"]) > 1e-4
        assert abs(table.loc["right", "attribution"]) < 1e-6
        image = nib.load(next(output.rglob("*Attribution_bold.nii.gz")))
        values = np.abs(image.get_fdata()[..., 0])
        x_mm = (np.argwhere(values > 1e-12) @ image.affine[:3, :3].T + image.affine[:3, 3])[:, 0]
        assert len(x_mm) > 500
        assert (x_mm < 4 + 1e-6).all()  # half a voxel of the grid across the middle


def write_halves(made, folder):
    """Write an atlas with a left and a right half, its array stored from left to right."""
    source = nib.load(atlas_of(made))
    shape, affine = source.shape, source.affine.copy()
    affine[0] = [-affine[0, 0], 0, 0, affine[0, 3] + affine[0, 0] * (shape[0] - 1)]
    x_mm = np.arange(shape[0]) * affine[0, 0] + affine[0, 3]
    labels = np.where(x_mm < 0, 1, 2).astype(np.uint8)[:, None, None] * np.ones(shape, np.uint8)
    path = folder / "halves_space-MNI152NLin6Asym_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels, affine), path)
    path.with_name("halves_space-MNI152NLin6Asym_dseg.tsv").write_text(
        "index\tname\n1\tleft\n2\tright\n"
    )
    return path


def test_a_pretrained_model_gives_reconstruction_errors(made, tmp_path):
    output = tmp_path / "out"
    how = ["--attribution", "occlusion", "--attribution-clips", "1", "--atlas", atlas_of(made)]
    assert call(made, output, *how, model="pretrained") == 0
    table = pd.read_csv(output / f"{P}_atlas-atlas_desc-reconstruction_attribution.tsv", sep="\t")
    assert table["name"].tolist() == [f"slab{i}" for i in range(1, 7)]
    assert (table["attribution"].dropna() > 0).all()
    assert "relative_error" in table
    sidecar = read_sidecar(output / f"{P}_atlas-atlas_desc-reconstruction_attribution.json")
    assert sidecar["Method"] == "reconstruction"
    assert (output / f"{P}_res-8mm_desc-reconstructionAttribution_bold.nii.gz").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attribution", "ig"], "neither a head that predicts nor a decoder"),
        (["--attribution-clips", "few"], "expected all or a whole number above zero"),
    ],
)
def test_what_cannot_be_attributed_is_refused_before_any_work(
    made, tmp_path, capsys, arguments, message
):
    assert call(made, tmp_path / "out", *arguments, model="demo-encoder") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tsv"))


def test_regions_at_hand_are_taken_without_a_network(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "empty"))
    output = tmp_path / "out"
    assert call(made, output, "--attribution", "ig", "--attribution-clips", "1") == 0
    table = pd.read_csv(output / f"{P}_atlas-Seitzman2018_desc-sex_attribution.tsv", sep="\t")
    assert len(table) == 301
    assert table["attribution"].isna().any()  # spheres between the voxels of a coarse grid
    warnings = read_sidecar(output / f"{P}_atlas-Seitzman2018_desc-sex_attribution.json")
    assert any("Seitzman2018" in text for text in warnings["Warnings"])
