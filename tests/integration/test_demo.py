"""The demo from its first line to its last."""

from __future__ import annotations

import pandas as pd

from neurostorm_bids.demo import N_HELD_BACK, N_TAUGHT, run


def test_the_demo_teaches_a_model_asks_it_about_others_and_says_where_results_lie(tmp_path, capfd):
    assert run(tmp_path) == 0
    told = capfd.readouterr().out
    taught = tmp_path / "taught"
    for line in told.partition(f"Results: {taught}\n")[2].split("\n\n")[0].splitlines():
        assert (taught / line.split()[0]).exists(), line
    assert told.strip().endswith("mean nothing about brains.")
    split = pd.read_csv(taught / "finetune/age_linear/split.tsv", sep="\t")
    asked = pd.read_csv(taught / "phenotype/neurostorm_age.tsv", sep="\t")
    assert (len(split), len(asked)) == (N_TAUGHT, N_HELD_BACK)
    assert not set(split["participant_id"]) & set(asked["participant_id"])
