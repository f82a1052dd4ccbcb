"""What a call keeps of models and regions, and the next one reads anew."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import click
import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.commands import participant as level
from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.options import ParticipantOptions, TargetScale
from neurostorm_bids.participant import connectivity, extras, kept, models


@pytest.fixture
def loaded(monkeypatch):
    """Count what is loaded; every model is a new one."""
    names = []

    def load(name):
        names.append(name)
        return SimpleNamespace(target=None, head=None, backbone=SimpleNamespace(to=lambda _: None))

    monkeypatch.setattr(models, "load_model", load)
    monkeypatch.setattr(models.torch, "set_num_threads", lambda _: None)
    kept.forget()
    yield names
    kept.forget()


def test_a_call_loads_its_models_once_wherever_it_writes(loaded, tmp_path):
    options = ParticipantOptions(bids_dir=tmp_path, output_dir=tmp_path, models=("a",))
    first = models.load_models(options)
    assert models.load_models(replace(options, output_dir=tmp_path / "universe")) is first
    assert loaded == ["a"]
    assert models.load_models(replace(options, precision="bf16")) is not first
    scaled = replace(options, target_scales=(TargetScale(name="x", mean=0, sd=1),))
    with pytest.raises(UsageError, match="--target-scale names x"):
        models.load_models(scaled)


def test_the_next_call_loads_them_anew(loaded, tmp_path, monkeypatch, capsys):
    def run(options):
        for _ in range(2):
            models.load_models(options)
        raise DataError("no more")

    monkeypatch.setattr("neurostorm_bids.participant.run_participant_level", run)
    for n_calls in (1, 2):
        words = [str(tmp_path), str(tmp_path / "out"), "participant", "--model", "a"]
        assert main([*words, "--device", "cpu"]) == DataError.exit_status
        assert loaded == ["a"] * n_calls
    assert "no more" in capsys.readouterr().err


def test_an_atlas_that_was_edited_is_read_anew_by_the_next_call(tmp_path):
    path = tmp_path / "atlas.nii"
    space = "MNI152NLin6Asym"
    found = []
    for label in (1, 2):
        labels = np.zeros((3, 3, 3), np.int16)
        labels[1, 1, 1] = label
        nib.save(nib.Nifti1Image(labels, np.diag([2, 2, 2, 1])), path)
        with click.Context(click.Command("x")) as ctx:
            ctx.call_on_close(level._forget)
            regions = extras.find_regions(space, str(path))
            assert extras.find_regions(space, str(path)) is regions
            parcellation = connectivity._load_parcellation(str(path), space)
            found.append((extras.digest_regions(regions), *parcellation.names))
    assert found[0][1:] == ("region 1",)
    assert found[1][1:] == ("region 2",)
    assert found[0][0] != found[1][0]
