"""The package's own model folder: what is written comes back, all of it or nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neurostorm_bids.errors import DataError, MissingFileError, OutputError, UsageError
from neurostorm_bids.model import folder as module
from neurostorm_bids.model.assessment import Calibration
from neurostorm_bids.model.calibration import ConformalSets, Novelty, Temperature
from neurostorm_bids.model.config import TargetSpec
from neurostorm_bids.model.digest import digest_file
from neurostorm_bids.model.folder import read_model_folder, write_model_folder
from neurostorm_bids.model.published import read_published
from neurostorm_bids.model.weights import fit_clip_length

GRID = {"space": "MNI152NLin6Asym", "shape": [16, 16, 16]}


@pytest.fixture
def checkpoint(publish):
    return replace(read_published(publish()), grid=GRID)


@pytest.fixture
def written(tmp_path, checkpoint):
    write_model_folder(tmp_path / "model", checkpoint)
    return tmp_path / "model"


def rewrite(folder, *, tensors=None, **values):
    """Change a folder by hand, its digest too."""
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
        values["weights"] = {"sha256": digest_file(folder / "model.safetensors")}
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def assert_equal(found, expected):
    for name in ("config", "head", "target", "grid"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("weights", "head_weights", "decoder_weights"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_is_written_comes_back(checkpoint, written):
    assert_equal(read_model_folder(written), checkpoint)
    assert sorted(path.name for path in written.iterdir()) == [
        "MODEL.md",
        "config.json",
        "model.safetensors",
    ]


def test_an_autoencoder_comes_back_with_its_decoder(
    tmp_path, publish, tiny_autoencoder_state, tiny_hyper
):
    path = publish(state=tiny_autoencoder_state, hyper={**tiny_hyper, "pretraining": True})
    checkpoint = replace(read_published(path), grid=GRID)
    write_model_folder(tmp_path / "model", checkpoint)
    assert checkpoint.decoder_weights
    assert_equal(read_model_folder(tmp_path / "model"), checkpoint)


def test_the_mask_of_an_autoencoder_is_kept(tmp_path, publish, tiny_autoencoder_state, tiny_hyper):
    hyper = {**tiny_hyper, "pretraining": True, "spatial_mask": "atlas", "time_mask": "tube"}
    path = publish(state=tiny_autoencoder_state, hyper=hyper)
    checkpoint = replace(read_published(path), grid=GRID)
    assert checkpoint.mask_scheme == "atlas/tube"
    write_model_folder(tmp_path / "model", checkpoint)
    assert read_model_folder(tmp_path / "model").mask_scheme == "atlas/tube"
    rewrite(tmp_path / "model", mask="sphere/once")
    with pytest.raises(DataError, match="as mask of a pretrained model"):
        read_model_folder(tmp_path / "model")


def test_a_folder_without_a_decoder_names_no_mask(written):
    assert "mask" not in json.loads((written / "config.json").read_text())
    assert read_model_folder(written).mask_scheme is None


def test_the_source_of_the_weights_is_kept(checkpoint, written):
    provenance = read_model_folder(written).provenance
    assert provenance.name == provenance.source == "model"
    assert provenance.format == "folder"
    assert provenance.sha256 == digest_file(written / "model.safetensors")
    assert provenance.notes == (
        *checkpoint.provenance.notes,
        f"Made from tiny.ckpt (SHA-256 {checkpoint.provenance.sha256}).",
    )


def test_writing_twice_gives_the_same_bytes(tmp_path, checkpoint, written):
    write_model_folder(tmp_path / "again", checkpoint)
    for path in written.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_card_says_what_the_model_is_and_where_it_comes_from(tmp_path, checkpoint):
    age = TargetSpec(name="age", kind="regression", unit="years", mean=40.0, sd=12.5)
    head = replace(checkpoint.head, version="regression")
    write_model_folder(tmp_path / "age", replace(checkpoint, head=head, target=age))
    card = (tmp_path / "age" / "MODEL.md").read_text()
    for part in (
        "age in years; in training its mean was 40, its standard deviation 12.5",
        "tiny.ckpt",
        checkpoint.provenance.sha256,
        digest_file(tmp_path / "age" / "model.safetensors"),
        "MNI152NLin6Asym",
        "Clips of 4 volumes",
        "MIT licence",
    ):
        assert part in card
    assert str(tmp_path) not in card


def test_nothing_but_an_empty_folder_is_written_into(tmp_path, checkpoint, written):
    (tmp_path / "empty").mkdir()
    write_model_folder(tmp_path / "empty", checkpoint)
    assert_equal(read_model_folder(tmp_path / "empty"), checkpoint)

    before = digest_file(written / "config.json")
    with pytest.raises(OutputError, match="is there already"):
        write_model_folder(written, checkpoint)
    assert digest_file(written / "config.json") == before


def test_a_model_folder_is_replaced_when_asked(checkpoint, written):
    target = TargetSpec(name="sex", kind="classification", classes=("F", "M"))
    write_model_folder(written, replace(checkpoint, target=target), overwrite=True)
    assert read_model_folder(written).target == target
    assert [path.name for path in written.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("stranger", ["notes.txt", "sub-01"])
def test_a_folder_with_anything_else_is_never_replaced(checkpoint, written, stranger):
    (written / stranger).write_text("mine")
    with pytest.raises(OutputError, match="not a model folder"):
        write_model_folder(written, checkpoint, overwrite=True)
    assert (written / stranger).read_text() == "mine"


def test_a_file_in_the_way_is_never_replaced(tmp_path, checkpoint):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(OutputError, match="not a model folder"):
        write_model_folder(tmp_path / "model", checkpoint, overwrite=True)


@pytest.mark.parametrize("step", ["save", "write_card", "digest_file"])
def test_a_failure_leaves_what_was_there(monkeypatch, checkpoint, written, step):
    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    before = {path.name: path.read_bytes() for path in written.iterdir()}
    monkeypatch.setattr(module, step, fail)
    with pytest.raises(OutputError, match="disk full"):
        write_model_folder(written, checkpoint, overwrite=True)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert not [path for path in written.parent.iterdir() if path.name.startswith(".")]


def test_a_folder_that_stepped_aside_comes_back(monkeypatch, checkpoint, written):
    rename = Path.rename

    def fail_at_the_last_step(path, other):
        if path.name.endswith(".tmp"):
            raise OSError("disk full")
        return rename(path, other)

    before = {path.name: path.read_bytes() for path in written.iterdir()}
    monkeypatch.setattr(Path, "rename", fail_at_the_last_step)
    with pytest.raises(OutputError, match="disk full"):
        write_model_folder(written, checkpoint, overwrite=True)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert not [path for path in written.parent.iterdir() if path.name.startswith(".")]


def test_the_folder_one_stands_in_can_be_written(monkeypatch, tmp_path, checkpoint):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_model_folder(Path(), checkpoint)
    assert_equal(read_model_folder(tmp_path / "here"), checkpoint)


def test_weights_that_are_not_finite_are_not_written(tmp_path, checkpoint):
    weights = dict(checkpoint.weights)
    weights["patch_embed.fc.bias"] = torch.full((4,), float("nan"))
    with pytest.raises(DataError, match="NaN or infinite"):
        write_model_folder(tmp_path / "model", replace(checkpoint, weights=weights))
    assert not (tmp_path / "model").exists()


def test_a_folder_without_a_grid_is_not_written(tmp_path, checkpoint):
    with pytest.raises(UsageError, match="Give the grid"):
        write_model_folder(tmp_path / "model", replace(checkpoint, grid=None))


def test_a_target_given_by_hand_stands_in(written):
    target = TargetSpec(name="gender", kind="classification", classes=("F", "M"))
    assert read_model_folder(written, target=target).target == target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the configuration"),
        ({"format_version": 2}, "Install the version"),
        ({"more": 1}, "expected the keys"),
        ({"model": {"embed_dim": 4}}, "missing"),
        ({"model": None}, "expected named values"),
        ({"target": None}, "a head and no target"),
        ({"target": {"name": "age", "kind": "regression"}}, "does not fit the head"),
        ({"grid": "2mm"}, "as grid"),
        ({"provenance": {}}, "missing"),
        ({"weights": {"sha256": "0" * 64}}, "not the file that config.json was written with"),
        ({"head": {"version": "v9", "n_outputs": 1}}, "as version"),
    ],
)
def test_a_configuration_of_another_kind_is_refused(written, change, message):
    rewrite(written, **change)
    with pytest.raises(DataError, match=message):
        read_model_folder(written)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 10_000, '{"a": ' * 100_000, " " * 2**21])
def test_a_configuration_that_is_no_json_is_refused(written, text):
    (written / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json is not"):
        read_model_folder(written)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()
    with pytest.raises(MissingFileError, match=f"not a model folder: it has no {name}"):
        read_model_folder(written)


def test_weights_must_be_exactly_those_of_the_configuration(written):
    tensors = load_file(written / "model.safetensors")
    tensors["backbone.extra"] = tensors.pop("backbone.patch_embed.fc.bias")
    rewrite(written, tensors=tensors)
    with pytest.raises(DataError, match=r"missing backbone\.patch_embed.*unexpected backbone\.ex"):
        read_model_folder(written)


def test_a_decoder_must_be_whole(written):
    tensors = load_file(written / "model.safetensors")
    rewrite(written, tensors=tensors | {"decoder.norm_up.bias": torch.ones(4)})
    with pytest.raises(DataError, match=r"missing decoder\.decoder_pred"):
        read_model_folder(written)


@pytest.mark.parametrize("damage", ["cut", "header", "huge header"])
def test_damaged_weights_are_refused(written, damage):
    path = written / "model.safetensors"
    raw = path.read_bytes()
    raw = {
        "cut": raw[:-4],
        "header": raw[:8] + b"x" * 20 + raw[28:],
        "huge header": b"\xff" * 7 + b"\x7f" + raw[8:],
    }[damage]
    path.write_bytes(raw)
    rewrite(written, weights={"sha256": digest_file(path)})
    with pytest.raises(DataError, match="is damaged"):
        read_model_folder(written)


def test_the_weights_may_be_read_by_whom_the_umask_lets(tmp_path, checkpoint):
    before = os.umask(0o022)
    try:
        write_model_folder(tmp_path / "shared", checkpoint)
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "shared").iterdir()}
    assert set(rights.values()) == {0o644}, rights


@pytest.fixture
def calibrated(checkpoint):
    size = checkpoint.config.n_features
    rng = np.random.default_rng(0)
    calibration = Calibration(
        temperature=Temperature(value=1.5, n_participants=30),
        conformal=ConformalSets(coverage=0.9, threshold=0.6, n_participants=30),
        novelty=Novelty(
            mean=rng.standard_normal(size),
            whitening=rng.standard_normal((size, size)),
            reference=np.array([0.5, 0.9, 1.0, 1.8]),
        ),
    )
    return replace(checkpoint, calibration=calibration)


@pytest.fixture
def with_calibration(tmp_path, calibrated):
    write_model_folder(tmp_path / "calibrated", calibrated)
    return tmp_path / "calibrated"


def test_a_calibration_comes_back(calibrated, with_calibration):
    found, expected = read_model_folder(with_calibration), calibrated
    assert_equal(found, expected)
    found, expected = found.calibration, expected.calibration
    assert found.temperature == expected.temperature
    assert found.conformal == expected.conformal
    for name in ("mean", "whitening", "reference"):
        ours, theirs = getattr(found.novelty, name), getattr(expected.novelty, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_folder_without_a_calibration_does_not_name_one(written):
    assert "calibration" not in json.loads((written / "config.json").read_text())
    assert read_model_folder(written).calibration is None


def test_a_calibration_without_novelty_has_no_tensors(tmp_path, calibrated):
    calibration = replace(calibrated.calibration, novelty=None)
    write_model_folder(tmp_path / "model", replace(calibrated, calibration=calibration))
    assert read_model_folder(tmp_path / "model").calibration.novelty is None
    keys = load_file(tmp_path / "model" / "model.safetensors").keys()
    assert not [key for key in keys if key.startswith("novelty.")]


def test_outputs_for_another_target_are_not_calibrated(calibrated, with_calibration):
    target = replace(calibrated.target, name="another")
    found = read_model_folder(with_calibration, target=target)
    assert found.calibration.conformal is None
    assert found.calibration.temperature is None
    assert found.calibration.novelty is not None
    assert "made for another target" in found.provenance.notes[-1]
    same = read_model_folder(with_calibration, target=calibrated.target)
    assert same.calibration.conformal == calibrated.calibration.conformal


def test_clips_of_another_length_are_not_calibrated(calibrated):
    fitted = fit_clip_length(calibrated, 2)
    assert fitted.calibration is None
    assert "The calibration is left out" in fitted.provenance.notes[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"novelty": None},
        {"novelty": 3},
        {"novelty": "many"},
        {"temperature": {"value": 1e9, "n_participants": 3}},
        {"sets": None, "intervals": {"coverage": 0.9, "half_width": 1.0, "n_participants": 9}},
        {"unknown": None},
    ],
)
def test_a_damaged_calibration_is_refused(with_calibration, changes):
    values = json.loads((with_calibration / "config.json").read_text())["calibration"]
    rewrite(with_calibration, calibration=values | changes)
    with pytest.raises(DataError):
        read_model_folder(with_calibration)


@pytest.mark.parametrize("change", ["falling", "missing", "infinite", "of another size"])
def test_damaged_statistics_of_embeddings_are_refused(with_calibration, change):
    tensors = load_file(with_calibration / "model.safetensors")
    if change == "falling":
        tensors["novelty.reference"] = tensors["novelty.reference"].flip(0).contiguous()
    elif change == "missing":
        del tensors["novelty.mean"]
    elif change == "infinite":
        tensors["novelty.whitening"][0, 0] = torch.inf
    else:
        tensors["novelty.mean"] = torch.zeros(3)
    rewrite(with_calibration, tensors=tensors)
    with pytest.raises(DataError, match=r"do not rise|missing novelty|infinite|another shape"):
        read_model_folder(with_calibration)
