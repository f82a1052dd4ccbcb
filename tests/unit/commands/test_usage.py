"""The table of options is the parser's; every option is explained and changes something."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import fields
from pathlib import Path

import click
import pytest

import neurostorm_bids
from neurostorm_bids.cli import LEVELS, command
from neurostorm_bids.commands.configuration import name_option
from neurostorm_bids.executor.options import SlurmOptions
from neurostorm_bids.group.options import GroupOptions
from neurostorm_bids.inputs import Cleaning, Selection
from neurostorm_bids.options import ParticipantOptions
from neurostorm_bids.train.finetune_options import FinetuneOptions
from neurostorm_bids.train.options import TrainOptions
from neurostorm_bids.train.pretrain_options import PretrainOptions

PACKAGE = Path(neurostorm_bids.__file__).parent
DOCS = PACKAGE.parent / "docs"
LEVEL_OPTIONS = {
    "participant": (ParticipantOptions, Selection, Cleaning, SlurmOptions),
    "group": (GroupOptions, Selection),
    "pretrain": (PretrainOptions, TrainOptions, Selection, Cleaning),
    "finetune": (FinetuneOptions, TrainOptions, Selection, Cleaning),
}
FIELDS = {
    "participant_label": {"participant_labels"},
    "exclude_participant_label": {"exclude_participant_labels"},
    "bids_filter_file": {"filter_file"},
    "fd_threshold": {"fd_threshold_mm"},
    "mem": {"memory_bytes"},
    "mem_mb": {"memory_bytes"},
    "models": {"models", "model"},
    "targets": {"targets", "target"},
    "device": {"device", "accelerator"},
}
"""Fields that options become whose names are not theirs."""
ELSEWHERE = {
    "config_file": "gives the defaults of the others: test_configuration_file",
    "dry_run": "lists in place of running: test_levels, and each level's tests",
    "verbose": "the level of the log",
    "resource_monitor": "wraps the level: test_resources, test_participant",
    "drop_after": "runs after the level: test_openneuro",
    "executor": "hands the level to jobs: test_submission",
    "output_layout": "names the output folder: test_universe, test_participant",
    "run_fmriprep": "runs before the level: test_fmriprep",
    "notrack": "BIDS Apps take it; there is no tracking to turn off: test_levels",
}
"""Options that become no field of a level's options, and where their effect is tested."""

OPTIONS = [
    param
    for param in command.params
    if isinstance(param, click.Option) and not param.hidden and param.name != "version"
]


@pytest.fixture(scope="module")
def usage():
    spec = importlib.util.spec_from_file_location("usage", DOCS / "usage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def read_attributes():
    """The attributes that any module outside the commands reads."""
    paths = [p for p in PACKAGE.rglob("*.py") if "commands" not in p.parts and p.stem != "cli"]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_the_page_is_what_the_parser_says(usage):
    assert usage.PAGE.read_text() == usage.format_page(), "make usage brings the page up to date"


@pytest.mark.parametrize("option", OPTIONS, ids=name_option)
def test_every_option_is_explained_in_a_sentence(usage, option):
    text = (option.help or "").split("  [")[0].strip()
    assert text, f"{option.opts[0]} has no help"
    assert text[-1] in ".)", f"the help of {option.opts[0]} is no sentence: {text!r}"
    assert option.opts[0] in usage.format_page()


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.expose_value or o.name in ELSEWHERE], ids=name_option
)
def test_every_option_has_an_effect_at_each_of_its_levels(option, read_attributes):
    if option.name in ELSEWHERE:
        return
    names = FIELDS.get(option.name, {option.name})
    for level in getattr(option, "levels", ()) or LEVELS:
        known = {field.name for kind in LEVEL_OPTIONS[level] for field in fields(kind)}
        assert names & known, f"{option.opts[0]} becomes no field of the options of {level}"
    assert names & read_attributes, f"nothing reads what {option.opts[0]} says"


def test_the_exceptions_are_options_and_no_more():
    names = {option.name for option in OPTIONS}
    assert ELSEWHERE.keys() <= names
    assert FIELDS.keys() <= names
