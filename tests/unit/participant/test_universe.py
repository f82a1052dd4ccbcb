"""A folder for each configuration."""

from __future__ import annotations

import json
from types import SimpleNamespace

import click
import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.cli import command
from neurostorm_bids.commands import cluster
from neurostorm_bids.commands.configuration import ONLY_TYPED, list_configuration, name_option
from neurostorm_bids.commands.levels import belongs_to, keep_those_of
from neurostorm_bids.commands.participant import read_options
from neurostorm_bids.errors import MissingFileError
from neurostorm_bids.participant import universe

DECIDING = {
    *("model", "space", "denoise", "fd-threshold", "dummy-scans", "warp", "precision"),
    *("attribution", "attribution-baseline", "attribution-clips", "atlas", "connectivity"),
    *("target-scale", "write-resampled"),
}


@pytest.fixture
def name(monkeypatch):
    """Return the folder's name for options as they are typed."""

    def name(*words, sha256="ab", more=()):
        model = SimpleNamespace(provenance=SimpleNamespace(sha256=sha256))
        monkeypatch.setattr(universe, "load_models", lambda _: (model,))
        ctx = click.Context(command)
        command.parse_args(ctx, [*words, "--", "in", "out", "participant"])
        given = keep_those_of("participant", ctx)
        others = ("analysis_level", "verbose", "config_file", "dry_run", "resource_monitor")
        others += ("output_layout", "drop_after", *cluster.NAMES)
        for other in others:
            given.pop(other, None)
        configuration = list_configuration(ctx, ["participant"]) | dict(more)
        with ctx:
            return universe.name_universe(read_options(given), configuration)

    return name


def write_atlas(path, label):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), label, np.int16), np.eye(4)), path)
    return str(path)


def test_what_decides_the_results_decides_the_folder(name):
    base = name("--denoise=simple")
    assert base == name("--denoise=simple")
    others = {name("--denoise=compcor"), name("--denoise=simple", sha256="cd"), name(), base}
    assert len(others) == 4
    assert all(other.startswith("neurostorm-") for other in others)


def test_who_is_read_and_how_work_is_done_does_not(name):
    plain = name("--denoise=simple", "--model=/here/a.ckpt")
    words = ("--participant-label=01", "--nprocs=3", "--debug", "--drop-after", "--wait")
    assert plain == name("--denoise=simple", "--model=/there/a.ckpt", *words)


def test_an_option_that_nobody_thought_of_makes_another_folder(name):
    assert name() != name(more=[("new-option", 1)])


def test_other_words_for_the_same_come_to_the_same_folder(name):
    assert name("--denoise=Simple") == name("--denoise=simple")
    assert name("--denoise=none") == name()
    assert name("--fd-threshold=0.50") == name("--fd-threshold=.5")
    assert name("--target-scale=age=28,3.5") == name("--target-scale=age=28.0,3.50")
    assert name("--target-scale=age=28,3.5") != name("--target-scale=age=28,3.6")


def test_a_file_of_confounds_counts_by_what_it_holds(name, tmp_path):
    path, copy = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text(json.dumps({"strategy": ["motion"], "motion": "basic"}))
    copy.write_text(json.dumps({"motion": "basic", "strategy": ["motion"]}))
    before = name(f"--denoise={path}")
    assert before == name(f"--denoise={copy}")
    path.write_text(json.dumps({"strategy": ["motion"], "motion": "full"}))
    assert name(f"--denoise={path}") != before


@pytest.mark.parametrize("option", ["--atlas", "--connectivity"])
def test_an_atlas_counts_by_its_image_and_the_names_beside_it(name, tmp_path, option):
    (tmp_path / "copy").mkdir()
    path = write_atlas(tmp_path / "my.nii", 1)
    first = name(f"{option}={path}")
    assert first == name(f"{option}={write_atlas(tmp_path / 'copy' / 'my.nii', 1)}")
    write_atlas(tmp_path / "my.nii", 2)
    second = name(f"{option}={path}")
    (tmp_path / "my.tsv").write_text("index\tname\n2\tV1\n")
    assert len({first, second, name(f"{option}={path}"), name()}) == 4
    with pytest.raises(MissingFileError, match="absent"):
        name(f"{option}={tmp_path / 'absent.nii'}")


def test_every_option_of_the_level_decides_or_is_known_not_to():
    known = {
        name_option(param)
        for param in command.params
        if isinstance(param, click.Option)
        and param.expose_value
        and param.name not in ONLY_TYPED
        and belongs_to(param, ["participant"])
    }
    assert known >= universe.WITHOUT_EFFECT
    assert known - universe.WITHOUT_EFFECT == DECIDING
    assert universe.MEANT <= DECIDING
