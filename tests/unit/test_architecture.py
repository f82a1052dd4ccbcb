"""The data flow one way: no room imports one that comes after it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import neurostorm_bids

PACKAGE = Path(neurostorm_bids.__file__).parent

# Each room may import itself and these; errors and the package's own name stand open to all.
MAY_IMPORT = {
    "errors": set(),
    "ending": set(),
    "workers": set(),
    "inputs": set(),
    "grid": {"inputs", "workers"},
    "connectivity": {"inputs", "grid"},
    "kernels": set(),
    "model": {"kernels"},
    "pretrained": {"grid", "model"},
    "predict": {"inputs", "grid", "model", "pretrained"},
    "page": set(),
    "attribute": {"grid", "connectivity", "model", "pretrained", "predict"},
    "derivatives": {
        "call",
        "inputs",
        "grid",
        "connectivity",
        "model",
        "pretrained",
        "predict",
        "attribute",
    },
    "report": {"inputs", "grid", "model", "pretrained", "predict", "derivatives", "page"},
    "retrieval": {"inputs", "train"},
    "call": set(),
    "options": {"call", "inputs"},
    "participant": {
        "printable",
        "inputs",
        "grid",
        "model",
        "pretrained",
        "predict",
        "attribute",
        "derivatives",
        "connectivity",
        "options",
        "report",
        "workers",
    },
    "executor": {"options", "participant", "audit", "derivatives", "inputs"},
    "arguments": set(),
    "invoke": {"printable"},
    "printable": set(),
    "train": {
        "call",
        "options",
        "inputs",
        "grid",
        "connectivity",
        "model",
        "pretrained",
        "predict",
        "derivatives",
        "page",
    },
    "group": {"printable", "call", "inputs", "model", "derivatives", "page", "train", "retrieval"},
    "commands": {
        "call",
        "derivatives",
        "executor",
        "group",
        "inputs",
        "openneuro",
        "options",
        "participant",
        "printable",
        "train",
    },
    "cli": {"arguments", "call", "commands", "invoke", "printable", "resources"},
    "wrapper": {"arguments", "cli", "invoke"},
    "openneuro": {"derivatives", "inputs"},
    "brainlife": {"cli", "derivatives", "inputs"},
    "resources": {"derivatives"},
    "audit": {"derivatives", "inputs", "printable"},
    "audit_cli": {"arguments", "audit", "commands", "invoke"},
    "model_cli": {"inputs", "invoke", "model", "pretrained", "train"},
    "synthetic": set(),
    "demo_data": {"grid", "model", "pretrained", "synthetic"},
    "demo": {"demo_data"},
    "estimator": {"inputs", "predict", "pretrained"},
    "__init__": {"estimator", "predict", "pretrained"},
    "__main__": {"cli"},
}


def room_of(module: str) -> str:
    return module.removeprefix("neurostorm_bids").removeprefix(".").split(".")[0]


def imported_rooms(source: str) -> set[str]:
    modules = [
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module
    ]
    modules += [
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    return {room_of(m) for m in modules if m.split(".")[0] == "neurostorm_bids"} - {""}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_a_module_imports_only_rooms_that_come_before_its_own(path):
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    wrong = imported_rooms(path.read_text()) - MAY_IMPORT[room] - {room, "errors", "ending"}
    assert not wrong, f"{relative} imports {sorted(wrong)}"


@pytest.mark.parametrize("forbidden", ["nibabel", "nilearn", "bids"])
def test_the_network_knows_no_images_and_no_datasets(forbidden):
    for path in (PACKAGE / "model").rglob("*.py"):
        assert f"import {forbidden}" not in path.read_text(), path


def test_the_check_sees_a_forbidden_import():
    assert imported_rooms("from neurostorm_bids.cli import main") == {"cli"}
    assert imported_rooms("import neurostorm_bids.grid.spec") == {"grid"}
