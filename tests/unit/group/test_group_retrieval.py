"""Re-identification beside connectivity, and which image was seen, from written tables."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.group.images import divide_runs
from neurostorm_bids.group.level import run_group_level

SPACE = "space-MNI152NLin6Asym_res-2"
N_REGIONS, N_IMAGES = 6, 8


def read(study, name):
    return pd.read_csv(study.output / "group" / name, sep="\t", dtype={"session": str})


def connect(study, number, session, matrix, *, names="abcdef"):
    """Write a matrix of correlations for a run."""
    run = f"sub-{number:02d}_ses-{session}_task-rest"
    folder = study.output / f"sub-{number:02d}" / f"ses-{session}" / "func"
    table = pd.DataFrame(matrix, columns=list(names), index=pd.Index(list(names), name="node"))
    stem = f"{run}_{SPACE}_seg-Boxes_stat-pearsoncorrelation_relmat"
    table.to_csv(folder / f"{stem}.tsv", sep="\t", na_rep="n/a")
    return folder / f"{stem}.tsv"


@pytest.fixture
def connected(filled):
    """The six people, with a connectivity in which each person is told at once."""
    generator = np.random.default_rng(1)
    for number in range(1, 7):
        person = np.corrcoef(generator.normal(size=(N_REGIONS, 10)))
        for session in "AB":
            connect(filled, number, session, person)
    return filled


def test_connectivity_is_compared_in_the_same_galleries(connected):
    assert run_group_level(connected.options()) == 0
    table = read(connected, "reidentification.tsv")
    assert set(table["features"]) == {"embedding", "connectivity (Boxes)"}
    by_features = table[table["measure"] == "rank1"].set_index("features")
    assert by_features.loc["connectivity (Boxes)", "value"] == 1
    for name in ("n_participants", "n_candidates", "chance", "apart"):
        assert len(set(by_features[name])) == 1
    report = (connected.output / "group.html").read_text()
    assert "more often than connectivity (Boxes): Rank-1" in report
    assert "--connectivity" not in report


def test_without_connectivity_the_report_says_how_to_get_it(filled):
    assert run_group_level(filled.options()) == 0
    assert set(read(filled, "reidentification.tsv")["features"]) == {"embedding"}
    report = (filled.output / "group.html").read_text()
    assert "Run the participant level again with --connectivity auto" in report


def test_runs_without_connectivity_are_left_out_of_both_and_counted(connected):
    connect(connected, 1, "A", np.eye(N_REGIONS)).unlink()
    assert run_group_level(connected.options()) == 0
    table = read(connected, "reidentification.tsv")
    assert set(table["n_participants"]) == {5}
    assert "1 run(s) have no connectivity" in (connected.output / "group.html").read_text()


def test_connectivity_of_a_few_runs_spoils_nothing(filled):
    connect(filled, 1, "A", np.eye(N_REGIONS))
    assert run_group_level(filled.options()) == 0
    table = read(filled, "reidentification.tsv")
    assert set(table["n_participants"]) == {6}
    assert "there for 1 of 12 runs" in (filled.output / "group.html").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "node\ta\tb\na\t1\t0\n",
        "node\ta\tb\na\t1\t0\nc\t0\t1\n",
        "node\ta\tb\na\t1\tred\nb\tred\t1\n",
        "node\ta\tb\na\t1\t7\nb\t7\t1\n",
        "node\ta\tb\na\t1\tnan\nb\tnan\t1\n",
    ],
)
def test_what_is_no_matrix_of_correlations_is_as_if_it_were_not_there(connected, text):
    connect(connected, 2, "B", np.eye(N_REGIONS)).write_text(text)
    assert run_group_level(connected.options()) == 0
    assert set(read(connected, "reidentification.tsv")["n_participants"]) == {5}


def test_a_region_that_a_run_does_not_show_counts_nothing(connected):
    matrix = np.eye(N_REGIONS)
    matrix[5] = matrix[:, 5] = np.nan
    connect(connected, 2, "B", matrix)
    assert run_group_level(connected.options()) == 0
    assert set(read(connected, "reidentification.tsv")["n_participants"]) == {6}


def write_clips(study, number, session, vectors, *, duration_s=8.0, digest="1"):
    """Write embeddings of clips, 10 s apart, beside that of the run."""
    run = f"sub-{number:02d}_ses-{session}_task-rest"
    names = [f"dim{place:03d}" for place in range(vectors.shape[1])]
    rows = [["onset", "duration", *names]]
    rows += [
        [str(10 * place), str(duration_s), *map(str, row)] for place, row in enumerate(vectors)
    ]
    folder = study.output / f"sub-{number:02d}" / f"ses-{session}" / "func"
    stem = folder / f"{run}_{SPACE}_desc-clip_embedding"
    study.write(stem.relative_to(study.output), rows, {"ConfigurationHash": digest})


@pytest.fixture
def images():
    vectors = np.random.default_rng(2).normal(size=(2 * N_IMAGES, 3))
    names = [f"{place:02d}.png" for place in range(2 * N_IMAGES)]
    return pd.DataFrame(vectors, index=pd.Index(names, name="stim_file"))


@pytest.fixture
def seen(study, images):
    """Five people who saw half of the images in one session and half in another."""
    generator = np.random.default_rng(3)
    projection = generator.normal(size=(3, 12))
    for number in range(1, 6):
        for session, half in (("A", 0), ("B", 1)):
            shown = images.iloc[half * N_IMAGES : (half + 1) * N_IMAGES]
            shown = shown.iloc[generator.permutation(N_IMAGES)]
            run = f"sub-{number:02d}_ses-{session}_task-rest"
            study.add(run, embedding=generator.normal(size=4), ConfigurationHash="1")
            clips = shown.to_numpy() @ projection + 0.1 * generator.normal(size=(N_IMAGES, 12))
            write_clips(study, number, session, clips + 5 * generator.normal(size=12))
            rows = [f"{10 * place - 5}\t8\t{name}" for place, name in enumerate(shown.index)]
            folder = study.source / f"sub-{number:02d}" / f"ses-{session}" / "func"
            text = "\n".join(["onset\tduration\tstim_file", *rows])
            (folder / f"{run}_events.tsv").write_text(f"{text}\n")
    images.reset_index().to_csv(study.output.parent / "images.tsv", sep="\t", index=False)
    return study


def retrieve(study, **options):
    stimuli = study.output.parent / "images.tsv"
    return run_group_level(study.options(stimuli=stimuli, **options))


def test_images_are_found_and_all_is_told(seen):
    assert retrieve(seen) == 0
    table = read(seen, "images.tsv")
    assert set(table["design"]) == {"within", "across"}
    assert set(table["training"]) == {"all"}  # those looked for were not learnt from
    assert (table["n_seen"] == 0).all()
    rank1 = table[table["measure"] == "rank1"]
    assert (rank1["value"] > 5 * rank1["chance"]).all()
    assert rank1["chance"].to_numpy() == pytest.approx(1 / N_IMAGES)
    own = read(seen, "images_by_participant.tsv")
    assert set(own["participant_id"]) == {f"sub-{number:02d}" for number in range(1, 6)}
    assert own[["value", "low", "high", "chance"]].notna().all(axis=None)
    for name in ("images", "images_by_participant"):
        declared = json.loads((seen.output / "group" / f"{name}.json").read_text())
        assert set(read(seen, f"{name}.tsv")) <= set(declared)
    assert "Which image was seen" in (seen.output / "group.html").read_text()


def test_the_delay_moves_the_responses(seen):
    assert retrieve(seen, event_delay_s=15.0) == 0
    table = read(seen, "images.tsv")
    assert table[table["measure"] == "rank1"]["value"].max() < 0.5


def test_images_seen_in_training_are_counted_and_left_out_as_well(seen):
    for path in seen.source.rglob("*_ses-B_*_events.tsv"):
        text = path.read_text()
        for place in range(N_IMAGES):  # the second session shows the images of the first
            text = text.replace(f"{place + N_IMAGES:02d}.png", f"{place:02d}.png")
        path.write_text(text)
    assert retrieve(seen) == 0
    table = read(seen, "images.tsv")
    assert set(table["n_seen"]) == {N_IMAGES}
    assert "were also learnt from" in (seen.output / "group.html").read_text()
    assert "Not to be had" in (seen.output / "group.html").read_text()


def test_images_that_follow_too_fast_are_refused_with_the_reason(seen):
    for path in seen.source.rglob("*_events.tsv"):
        path.write_text(path.read_text().replace("\t8\t", "\t1\t"))
    with pytest.raises(DataError, match=r"images are shown for 1 s at most, clips last 8 s"):
        retrieve(seen)


def test_without_events_or_images_there_is_nothing_to_find(seen, images):
    strangers = images.set_axis([f"{name}.jpg" for name in images.index])
    strangers = strangers.rename_axis("stim_file").reset_index()
    strangers.to_csv(seen.output.parent / "images.tsv", sep="\t", index=False)
    with pytest.raises(DataError, match="none of the images has an embedding"):
        retrieve(seen)
    for path in seen.source.rglob("*_events.tsv"):
        path.unlink()
    with pytest.raises(DataError, match=r"10 run\(s\) left out: no events\.tsv"):
        retrieve(seen)
    assert not (seen.output / "group.html").exists()


def test_clips_that_were_not_read_for_motion_are_left_out(seen):
    assert retrieve(seen) == 0
    before = read(seen, "images.tsv")
    for path in seen.output.rglob("*_desc-clip_embedding.tsv"):
        table = pd.read_csv(path, sep="\t")
        table.insert(2, "used", ["yes"] * len(table))
        table.insert(2, "censored_volumes", 0)
        unread = table.iloc[[-1]].assign(used="no", censored_volumes=4, onset=1000.0)
        unread[[name for name in table if name.startswith("dim")]] = np.nan
        pd.concat([table, unread]).to_csv(path, sep="\t", index=False, na_rep="n/a")
    assert retrieve(seen) == 0
    pd.testing.assert_frame_equal(read(seen, "images.tsv"), before)


def test_clips_of_another_call_are_not_used(seen):
    write_clips(seen, 1, "A", np.ones((N_IMAGES, 12)), digest="2")
    assert retrieve(seen) == 0
    assert "was not made by the call" in (seen.output / "group.html").read_text()
    assert set(read(seen, "images.tsv").query("design == 'within'")["n_participants"]) == {4}


def test_a_delay_without_stimuli_is_refused(study):
    with pytest.raises(UsageError, match="only with --stimuli"):
        study.options(event_delay_s=3.0)


def test_folds_divide_sessions_else_runs_and_never_a_run():
    rows = [
        *(("a", session, f"a-{session}-{run}") for session in "12" for run in "123"),
        *(("b", "1", f"b-{run}") for run in "12345678"),
        ("c", "", "c-1"),
    ]
    trials = pd.DataFrame([*rows, *rows], columns=["participant_id", "session", "run"])
    training = divide_runs(trials)
    assert training.shape == (5, len(trials))
    assert ((~training).sum(axis=0) == 1).all()
    trials["fold"] = (~training).argmax(axis=0)
    for _, own in trials.groupby("run"):
        assert len(set(own["fold"])) == 1
    for _, own in trials[trials["participant_id"] == "a"].groupby("session"):
        assert len(set(own["fold"])) == 1
    assert len(set(trials[trials["participant_id"] == "b"]["fold"])) == 5
