from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.robustness.driver import Ground, Nursery, read_results

if TYPE_CHECKING:
    from pathlib import Path


def pytest_collection_modifyitems(items):
    """Mark the tests of this folder, which take minutes: make robustness and make fuzz run them."""
    for item in items:
        if item.path.parent.name == "robustness":
            item.add_marker("robustness")


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """Six people of 16 volumes at 8 mm, an atlas and a model: to be read, never written to."""
    return Ground.make(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


class Undisturbed(NamedTuple):
    """What a call wrote that nobody killed, in how many steps and seconds."""

    output: Path
    results: dict[str, bytes]
    steps: list[str]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(ground, nursery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    known: dict[str, Undisturbed] = {}

    def run(level: str) -> Undisturbed:
        if level not in known:
            output = prepare(level, folder / level)
            started = time.monotonic()
            status = nursery.run(
                ground.words(level, output),
                log=folder / f"{level}.log",
                steps=folder / f"{level}.steps",
                below=output,
            )
            seconds = time.monotonic() - started
            assert status == 0, (folder / f"{level}.log").read_text()
            steps = (folder / f"{level}.steps").read_text().splitlines()
            known[level] = Undisturbed(output, read_results(output), steps, seconds)
        return known[level]

    def prepare(level: str, output: Path) -> Path:
        """The group level goes on from what the participant level wrote."""
        if level == "group":
            shutil.copytree(run("participant").output, output)
        return output

    run.prepare = prepare
    return run
