"""Shared files tell no path of this machine and no user's name."""

from __future__ import annotations

import sys

import pytest

from neurostorm_bids.derivatives.conceal import (
    conceal_options,
    conceal_paths,
    list_known_folders,
)

KNOWN = {"/scratch/jdoe/prep": "<fmriprep>", "/scratch/jdoe/out": "<output>", "/home/jdoe": "~"}


@pytest.mark.parametrize(
    ("text", "concealed"),
    [
        (
            "No sidecar for /scratch/jdoe/prep/sub-01/a.nii.gz.",
            "No sidecar for <fmriprep>/sub-01/a.nii.gz.",
        ),
        ("in /scratch/jdoe/prep: x", "in <fmriprep>: x"),
        ("/scratch/jdoe/prep2/sub-01", ".../sub-01"),
        ("'/scratch/jdoe/other/model.ckpt'", "'.../model.ckpt'"),
        ("/home/jdoe/models/base", "~/models/base"),
        ("../../jdoe/models/base", ".../base"),
        ("models/base", "models/base"),
        ("a=/scratch/jdoe/x,b", "a=.../x,b"),
        ("hf://owner/repo/file@main", "hf://owner/repo/file@main"),
        ("https://doi.org/10.1/x", "https://doi.org/10.1/x"),
        ("bids:fmriprep:sub-01/func/a", "bids:fmriprep:sub-01/func/a"),
        ("sub-01/func/a, 2 mm/s and/or", "sub-01/func/a, 2 mm/s and/or"),
    ],
)
def test_known_folders_are_named_and_other_paths_cut(text, concealed):
    assert conceal_paths(text, KNOWN) == concealed


def test_options_are_concealed_wherever_paths_stand():
    options = {
        "bids_dir": "/scratch/jdoe/prep",
        "models": ["/home/jdoe/a b.ckpt", "base"],
        "selection": {"filter_file": "/scratch/jdoe/f.json", "space": None},
        "nprocs": 2,
    }
    assert conceal_options(options, KNOWN) == {
        "bids_dir": "<fmriprep>",
        "models": ["~/a b.ckpt", "base"],
        "selection": {"filter_file": ".../f.json", "space": None},
        "nprocs": 2,
    }


def test_the_folders_of_a_call_are_known(tmp_path, make_dataset, monkeypatch):
    monkeypatch.setenv("HOME", "/home/jdoe")
    known = list_known_folders(tmp_path / "out", tmp_path, [make_dataset(tmp_path / "prep")])
    assert known[str(tmp_path / "prep")] == "<fmriprep>"
    assert known[str(tmp_path / "out")] == "<output>"
    assert known[str(tmp_path)] == "<bids>"
    assert known["/home/jdoe"] == "~"
    assert known[sys.prefix] == "<python>"


@pytest.mark.parametrize("home", ["", "/"])
def test_a_home_that_is_the_root_names_nothing(tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    assert "/" not in list_known_folders(tmp_path, tmp_path, [])


def test_a_dataset_that_is_bids_dir_itself_goes_by_its_name(tmp_path, make_dataset):
    known = list_known_folders(tmp_path / "out", tmp_path, [make_dataset(tmp_path)])
    assert known[str(tmp_path)] == "<fmriprep>"
