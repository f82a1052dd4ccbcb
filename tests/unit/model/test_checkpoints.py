"""A model file is read by what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.model.checkpoints import read_checkpoint, write_model_folder


def test_a_file_and_the_folder_made_of_it_are_the_same_model(publish, tmp_path):
    published = read_checkpoint(publish())
    write_model_folder(tmp_path / "folder", replace(published, grid={}))
    folder = read_checkpoint(tmp_path / "folder")
    assert (folder.config, folder.head, folder.target) == (
        published.config,
        published.head,
        published.target,
    )
    for name in ("weights", "head_weights"):
        ours, theirs = getattr(folder, name), getattr(published, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())


def test_the_source_is_the_name_unless_another_is_given(publish, tmp_path):
    path = publish()
    write_model_folder(tmp_path / "folder", replace(read_checkpoint(path), grid={}))
    for place, name in ((path, "tiny.ckpt"), (tmp_path / "folder", "folder")):
        assert read_checkpoint(place).provenance.source == name
        address = "hf://owner/repo/file@main"
        assert read_checkpoint(place, source=address).provenance.source == address


def test_a_configuration_for_a_model_folder_is_refused(publish, tmp_path, tiny_config):
    write_model_folder(tmp_path / "folder", replace(read_checkpoint(publish()), grid={}))
    with pytest.raises(UsageError, match="holds its own configuration"):
        read_checkpoint(tmp_path / "folder", config=tiny_config)


def test_what_is_neither_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(MissingFileError, match=r"no config\.json"):
        read_checkpoint(tmp_path / "empty")
    with pytest.raises(MissingFileError, match="No model at"):
        read_checkpoint(tmp_path / "missing.ckpt")
    with pytest.raises(DataError, match="not a zip archive of PyTorch"):
        read_checkpoint(tmp_path / "a.safetensors")
