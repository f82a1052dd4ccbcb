"""Options from a TOML file: below what is typed, refused when they do not fit, and round."""

from __future__ import annotations

import tomllib

import click
import pytest

from neurostorm_bids import cli
from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.cli import main
from neurostorm_bids.commands.configuration import list_configuration
from neurostorm_bids.derivatives import write_configuration


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Call the command with levels that only keep what they were given."""
    seen = []

    def keep(**given):
        seen.append(given)
        return 0

    monkeypatch.setattr(cli, "_RUN", dict.fromkeys(cli.LEVELS, keep))

    def call(*words, levels=("participant",)):
        seen.clear()
        status = cli.main([str(tmp_path), str(tmp_path / "out"), *levels, *words])
        return status, seen[-1] if seen else None

    return call


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "my.toml"
        path.write_text(text)
        return "--config-file", str(path)

    return write


def test_a_file_gives_options_of_every_kind(run, write):
    status, given = run(
        *write(
            'model = ["a.ckpt"]\nparticipant_label = ["01", "sub-02"]\nnprocs = 3\nbatch-size = 4\n'
            'device = "cpu"\noverwrite = true\nverbose = 0\nsession-label = ["A"]\n'
        )
    )
    assert status == 0
    assert given["models"] == ("a.ckpt",)
    assert given["participant_label"] == ("01", "sub-02")
    assert (given["nprocs"], given["batch_size"], given["device"]) == (3, "4", "cpu")
    assert given["overwrite"] is True
    assert given["session_ids"] == ("A",)


def test_the_command_line_wins(run, write):
    _, given = run(*write('nprocs = 3\ntask-id = ["rest"]'), "--nprocs", "2", "--task-id", "nback")
    assert given["nprocs"] == 2
    assert given["task_ids"] == ("nback",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nproc = 3", "my.toml: nproc is not an option that a file may hold. Did you mean nprocs?"),
        ("bids-dir = '/x'", "my.toml: bids-dir is not an option"),
        ("dry-run = true", "my.toml: dry-run is not an option"),
        ("config-file = 'x'", "my.toml: config-file is not an option"),
        ("[selection]\nspace = 'x'", "my.toml: selection is not an option"),
        ("nprocs = '3'", "my.toml: nprocs: expected a whole number; found '3'"),
        ("nprocs = true", "my.toml: nprocs: expected a whole number; found True"),
        ("nprocs = 0", "my.toml: nprocs: 0 is not in the range"),
        ("overwrite = 1", "my.toml: overwrite: expected true or false; found 1"),
        ("participant-label = '01'", "my.toml: participant-label: expected a list of texts"),
        ("participant-label = [1]", "my.toml: participant-label: expected a list of texts"),
        ("space = 2.5", "my.toml: space: expected a text in quotes; found 2.5"),
        ("session-id = ['a']\nsession_label = ['b']", "my.toml: session_label is there twice"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_key_and_what_was_expected(
    run, write, capsys, text, message
):
    status, given = run(*write(text))
    assert (status, given) == (2, None)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"nprocs = ", 65, "is not TOML"),
        (b"\xff\xfe", 65, "is not TOML"),
        (b"a = " + b"[" * 5000, 65, "is not TOML"),
        (b"#" * 1_000_001, 65, "larger than"),
        (None, 66, "there is no file"),
    ],
    ids=["cut", "binary", "deep", "long", "absent"],
)
def test_a_file_that_is_no_list_of_options_is_refused(
    run, tmp_path, capsys, *, content, status, message
):
    path = tmp_path / "odd.toml"
    if content is not None:
        path.write_bytes(content)
    assert run("--config-file", str(path)) == (status, None)
    assert message in capsys.readouterr().err


def test_options_of_other_levels_are_passed_over_in_a_file_and_refused_when_typed(run, write):
    text = write('mask-ratio = 0.7\npreset = "tiny"')
    status, given = run(*text)
    assert status == 0
    assert "mask_ratio" not in given
    assert run("--mask-ratio", "0.7") == (2, None)
    status, given = run(*text, levels=("participant", "pretrain"))
    assert (status, given["mask_ratio"], given["preset"]) == (0, 0.7, "tiny")


def test_what_is_written_is_read_back_the_same(run, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    typed = [
        *("--model", str(tmp_path / "models" / 'odd "name"\t.ckpt'), "small.ckpt", "~x"),
        *("--participant-label", "01", "02", "--nprocs", "2", "--overwrite", "-vv"),
        *("--bids-filter-file", str(home / "f.json"), "--target-scale", "age=28.76,3.68,years"),
        *("-d", f"fmriprep={tmp_path / 'out' / 'sourcedata'}"),
    ]
    _, first = run(*typed)
    call = first.pop("call")
    write_configuration(tmp_path / "out", call, bids_dir=tmp_path, debug=False)
    path = tmp_path / "out" / "logs" / call.run_uuid / "config.toml"
    assert str(tmp_path) not in path.read_text()
    status, second = run("--config-file", str(path))
    assert status == 0
    again = second.pop("call")
    assert second == first
    assert again.configuration == call.configuration
    assert again.run_uuid != call.run_uuid


@pytest.mark.parametrize("level", cli.LEVELS)
def test_the_defaults_of_every_level_go_round(run, tmp_path, level):
    _, first = run(levels=(level,))
    call = first.pop("call")
    write_configuration(tmp_path / "out", call, bids_dir=tmp_path, debug=False)
    path = tmp_path / "out" / "logs" / call.run_uuid / "config.toml"
    _, second = run("--config-file", str(path), levels=(level,))
    assert second.pop("call").configuration == call.configuration
    assert second == first
    assert tomllib.loads(path.read_text()) == call.configuration


def test_a_folder_that_the_log_left_out_is_asked_for(run, write, capsys):
    text = write('model = [".../model.ckpt"]')
    assert run(*text) == (2, None)
    assert "model is '.../model.ckpt'. Its folder was left out" in capsys.readouterr().err
    status, given = run(*text, "--model", "/there/model.ckpt")
    assert (status, given["models"]) == (0, ("/there/model.ckpt",))


def test_the_configuration_names_every_option_as_a_file_does(tmp_path):
    words = spread_lists([str(tmp_path), "/out", "group"], cli.command, levels=cli.LEVELS)
    with cli.command.make_context("neurostorm", words) as ctx:
        configuration = list_configuration(ctx, cli.LEVELS)
    options = {
        name.removeprefix("--")
        for param in cli.command.params
        if isinstance(param, click.Option)
        for name in param.opts
    }
    assert configuration.keys() <= options


@pytest.mark.parametrize(
    "line",
    [
        f"fd-threshold = {hex(10**400)}",
        f"nprocs = 0x{'f' * 5000}",
        'bids-filter-file = "\\u0000"',
        'participant-label = ["\\u0000"]',
    ],
)
def test_values_that_toml_or_the_system_do_not_know_are_refused(line, tmp_path, capsys):
    (tmp_path / "config.toml").write_text(line)
    call = [str(tmp_path), str(tmp_path / "out"), "participant"]
    assert main([*call, "--config-file", str(tmp_path / "config.toml")]) == 2
    assert "64 bits" in capsys.readouterr().err
