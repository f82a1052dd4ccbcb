"""One option for the precision of every level, by our names and by Lightning's."""

from __future__ import annotations

import pytest

import neurostorm_bids.train.pretrain
from neurostorm_bids.cli import main


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ([], "32-true"),
        (["--precision", "float32"], "32-true"),
        (["--precision", "bf16"], "bf16-mixed"),
        (["--precision", "bf16-mixed"], "bf16-mixed"),
    ],
)
def test_a_training_gets_the_precision_under_the_name_that_it_knows(
    monkeypatch, tmp_path, words, precision
):
    seen = []
    monkeypatch.setattr(
        neurostorm_bids.train.pretrain, "run_pretrain_level", lambda o: seen.append(o) or 0
    )
    assert main([str(tmp_path), str(tmp_path / "out"), "pretrain", *words]) == 0
    assert seen[0].train.precision == precision


def test_other_precisions_are_refused(tmp_path, capsys):
    words = [str(tmp_path), str(tmp_path / "out"), "participant", "--precision", "fp16"]
    assert main(words) == 2
    assert "'float32', 'bf16'" in capsys.readouterr().err
