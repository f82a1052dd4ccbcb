"""A call that is killed loses nothing, and the next one ends where an undisturbed one does.

NEUROSTORM_KILLS is how many times to kill, NEUROSTORM_SEED decides when. Every other time, the call
kills itself right before a step in the file system, and the other times a clock does it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.robustness.driver import (
    check_whole,
    count,
    list_leftovers,
    read_results,
    validate,
)

N_KILLS = int(os.environ.get("NEUROSTORM_KILLS", "4"))
SEED = int(os.environ.get("NEUROSTORM_SEED", "0"))
IS_LONG = "NEUROSTORM_KILLS" in os.environ
LEVELS = ("participant", "group", "pretrain", "finetune")


@pytest.mark.parametrize("number", range(N_KILLS))
def test_a_killed_call_is_finished_by_the_next(undisturbed, ground, nursery, tmp_path, number):
    rng = random.Random(f"{SEED}-{number}")
    level = LEVELS[number % len(LEVELS)]
    whole = undisturbed(level)
    output = undisturbed.prepare(level, tmp_path / "out")
    words, log = ground.words(level, output), tmp_path / "log"
    if IS_LONG and number // len(LEVELS) % 2:
        pid = nursery.start(words, log=log)
        time.sleep(rng.random() * whole.seconds)
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(pid, signal.SIGKILL)
        status = nursery.wait(pid)
    else:
        step = rng.randrange(len(whole.steps))
        status = nursery.run(words, log=log, kill_at=step, below=output)
    assert status in {0, -signal.SIGKILL}, log.read_text()
    count(f"SIGKILL: {level}" if status else f"SIGKILL: {level}, but it had ended")
    check_whole(output)
    left = read_results(output)
    assert {name for name in left if "/func/" in name} <= whole.results.keys()
    for name, content in left.items():
        assert "/func/" not in name or content == whole.results[name], name
    assert nursery.run(words, log=log) == 0, log.read_text()
    after = read_results(output)
    assert after.keys() == whole.results.keys()
    assert [name for name in after if after[name] != whole.results[name]] == []
    assert list_leftovers(output) == []


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ("/logs/.", "logs/CITATION.*"),
        *([("/figures/.", "sub-01/figures/*.json")] if IS_LONG else ()),
    ],
)
def test_what_a_kill_prevented_beside_the_results_is_made_by_the_next_call(
    undisturbed, ground, nursery, tmp_path, place, missing
):
    whole, output, log = undisturbed("participant"), tmp_path / "out", tmp_path / "log"
    step = next(i for i, line in enumerate(whole.steps) if place in line)
    words = ground.words("participant", output)
    assert nursery.run(words, log=log, kill_at=step, below=output) == -signal.SIGKILL
    assert any(output.glob("sub-01/func/*_embedding.tsv"))
    assert not any(output.glob(missing))
    assert nursery.run(words, log=log) == 0
    assert read_results(output) == whole.results
    assert len(list(output.glob("logs/*/status.tsv"))) == 1


@pytest.mark.skipif(not IS_LONG, reason="the validator takes long: tests/integration calls it")
def test_what_a_kill_leaves_is_valid_bids(ground, nursery, undisturbed, tmp_path):
    n_steps = len(undisturbed("participant").steps)
    for step in range(n_steps // 4, n_steps, n_steps // 4):
        words = ground.words("participant", tmp_path / "out")
        nursery.run(words, log=tmp_path / "log", kill_at=step, below=tmp_path / "out")
        assert validate(tmp_path / "out") == [], step
    assert nursery.run(words, log=tmp_path / "log") == 0
    assert validate(tmp_path / "out") == []
