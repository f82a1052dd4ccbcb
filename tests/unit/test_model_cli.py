"""The command neurostorm-model: what it prints and writes, and with which status it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from neurostorm_bids.model.hub import read_catalogue
from neurostorm_bids.model_cli import main, run
from neurostorm_bids.pretrained import load_model


@pytest.fixture
def age(golden):
    return str(golden / "official_age.ckpt")


@pytest.fixture
def without_hyper(golden, tmp_path):
    """Return a file that does not say what its weights are, and its configuration as JSON."""
    contents = torch.load(golden / "official_age.ckpt", weights_only=True)
    torch.save({"state_dict": contents["state_dict"]}, tmp_path / "bare.ckpt")
    config = load_model(golden / "official_age.ckpt").config
    (tmp_path / "sizes.json").write_text(json.dumps(config.to_dict()))
    return str(tmp_path / "bare.ckpt"), str(tmp_path / "sizes.json")


def test_show_says_what_a_file_is(capsys, age):
    assert main(["show", age]) == 0
    said = capsys.readouterr().out
    for part in (
        "official_age: an encoder with a head for age (regression)",
        "format: published",
        "embed_dim: 8",
        "MNI152NLin6Asym",
        "backbone: 122",
        "neither mean nor deviation of age",
        "sha256: ",
    ):
        assert part in said


def test_show_speaks_json(capsys, age):
    assert main(["show", age, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    model = load_model(age)
    assert about["model"] == model.config.to_dict()
    assert about["head"] == model.head_config.to_dict()
    assert about["target"] == model.target.to_dict()
    assert about["grid"] == model.grid.to_dict()
    assert about["sha256"] == model.provenance.sha256
    assert about["parameters"]["head"] == 65


def test_show_knows_a_folder_too(capsys, tmp_path, age):
    assert main(["convert", age, str(tmp_path / "folder")]) == 0
    assert main(["show", str(tmp_path / "folder")]) == 0
    said = capsys.readouterr().out
    assert "format: folder" in said
    assert "Made from official_age.ckpt" in said


def test_show_lists_the_catalogue(capsys):
    assert main(["show"]) == 0
    said = capsys.readouterr().out
    assert main(["show", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed.keys() == read_catalogue().keys()
    for name, about in listed.items():
        assert f"{name}\n  {about['description']}\n  hf://" in said


def test_convert_writes_a_folder_with_the_target_that_was_given(capsys, tmp_path, age):
    folder = tmp_path / "age"
    scale = ["--mean", "28.2", "--sd", "4.97", "--unit", "years"]
    assert main(["convert", age, str(folder), *scale]) == 0
    assert f"Wrote {folder}" in capsys.readouterr().out
    target = load_model(folder).target
    assert (target.name, target.mean, target.sd, target.unit) == ("age", 28.2, 4.97, "years")
    weights = load_model(age).backbone.state_dict()
    for key, value in load_model(folder).backbone.state_dict().items():
        assert torch.equal(value, weights[key])


def test_convert_names_classes(golden, tmp_path):
    path = str(golden / "official_sex.ckpt")
    assert main(["convert", path, str(tmp_path / "sex"), "--classes", "F, M"]) == 0
    assert load_model(tmp_path / "sex").target.classes == ("F", "M")


def test_convert_fits_another_clip_length(tmp_path, age):
    assert main(["convert", age, str(tmp_path / "long"), "--clip-length", "16"]) == 0
    assert load_model(tmp_path / "long").clip_length == 16


def test_convert_keeps_the_decoder_of_an_autoencoder(capsys, shared, tmp_path):
    path = str(shared / "golden" / "official_mae.ckpt")
    assert main(["convert", path, str(tmp_path / "mae")]) == 0
    capsys.readouterr()
    assert main(["show", path, "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert main(["show", str(tmp_path / "mae"), "--json"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert after["parameters"] == before["parameters"]
    assert after["parameters"]["decoder"] > 50_000


def test_convert_replaces_a_folder_only_when_asked(capsys, tmp_path, age):
    assert main(["convert", age, str(tmp_path / "a")]) == 0
    assert main(["convert", age, str(tmp_path / "a")]) == 73
    assert "is there already" in capsys.readouterr().err
    assert main(["convert", age, str(tmp_path / "a"), "--overwrite"]) == 0


def test_a_file_that_does_not_say_what_it_is_needs_to_be_told(capsys, tmp_path, without_hyper):
    path, sizes = without_hyper
    folder = str(tmp_path / "folder")
    assert main(["convert", path, folder]) == 65
    assert "--config SIZES.json" in capsys.readouterr().err
    assert main(["convert", path, folder, "--config", sizes]) == 65
    assert "--target-name NAME --target-kind" in capsys.readouterr().err
    target = ["--target-name", "age", "--target-kind", "regression"]
    assert main(["convert", path, folder, "--config", sizes, *target]) == 0
    assert load_model(folder).target.name == "age"


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (["show", "missing.ckpt"], (66, "No model 'missing.ckpt'")),
        (["show", "hf://bad"], (2, "not the address of a file")),
        (["show", __file__], (65, "not a zip archive of PyTorch")),
        (["convert"], (2, "Missing argument 'MODEL'")),
        (["shew"], (2, "No such command")),
        (["convert", "AGE", "OUT", "--mean", "3"], (65, "mean and deviation go together")),
        (["convert", "AGE", "OUT", "--classes", "a,b"], (65, "has no classes")),
        (["convert", "AGE", "OUT", "--target-kind", "regression"], (2, "--target-name")),
        (["convert", "AGE", "OUT", "--config", "missing.json"], (66, "found nothing there")),
        (["convert", "AGE", "OUT", "--config", __file__], (65, "Expected JSON")),
        (["convert", "AGE", "OUT", "--clip-length", "0"], (2, "--clip-length")),
    ],
)
def test_mistakes_end_with_a_sentence_and_a_status(capsys, tmp_path, age, arguments, ending):
    status, message = ending
    places = {"AGE": age, "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in arguments]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_target_for_an_encoder_alone_is_refused(capsys, golden, tmp_path):
    contents = torch.load(golden / "official_sex.ckpt", weights_only=True)
    contents["hyper_parameters"]["pretraining"] = True
    torch.save(contents, tmp_path / "encoder.ckpt")
    path, folder = str(tmp_path / "encoder.ckpt"), str(tmp_path / "out")
    assert main(["convert", path, folder, "--classes", "F,M"]) == 2
    assert "has no head" in capsys.readouterr().err


def test_the_process_ends_with_the_status(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["neurostorm-model", "show", "missing.ckpt"])
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 66


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\n"
        "from neurostorm_bids.model_cli import main\n"
        "assert main(['--help']) == 0\n"
        "assert main(['convert', '--help']) == 0\n"
        "assert main(['show']) == 0\n"
        "assert not {'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hf://owner/repository/file@revision" in done.stdout
