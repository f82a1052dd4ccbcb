"""A folder for each configuration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurostorm_bids.cli import LEVELS, command
from neurostorm_bids.commands.configuration import name_option
from neurostorm_bids.commands.levels import belongs_to
from neurostorm_bids.participant import universe


@pytest.fixture
def name(monkeypatch):
    def name(*, sha256="ab", **configuration):
        model = SimpleNamespace(provenance=SimpleNamespace(sha256=sha256))
        monkeypatch.setattr(universe, "load_models", lambda _: (model,))
        return universe.name_universe(
            None, {key.replace("_", "-"): value for key, value in configuration.items()}
        )

    return name


def test_what_decides_the_results_decides_the_folder(name):
    base = name(denoise="simple")
    assert base == name(denoise="simple")
    others = {name(denoise="compcor"), name(denoise="simple", sha256="cd"), name(), base}
    assert len(others) == 4
    assert all(other.startswith("neurostorm-") for other in others)


def test_who_is_read_and_how_work_is_done_does_not(name):
    plain = name(denoise="simple", model=["/here/a.ckpt"])
    again = name(
        denoise="simple", model=["/there/a.ckpt"], participant_label=["01"], nprocs=3, debug=True
    )
    assert plain == again


def test_an_option_that_nobody_thought_of_makes_another_folder(name):
    assert name() != name(new_option=1)


def test_the_options_named_are_options():
    known = {
        name_option(param)
        for param in command.params
        if belongs_to(param, LEVELS) and any(name.startswith("--") for name in param.opts)
    }
    # These two arrive with the report.
    assert universe.WITHOUT_EFFECT - known <= {"reports-only", "boilerplate-only"}
