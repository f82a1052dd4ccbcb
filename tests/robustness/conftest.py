from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.robustness.driver import HOST, USER, Ground, Nursery, counts, read_results


def pytest_collection_modifyitems(items):
    """Mark the tests of this folder: make robustness and make fuzz run their long forms."""
    for item in items:
        if item.path.parent.name == "robustness":
            item.add_marker("robustness")


@pytest.fixture(autouse=True)
def _tell_counts(record_property):
    """Hand on what a test counted, to be told at the end."""
    before = counts.copy()
    yield
    for what, n in (counts - before).items():
        record_property(f"counted {what}", n)


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
    """What a call wrote that nobody killed, in how many steps and seconds.

    Attributes
    ----------
    steps : those in the file system below its output.
    elsewhere : all others, and attempts at the network.
    scratch : its folder for temporary files.
    """

    output: Path
    results: dict[str, bytes]
    steps: list[str]
    elsewhere: list[str]
    scratch: Path
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(ground, nursery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    known: dict[str, Undisturbed] = {}

    def run(level: str) -> Undisturbed:
        if level not in known:
            output = prepare(level, folder / level)
            scratch, home = folder / f"{level}.tmp", folder / f"{level}.home" / USER
            scratch.mkdir()
            home.mkdir(parents=True)
            who = dict.fromkeys(("USER", "LOGNAME", "USERNAME"), USER)
            started = time.monotonic()
            status = nursery.run(
                ground.words(level, output),
                log=folder / f"{level}.log",
                steps=folder / f"{level}.steps",
                below=Path("/"),
                host=HOST,
                HOME=str(home),
                TMPDIR=str(scratch),
                **who,
            )
            seconds = time.monotonic() - started
            assert status == 0, (folder / f"{level}.log").read_text()
            lines = (folder / f"{level}.steps").read_text().splitlines()
            steps = [line for line in lines if line.split("\t")[1].startswith(str(output))]
            known[level] = Undisturbed(
                output=output,
                results=read_results(output),
                steps=steps,
                elsewhere=[line for line in lines if line not in set(steps)],
                scratch=scratch,
                seconds=seconds,
            )
        return known[level]

    def prepare(level: str, output: Path) -> Path:
        """The group level goes on from what the participant level wrote."""
        if level == "group":
            shutil.copytree(run("participant").output, output)
        return output

    run.prepare = prepare
    return run
