"""Models ready for use: the numbers of the research code, and what the catalogue may add."""

from __future__ import annotations

import shutil
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch

import neurostorm_bids
from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, TargetSpec
from neurostorm_bids.pretrained import Model, load_model, save_model


@pytest.fixture
def sex(golden):
    return load_model(golden / "official_sex.ckpt")


@pytest.fixture(scope="session")
def clip(golden):
    with np.load(golden / "official_expected.npz") as expected:
        return torch.from_numpy(expected["x_int8"].astype(np.float32) / 32)


@pytest.fixture
def hub_file(monkeypatch, golden):
    """Let every download give the same file of the golden ones."""

    def serve(name):
        def hf_hub_download(*_args, **_kwargs):
            return str(golden / name)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)

    return serve


def run(model, clip):
    with torch.inference_mode():
        return model.head(model.backbone(clip))


@pytest.mark.parametrize("name", ["sex", "age"])
def test_logits_are_those_of_the_research_code(golden, clip, name):
    model = load_model(golden / f"official_{name}.ckpt")
    with np.load(golden / "official_expected.npz") as expected:
        logits = torch.from_numpy(expected[f"{name}_logits"])
    error = (run(model, clip) - logits).abs().max() / logits.abs().max()
    assert error <= 1e-5


@pytest.mark.parametrize("name", ["sex", "age"])
def test_the_files_as_the_research_code_wrote_them_give_its_logits(shared, name):
    with np.load(shared / "golden" / f"official_{name}_expected.npz") as expected:
        clips = torch.from_numpy(expected["x_int8"].astype(np.float32) / 32)
        logits = torch.from_numpy(expected["logits"])
    model = load_model(shared / "golden" / f"official_{name}.ckpt")
    assert (run(model, clips) - logits).abs().max() <= 1e-5 * logits.abs().max()


def test_an_autoencoder_of_the_research_code_gives_its_encoder(shared):
    model = load_model(shared / "golden" / "official_mae.ckpt")
    assert model.head is None
    assert model.target is None
    with torch.inference_mode():
        assert model.backbone(torch.zeros(1, 1, 24, 24, 24, 8)).shape == (1, 64, 1, 1, 1, 8)


def test_a_loaded_model_is_ready_for_use(sex, clip):
    assert not sex.backbone.training
    assert not sex.head.training
    assert all(parameter.requires_grad for parameter in sex.backbone.parameters())
    assert sex.clip_length == 8
    assert sex.grid == GridSpec.published(24)
    assert sex.backbone(clip).shape == (1, 64, 1, 1, 1, 8)


def test_the_package_offers_the_loader(golden):
    assert neurostorm_bids.load_model(str(golden / "official_sex.ckpt")).target.name == "sex"


@pytest.mark.parametrize("name", ["sex", "age"])
def test_a_saved_model_comes_back_as_it_was(golden, tmp_path, clip, name):
    model = load_model(golden / f"official_{name}.ckpt")
    save_model(model, tmp_path / "folder")
    again = load_model(tmp_path / "folder")
    assert torch.equal(run(again, clip), run(model, clip))
    for field in ("config", "head_config", "grid", "target"):
        assert getattr(again, field) == getattr(model, field)
    assert str(golden) not in (tmp_path / "folder" / "config.json").read_text()


def test_a_model_made_in_memory_can_be_saved(tmp_path, sex):
    model = Model(
        config=sex.config,
        head_config=None,
        backbone=Backbone(sex.config),
        head=None,
        grid=sex.grid,
        target=None,
        provenance=replace(sex.provenance, sha256="", format="folder", notes=()),
    )
    save_model(model, str(tmp_path / "encoder"))
    again = load_model(tmp_path / "encoder")
    assert again.head is None
    assert again.provenance.notes == ()
    with pytest.raises(UsageError, match="no head"):
        load_model(tmp_path / "encoder", target=sex.target)


def test_a_target_given_by_hand_stands_in(golden):
    age = TargetSpec(name="age", kind="regression", unit="years", mean=28.2, sd=5.0)
    assert load_model(golden / "official_age.ckpt", target=age).target == age


def test_a_path_gets_nothing_from_the_catalogue(golden, tmp_path, monkeypatch):
    shutil.copy(golden / "official_age.ckpt", tmp_path / "neurostorm_hcpya_age.ckpt")
    shutil.copy(golden / "official_age.ckpt", tmp_path / "neurostorm-hcpya-age")
    monkeypatch.chdir(tmp_path)
    for name in ("neurostorm_hcpya_age.ckpt", "neurostorm-hcpya-age"):
        model = load_model(name)
        assert model.target == TargetSpec(name="age", kind="regression")
        assert model.provenance.source == name


@pytest.mark.parametrize(
    "name",
    [
        "neurostorm-hcpya-age",
        "hf://zxcvb20001/NeuroSTORM/task1/neurostorm_hcpya_age.ckpt@main",
        "hf://zxcvb20001/NeuroSTORM/task1/neurostorm_hcpya_age.ckpt",
    ],
)
def test_a_name_gets_its_target_and_its_licence_from_the_catalogue(hub_file, name):
    hub_file("official_age.ckpt")
    model = load_model(name)
    assert (model.target.mean, model.target.sd, model.target.unit) == (28.7593, 3.6815, "years")
    assert model.provenance.source.endswith("task1/neurostorm_hcpya_age.ckpt@main")
    assert "licence MIT" in model.provenance.notes[-1]
    assert len(model.provenance.sha256) == 64


def test_a_kept_model_does_not_claim_what_nobody_checked(golden, sex, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORM_MODELS", str(tmp_path))
    shutil.copy(golden / "official_age.ckpt", tmp_path / "neurostorm-hcpya-age.ckpt")
    file = load_model("neurostorm-hcpya-age")
    assert file.provenance.source == "neurostorm-hcpya-age.ckpt"
    assert "no checksum" in file.provenance.notes[-1]
    save_model(sex, tmp_path / "neurostorm-hcpya-sex")
    folder = load_model("neurostorm-hcpya-sex")
    assert folder.provenance.source == "neurostorm-hcpya-sex"
    assert "catalogue" not in " ".join(folder.provenance.notes)


def test_another_address_gets_nothing_from_the_catalogue(hub_file):
    hub_file("official_age.ckpt")
    address = "hf://somebody/else/task1/neurostorm_hcpya_age.ckpt@v2"
    model = load_model(address)
    assert model.target.mean is None
    assert model.provenance.source == address


def test_a_hand_given_target_goes_before_the_catalogue(hub_file):
    hub_file("official_age.ckpt")
    age = TargetSpec(name="age", kind="regression", unit="months", mean=340.0, sd=40.0)
    assert load_model("neurostorm-hcpya-age", target=age).target == age


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(MissingFileError, match=r"No model 'nowhere\.ckpt'"):
        load_model("nowhere.ckpt")


@pytest.mark.parametrize("clip_length", [4, 16])
def test_clips_of_another_length(golden, clip_length):
    model = load_model(golden / "official_sex.ckpt", clip_length=clip_length)
    assert model.clip_length == clip_length
    assert f"for {clip_length} volumes" in model.provenance.notes[-1]
    x = torch.zeros(1, 1, 24, 24, 24, clip_length)
    assert run(model, x).shape == (1, 1)


def test_a_shorter_clip_length_gives_what_a_shorter_clip_gives(golden, sex, clip):
    short = load_model(golden / "official_sex.ckpt", clip_length=6)
    assert torch.equal(run(short, clip[..., :6]), run(sex, clip[..., :6]))


def test_a_grid_given_by_hand_must_have_the_models_shape(golden, tmp_path):
    affine = ((2.0, 0, 0, -24), (0, 2, 0, -24), (0, 0, 2, -24), (0, 0, 0, 1))
    grid = GridSpec(
        space="MNI152NLin2009cAsym", shape=(24, 24, 24), affine=affine, repetition_time_s=1.5
    )
    model = load_model(golden / "official_sex.ckpt", grid=grid)
    assert model.grid == grid
    save_model(model, tmp_path / "folder")
    assert load_model(tmp_path / "folder").grid == grid
    with pytest.raises(DataError, match=r"reads \(24, 24, 24\) voxels"):
        load_model(golden / "official_sex.ckpt", grid=GridSpec.published(48))


def test_saving_is_refused_for_a_target_that_does_not_fit(tmp_path, sex):
    sex.target = TargetSpec(name="age", kind="regression")
    with pytest.raises(DataError, match="does not fit the head"):
        save_model(sex, tmp_path / "folder")
    sex.head_config = HeadConfig(version="regression", n_outputs=1)
    save_model(sex, tmp_path / "folder")
    assert load_model(tmp_path / "folder").target.name == "age"
