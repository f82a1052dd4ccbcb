"""Two fine-tunings: paired by participant, or refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError, MissingFileError
from neurostorm_bids.model_cli import main
from neurostorm_bids.train.paired import compare_finetunings, read_predictions


def write(folder, seed=0, *, truth=None, quality=0.0, order=None):
    """Write predictions of 48 participants: noise, and `quality` times the truth."""
    rng = np.random.default_rng(seed)
    truth = np.tile(["control", "patient"], 24) if truth is None else truth
    known = (truth == "patient") * 2 - 1 if truth.dtype.kind == "U" else truth
    noisy = quality * known + rng.normal(size=48)
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{number:02d}" for number in range(48)],
            "example": [f"sub-{number:02d}" for number in range(48)],
            "fold": [f"fold{1 + number % 3}" for number in range(48)],
            "truth": truth,
        }
    )
    if truth.dtype.kind == "U":
        probability = 1 / (1 + np.exp(-noisy))
        table["probability_control"], table["probability_patient"] = 1 - probability, probability
    else:
        table["prediction"], table["Guess"] = noisy, 0.0
    folder.mkdir()
    table.iloc[order if order is not None else slice(None)].to_csv(
        folder / "predictions.tsv", sep="\t", index=False
    )
    return folder


def as_frame(pairs):
    return pd.DataFrame(pairs).set_index("measure")


def test_of_several_seeds_the_first_is_compared(tmp_path):
    folder = write(tmp_path / "one", quality=1.0)
    several = tmp_path / "several"
    several.mkdir()
    table = pd.read_csv(folder / "predictions.tsv", sep="\t")
    later = table.assign(seed=6, fold="fold9", probability_control=0.5, probability_patient=0.5)
    both = pd.concat([table.assign(seed=5), later])
    both.to_csv(several / "predictions.tsv", sep="\t", index=False)
    found = as_frame(compare_finetunings(folder, several))
    assert (found["difference"] == 0).all()


def test_a_finetuning_does_not_differ_from_itself(tmp_path):
    folder = write(tmp_path / "one", quality=1.0)
    found = as_frame(compare_finetunings(folder, folder))
    assert (found["difference"] == 0).all()
    assert (found["p_value"] == 1).all()
    assert (found["first"] == found["second"]).all()


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_the_better_one_is_found_and_exchanging_them_turns_the_sign(tmp_path, kind):
    truth = None if kind == "classes" else np.linspace(-2, 2, 48)
    good = write(tmp_path / "good", quality=4.0, truth=truth)
    bad = write(tmp_path / "bad", seed=1, truth=truth)
    found, turned = (as_frame(compare_finetunings(*pair)) for pair in ((good, bad), (bad, good)))
    measure = "auroc" if kind == "classes" else "pearson"
    assert found.loc[measure, "low"] > 0
    assert found.loc[measure, "p_value"] < 0.01
    np.testing.assert_allclose(found["difference"], -turned["difference"])
    np.testing.assert_allclose(found["difference"], found["first"] - found["second"], atol=1e-5)


def test_the_order_of_rows_changes_nothing(tmp_path):
    one, other = write(tmp_path / "one", quality=2.0), write(tmp_path / "other", seed=1)
    mixed = write(tmp_path / "mixed", quality=2.0, order=np.random.default_rng(0).permutation(48))
    first, second = (as_frame(compare_finetunings(folder, other)) for folder in (one, mixed))
    pd.testing.assert_frame_equal(first, second)


def test_other_folds_or_people_cannot_be_paired(tmp_path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other", order=range(47))
    with pytest.raises(DataError, match=r"participants 47\. Run the second .* --splits"):
        compare_finetunings(one, other)


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "predictions.tsv").write_text("participant_id\tage\nsub-01\t3\n")
    with pytest.raises(DataError, match="Expected columns participant_id, example"):
        read_predictions(tmp_path / "predictions.tsv")
    with pytest.raises(MissingFileError):
        read_predictions(tmp_path / "absent" / "predictions.tsv")


def test_the_command_prints_a_table(tmp_path, capsys):
    one, other = write(tmp_path / "one", quality=4.0), write(tmp_path / "other", seed=1)
    assert main(["compare", str(one), str(other), "--permutations", "99"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("\t") == [
        "measure", "first", "second", "difference", "low", "high", "p_value",
    ]  # fmt: skip
    assert {row.split("\t")[0] for row in rows} >= {"accuracy", "auroc"}
