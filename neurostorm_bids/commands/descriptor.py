"""The command as Boutiques describes one, made from the parser itself.

Boutiques (https://boutiques.github.io) is what CBRAIN and other platforms read to call a tool; the
form of a BIDS App is that which ``bosh validate --bids`` asks for.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from neurostorm_bids import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = "0.5"
IMAGE = f"neurostorm-bids:{__version__}"
TRAINING_LEVELS = ("pretrain", "finetune")
"""Levels that the BIDS form of Boutiques does not know; an input of their own chooses them."""
EXIT_STATUSES = (
    (1, "Some runs failed; the rest is done."),
    (2, "The command line is wrong."),
    (16, "The input is not a usable dataset."),
    (17, "There is no such analysis level."),
    (18, "The filters select nothing."),
    (65, "The data cannot be used."),
    (66, "A required file is missing: a model, a mask, a template."),
    (73, "The output cannot be written."),
    (74, "Reading or writing failed."),
    (75, "Temporary: a device is busy or memory ran out; call again."),
    (130, "Interrupted; the same call goes on."),
)
FIRST = ("participant_label", "session_ids")
"""Parameters whose place in the command line the BIDS form fixes, with the keys it gives them."""
MADE = {"work_dir"}
"""Parameters that name a folder that may not be there yet."""
KEYS = {"participant_label": "[PARTICIPANT_LABEL]", "session_ids": "[SESSION_LABEL]"}


def describe(command: click.Command, levels: Sequence[str]) -> dict[str, Any]:
    """Return the Boutiques descriptor of the command.

    Parameters
    ----------
    command : the parser.
    levels : the analysis levels.
    """
    options = [
        p for p in command.params if isinstance(p, click.Option) and p.expose_value and not p.hidden
    ]
    options.sort(key=lambda p: FIRST.index(str(p.name)) if p.name in FIRST else len(FIRST))
    inputs = [_describe_option(option) for option in options]
    keys = [one["value-key"] for one in inputs]
    keys.insert(len(FIRST), "[TRAINING_LEVEL]")
    return {
        "name": "neurostorm",
        "tool-version": __version__,
        "schema-version": SCHEMA_VERSION,
        "description": " ".join((command.help or "").split()),
        "author": "The neurostorm-bids developers",
        "command-line": "mkdir -p [OUTPUT_DIR]; neurostorm [BIDS_DIR] [OUTPUT_DIR] "
        f"[ANALYSIS_LEVEL] {' '.join(keys)}",
        "container-image": {"type": "docker", "image": f"{IMAGE}-cpu"},
        "inputs": [*_describe_positionals(levels), *inputs],
        "groups": [
            _choose_one("output", "Where results go", ["output_dir_name", "output_dir"]),
            _choose_one("level", "What is done", ["analysis_level", "training_level"]),
        ],
        "output-files": [
            {
                "id": "results",
                "name": "Results",
                "description": "A BIDS derivatives dataset.",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [{"code": code, "description": text} for code, text in EXIT_STATUSES],
        "suggested-resources": {"cpu-cores": 4, "ram": 8, "walltime-estimate": 600},
        "tags": {"domain": ["neuroinformatics", "bids", "mri", "fmri"]},
        "tests": [
            {
                "name": "a folder without runs is told by the exit status",
                "invocation": {
                    "bids_dir": "tests",
                    "output_dir_name": "boutiques-test",
                    "analysis_level": "participant",
                    "dry_run": True,
                },
                "assertions": {"exit-code": 16},
            }
        ],
        "custom": {
            "BIDSApp": True,
            "images": {
                "cpu": {"image": f"{IMAGE}-cpu"},
                "gpu": {
                    "image": f"{IMAGE}-gpu",
                    "docker-options": ["--gpus", "all"],
                    "apptainer-options": ["--nv"],
                },
            },
        },
    }


def print_descriptor(ctx: click.Context, levels: Sequence[str]) -> None:
    """Print the descriptor as JSON."""
    click.echo(json.dumps(describe(ctx.command, levels), indent=2))


def _describe_positionals(levels: Sequence[str]) -> list[dict[str, Any]]:
    usual = [level for level in levels if level not in TRAINING_LEVELS]
    trained = [level for level in levels if level in TRAINING_LEVELS]
    return [
        {
            "id": "bids_dir",
            "name": "BIDS_DIR",
            "type": "File",
            "description": "fMRIPrep derivatives, or a raw BIDS folder that holds them.",
            "value-key": "[BIDS_DIR]",
        },
        {
            "id": "output_dir_name",
            "name": "OUTPUT_DIR, a folder that is made",
            "type": "String",
            "description": "Name of the folder that results are written to.",
            "value-key": "[OUTPUT_DIR]",
            "optional": True,
        },
        {
            "id": "output_dir",
            "name": "OUTPUT_DIR, a folder that is there",
            "type": "File",
            "description": "Folder of an earlier call, to go on in.",
            "value-key": "[OUTPUT_DIR]",
            "optional": True,
        },
        {
            "id": "analysis_level",
            "name": "Analysis level",
            "type": "String",
            "description": "Each run, or what was found for all.",
            "value-key": "[ANALYSIS_LEVEL]",
            "value-choices": usual,
            "optional": True,
        },
        {
            "id": "training_level",
            "name": "Training level",
            "type": "String",
            "description": "Train a model on these data, in place of an analysis.",
            "value-key": "[TRAINING_LEVEL]",
            "value-choices": trained,
            "optional": True,
        },
    ]


def _choose_one(name: str, title: str, members: list[str]) -> dict[str, Any]:
    return {
        "id": f"{name}_group",
        "name": title,
        "members": members,
        "mutually-exclusive": True,
        "one-is-required": True,
    }


def _describe_option(option: click.Option) -> dict[str, Any]:
    """Return an option of click as an input of Boutiques."""
    flag = _choose_flag(option)
    name = re.sub(r"\W", "_", flag.lstrip("-"))
    described: dict[str, Any] = {
        "id": name,
        "name": flag.lstrip("-"),
        "description": _describe_effect(option),
        "value-key": KEYS.get(str(option.name), f"[{name.upper()}]"),
        "command-line-flag": flag,
        "optional": True,
    }
    described |= _describe_type(option)
    if option.multiple:
        described["list"] = True
    return described


def _choose_flag(option: click.Option) -> str:
    """Return how an option is written; of a pair, the one that changes the default."""
    names = option.secondary_opts if option.secondary_opts and option.default else option.opts
    return max(names, key=len) if option.name != "session_ids" else "--session-id"


def _describe_effect(option: click.Option) -> str:
    levels = getattr(option, "levels", ())
    text = " ".join((option.help or "").split())
    if option.secondary_opts and option.default:
        text = f"Do not: {text}"
    return f"{text} (Only for {', '.join(levels)}.)" if levels else text


def _describe_type(option: click.Option) -> dict[str, Any]:
    kind = option.type
    if option.is_flag or option.count:
        return {"type": "Flag"}
    if isinstance(kind, click.Choice):
        return {"type": "String", "value-choices": list(kind.choices)}
    if isinstance(kind, click.Path):
        return {"type": "String" if option.name in MADE else "File"}
    if isinstance(kind, click.IntRange | click.FloatRange):
        limits: dict[str, Any] = {"type": "Number"}
        if isinstance(kind, click.IntRange):
            limits["integer"] = True
        for key, limit, is_open in (
            ("minimum", kind.min, kind.min_open),
            ("maximum", kind.max, kind.max_open),
        ):
            if limit is not None:
                limits[key] = limit
                limits[f"exclusive-{key}"] = is_open
        return limits
    if kind.name in {"integer", "float"}:
        return {"type": "Number"} | ({"integer": True} if kind.name == "integer" else {})
    return {"type": "String"}
