"""The wrapper makes paths visible in a container and hands the rest on."""

from __future__ import annotations

import os
import re
import stat

import click
import pytest

from neurostorm_bids.cli import command
from neurostorm_bids.wrapper import FOLDERS, WITH_NEIGHBOURS, WRITTEN, main, takes_path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A dataset, a model, a filter file, and a stub of each engine that tells its arguments."""
    (tmp_path / "bids").mkdir()
    (tmp_path / "model.ckpt").write_bytes(b"")
    (tmp_path / "filter.json").write_text("{}")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for engine in ("docker", "podman", "apptainer"):
        stub = binaries / engine
        stub.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\nexit 65\n')
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(capfd, *arguments: str) -> list[str]:
    status = main(arguments)
    assert status == 65, "the status is that of what ran"
    return capfd.readouterr().out.splitlines()


def test_paths_are_mounted_and_the_rest_is_handed_on(tree, capfd):
    words = words_of(
        capfd,
        *("--engine", "docker", "--image", "me:1"),
        *("bids", "out", "participant", "--participant_label", "01", "02"),
        *("--model", "model.ckpt", "catalogue-name", "--bids-filter-file=filter.json", "-v"),
    )
    assert words[:3] == ["run", "--rm", "--read-only"]
    mounts = [words[i + 1] for i, word in enumerate(words) if word == "--volume"]
    assert f"{tree}/bids:/data:ro" in mounts
    assert f"{tree}/out:/out:rw" in mounts
    model = next(mount for mount in mounts if mount.startswith(f"{tree}/model.ckpt:"))
    inside = model.split(":")[1]
    assert model.endswith("/model.ckpt:ro")
    call = words[words.index("me:1") + 1 :]
    assert call[:3] == ["/data", "/out", "participant"]
    assert call.count("--participant-label") == 2
    assert call[call.index("--model") + 1] == inside
    assert "catalogue-name" in call
    assert "-v" in call
    assert str(tree) not in " ".join(call)


def list_mounts(words):
    pairs = (words[i + 1].split(":") for i, word in enumerate(words) if word == "--volume")
    return {inside: (outside, access) for outside, inside, access in pairs}


@pytest.mark.parametrize(
    ("option", "name"),
    [("--atlas", "my.nii.gz"), ("--connectivity", "my.nii.gz"), ("--stimuli", "my.npy")],
)
@pytest.mark.parametrize("is_link", [False, True])
def test_what_lies_beside_a_file_is_seen_too(tree, capfd, option, name, is_link):
    (tree / "beside").mkdir()
    (tree / "beside" / "my.tsv").touch()
    if is_link:
        (tree / "store").touch()
        (tree / "beside" / name).symlink_to("../store")
    else:
        (tree / "beside" / name).touch()
    level = "group" if option == "--stimuli" else "participant"
    words = words_of(capfd, "--engine", "docker", "bids", "out", level, option, f"beside/{name}")
    mounts = list_mounts(words)
    inside = words[words.index(option) + 1]
    folder, _, own = inside.rpartition("/")
    assert own == name
    assert all(access == "ro" for target, (_, access) in mounts.items() if target != "/out")
    if is_link:
        assert mounts[inside] == (f"{tree}/store", "ro")
        assert mounts[f"{folder}/my.tsv"] == (f"{tree}/beside/my.tsv", "ro")
    else:
        assert mounts[folder] == (f"{tree}/beside", "ro")


def test_a_file_of_confounds_is_mounted_and_the_name_of_a_strategy_is_none(tree, capfd):
    (tree / "confounds.json").write_text("{}")
    for folder in ("simple", "AAL3"):
        (tree / folder).mkdir()
    call = ("--engine", "docker", "bids", "out", "participant")
    words = words_of(capfd, *call, "--denoise", "confounds.json")
    assert list_mounts(words)[words[-1]] == (f"{tree}/confounds.json", "ro")
    words = words_of(capfd, *call, "--denoise", "simple", "--atlas", "AAL3")
    assert words[-4:] == ["--denoise", "simple", "--atlas", "AAL3"]


def test_every_option_that_may_name_a_path_is_known():
    options = [param for param in command.params if isinstance(param, click.Option)]
    text = {option.name for option in options if takes_path(option)}
    assert text == {"models", "derivatives", "denoise", "atlas", "connectivity", "splits"}
    told = re.compile(r"\b(path|file|folder)s?\b", re.IGNORECASE)
    others = {
        option.name
        for option in options
        if option.type.name == "text"
        and option.name not in text
        and told.search(f"{option.metavar} {option.help}")
    }
    assert others == {"target_scales"}, "its help tells of a model's file"
    named = {option.name for option in options}
    assert named >= FOLDERS | WITH_NEIGHBOURS | WRITTEN


@pytest.mark.usefixtures("tree")
def test_it_needs_no_terminal_and_runs_as_the_caller(capfd):
    words = words_of(capfd, "--engine", "docker", "bids", "out", "group")
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert not {"-it", "-i", "-t", "--interactive", "--tty"} & set(words)
    assert words[words.index("--network") + 1] == "none"
    assert "HF_HUB_OFFLINE=1" in words


@pytest.mark.usefixtures("tree")
def test_with_a_network_models_are_fetched(capfd):
    words = words_of(capfd, "--engine", "docker", "--network", "bids", "out", "participant")
    assert not {"--network", "HF_HUB_OFFLINE=1"} & set(words)


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("number", [0, 1000])
def test_podman_keeps_the_number_of_all_but_root_whom_it_refuses(capfd, monkeypatch, number):
    monkeypatch.setattr(os, "getuid", lambda: number)
    words = words_of(capfd, "--engine", "podman", "bids", "out", "group")
    assert words[words.index("--user") + 1].startswith(f"{number}:")
    assert ("keep-id" in words) == (number != 0)


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("engine", "flag"),
    [("docker", "--gpus"), ("podman", "nvidia.com/gpu=all"), ("apptainer", "--nv")],
)
def test_gpus_are_asked_for_as_the_engine_wants(capfd, engine, flag):
    words = words_of(capfd, "--engine", engine, "--gpus", "bids", "out", "participant")
    assert flag in words
    assert any(word.endswith("-gpu") for word in words)


def test_apptainer_binds_and_keeps_the_home_outside(tree, capfd):
    words = words_of(capfd, "--engine", "apptainer", "--image", "x.sif", "bids", "out", "group")
    assert words[:4] == ["run", "--containall", "--cleanenv", "--no-home"]
    assert f"{tree}/bids:/data:ro" in words
    assert words[-4:] == ["x.sif", "/data", "/out", "group"]


def test_a_named_derivative_is_mounted_behind_its_name(tree, capfd):
    (tree / "fmriprep").mkdir()
    words = words_of(
        capfd, "--engine", "docker", "bids", "out", "participant", "-d", "prep=fmriprep"
    )
    assert words[-1].startswith("prep=/inputs/")
    assert any(word.startswith(f"{tree}/fmriprep:/inputs/") for word in words)


@pytest.mark.usefixtures("tree")
def test_the_command_is_shown_before_it_runs_and_can_be_shown_alone(capfd):
    assert main(["--engine", "docker", "--print-command", "bids", "out", "group"]) == 0
    shown = capfd.readouterr()
    assert shown.err.startswith("RUNNING: docker run ")
    assert not shown.out


@pytest.mark.usefixtures("tree")
def test_a_missing_dataset_is_told_before_anything_runs(capfd):
    assert main(["--engine", "docker", "nowhere", "out", "participant"]) == 16
    assert "BIDS_DIR 'nowhere' is no folder" in capfd.readouterr().err


@pytest.mark.usefixtures("tree")
def test_a_missing_file_of_an_option_is_told(capfd):
    call = ["bids", "out", "participant", "--bids-filter-file", "no.json"]
    assert main(["--engine", "docker", *call]) == 66
    assert "no.json" in capfd.readouterr().err


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("option", ["--model=models/x.ckpt", "--derivatives=prep=not/there"])
def test_a_mistyped_path_is_told_here_where_the_path_means_something(capfd, option):
    assert main(["--engine", "docker", "bids", "out", "participant", option]) == 66
    assert "no such file or folder" in capfd.readouterr().err


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("model", ["hf://owner/name/file@main", "/opt/neurostorm/models/x", "name"])
def test_names_addresses_and_paths_of_the_image_are_handed_on(capfd, model):
    words = words_of(capfd, "--engine", "docker", "bids", "out", "participant", "--model", model)
    assert words[-1] == model


def test_an_image_that_is_not_there_is_explained(tree, capfd):
    (tree / "bin" / "podman").write_text("#!/bin/sh\nexit 125\n")
    assert main(["--engine", "podman", "bids", "out", "group"]) == 125
    assert "--image" in capfd.readouterr().err


def test_a_path_with_a_colon_is_refused(tree, capfd):
    (tree / "a:b").mkdir()
    assert main(["--engine", "docker", "a:b", "out", "participant"]) == 2
    assert "colon" in capfd.readouterr().err


def test_without_arguments_it_says_what_is_expected(capfd):
    assert main([]) == 2
    assert "BIDS_DIR OUTPUT_DIR" in capfd.readouterr().err


def test_without_an_engine_it_says_which_ones_there_are(tree, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(tree))
    assert main(["bids", "out", "group"]) == 66
    assert "docker, podman, apptainer" in capfd.readouterr().err
