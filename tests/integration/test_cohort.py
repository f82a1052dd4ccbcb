"""The synthetic cohort: what is planted is there, is found by simple means, and only there."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.cohort import write_cohort
from benchmarks.planted import (
    AGE,
    AXES,
    DIAGNOSIS,
    MEMORY,
    N_NETWORKS,
    SEX_PAIR,
    VISUAL,
    CohortPlan,
    draw_participants,
    find_largest_correlation,
)
from neurostorm_bids.inputs import Selection, find_bold_runs, find_datasets
from neurostorm_bids.inputs.events import label_clips, read_events
from neurostorm_bids.retrieval import read_image_embeddings, reidentify, retrieve_images

PLAN = CohortPlan()
TR_S = PLAN.repetition_time_s


class Measured(NamedTuple):
    """What simple means find in the files, runs in rows.

    runs : participant_id, session, task, framewise_displacement (mean) and events (path).
    amplitudes : (n_runs, networks) deviation over time, as a share of the mean.
    courses : (n_runs, regions, T) change, as a share of the mean.
    front : (n_runs,) brightness in front, relative to that in the back.
    connectivity : (n_runs, n_pairs) correlations of small blocks of voxels.
    """

    runs: pd.DataFrame
    amplitudes: np.ndarray
    courses: np.ndarray
    front: np.ndarray
    connectivity: np.ndarray


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return folder, write_cohort(folder, PLAN)


@pytest.fixture(scope="module")
def measured(written):
    folder, cohort = written
    mask = cohort.regions >= 0
    region = cohort.regions[mask]
    x, y, z = np.nonzero(mask)
    _, block = np.unique(np.stack([x // 5, y // 5, z // 5]), axis=1, return_inverse=True)
    rows, courses, front, connectivity = [], [], [], []
    preprocessed = folder / "derivatives" / "fmriprep"
    for path in sorted(preprocessed.rglob("*_desc-preproc_bold.nii.gz")):
        bold = np.asarray(nib.load(path).dataobj)[mask].astype(np.float64)
        mean = bold.mean(axis=1)
        change = bold / mean[:, None] - 1
        participant, session, task, *_ = path.name.split("_")
        stem = f"{participant}_{session}_{task}"
        confounds = pd.read_csv(
            path.with_name(f"{stem}_desc-confounds_timeseries.tsv"), sep="\t", na_values="n/a"
        )
        rows.append(
            {
                "participant_id": participant,
                "session": session,
                "run": stem,
                "task": task,
                "framewise_displacement": confounds["framewise_displacement"].mean(),
                "events": folder / path.parent.relative_to(preprocessed) / f"{stem}_events.tsv",
            }
        )
        courses.append(average(change, region))
        front.append(mean[y > np.median(y)].mean() / mean[y <= np.median(y)].mean())
        together = np.corrcoef(average(change, block.ravel()))
        connectivity.append(together[np.triu_indices_from(together, k=1)])
    courses = np.stack(courses)
    deviation = courses.std(axis=2)
    return Measured(
        runs=pd.DataFrame(rows),
        amplitudes=(deviation[:, :N_NETWORKS] + deviation[:, N_NETWORKS:]) / 2,
        courses=courses,
        front=np.array(front),
        connectivity=np.stack(connectivity),
    )


def average(values, label):
    """Average (n_voxels, T) within the voxels of each label."""
    sums = np.stack([values[label == one].sum(axis=0) for one in range(label.max() + 1)])
    return sums / np.bincount(label)[:, None]


def by_person(values, measured, cohort, *, task="task-rest"):
    """Average over a participant's runs, in the order of the participants' table."""
    chosen = (measured.runs["task"] == task).to_numpy()
    people = measured.runs.loc[chosen, "participant_id"].to_numpy()
    means = pd.DataFrame(np.asarray(values)[chosen]).groupby(people).mean()
    return means.loc[cohort.participants["participant_id"]].to_numpy().squeeze()


def shuffled(values):
    return np.random.default_rng(0).permutation(np.asarray(values))


@pytest.mark.parametrize(
    ("network", "column"), [(AGE, "age"), (MEMORY, "memory_score")], ids=["age", "memory_score"]
)
def test_an_amplitude_follows_its_column_and_no_other(written, measured, network, column):
    people = written[1].participants
    amplitude = by_person(measured.amplitudes, measured, written[1])[:, network]
    assert np.corrcoef(amplitude, people[column])[0, 1] > 0.8
    assert abs(np.corrcoef(amplitude, shuffled(people[column]))[0, 1]) < 0.35
    other = {"age": "memory_score", "memory_score": "age"}[column]
    assert abs(np.corrcoef(amplitude, people[other])[0, 1]) < 0.35
    for binary in (people["sex"] == "F", people["diagnosis"] == "patient"):
        assert 0.3 < roc_auc_score(binary, amplitude) < 0.7


def test_an_amplitude_tells_patients_from_controls(written, measured):
    is_patient = written[1].participants["diagnosis"] == "patient"
    amplitude = by_person(measured.amplitudes, measured, written[1])[:, DIAGNOSIS]
    assert roc_auc_score(is_patient, amplitude) > 0.95
    assert 0.3 < roc_auc_score(shuffled(is_patient), amplitude) < 0.7


def test_connectivity_but_no_amplitude_tells_the_sexes(written, measured):
    is_woman = written[1].participants["sex"] == "F"
    one, other = SEX_PAIR
    together = [np.corrcoef(run[one], run[other])[0, 1] for run in measured.courses]
    correlation = by_person(together, measured, written[1])
    assert roc_auc_score(is_woman, correlation) > 0.95
    assert 0.3 < roc_auc_score(shuffled(is_woman), correlation) < 0.7
    for network in SEX_PAIR:
        amplitude = by_person(measured.amplitudes, measured, written[1])[:, network]
        assert 0.3 < roc_auc_score(is_woman, amplitude) < 0.7


def test_connectivity_of_blocks_that_know_no_network_tells_the_sexes_too(written, measured):
    is_woman = (written[1].participants["sex"] == "F").to_numpy()
    features = by_person(measured.connectivity, measured, written[1])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3))
    for truth, low, high in ((is_woman, 0.9, 1.0), (shuffled(is_woman), 0.25, 0.75)):
        assert low <= cross_val_score(model, features, truth, cv=5).mean() <= high


def test_brightness_and_motion_tell_the_site(written, measured):
    people = written[1].participants
    for values in (measured.front, measured.runs["framewise_displacement"]):
        feature = by_person(values, measured, written[1])[:, None]
        half = np.arange(len(people)) % 2 == 0
        model = KNeighborsClassifier(1).fit(feature[half], people["site"][half])
        found = model.predict(feature[~half])
        assert balanced_accuracy_score(people["site"][~half], found) > 0.9


def test_referral_is_the_site_and_nothing_else(written):
    people = written[1].participants
    assert (people["referral"][people["site"] == "A"] == "clinic").all()
    assert (people["referral"][people["site"] == "C"] == "school").all()
    in_b = people[people["site"] == "B"]
    assert abs((in_b["referral"] == "clinic").mean() - 0.5) < 0.2
    for column in ("age", "memory_score"):
        assert abs(spearmanr(people[column], people["referral"] == "clinic").statistic) < 0.35


@pytest.mark.parametrize("task", ["task-rest", "task-blocks"])
def test_connectivity_tells_who_somebody_is(measured, task):
    chosen = (measured.runs["task"] == task).to_numpy()
    runs, connectivity = measured.runs[chosen], measured.connectivity[chosen]
    second = (runs["session"] == "ses-2").to_numpy()
    exchanged = connectivity.copy()
    exchanged[second] = np.roll(connectivity[second], 3, axis=0)
    found = reidentify(
        {"connectivity": connectivity, "exchanged": exchanged},
        runs,
        generator=np.random.default_rng(0),
    )
    assert found["connectivity"].scores["rank1"].value > 0.9
    assert found["exchanged"].scores["rank1"].value < 0.15


def read_trials(measured):
    """Return the responses (n_trials, visual regions) to each block, and what was shown."""
    visual = [*VISUAL, *(N_NETWORKS + network for network in VISUAL)]
    responses, trials = [], []
    for (_, run), courses in zip(measured.runs.iterrows(), measured.courses, strict=True):
        if run["task"] != "task-blocks":
            continue
        events = pd.read_csv(run["events"], sep="\t")
        for event in events.itertuples():
            start, end = ((event.onset + delay) / TR_S for delay in (5, 5 + event.duration))
            responses.append(courses[visual, round(start) : round(end)].mean(axis=1))
            trials.append({**run, "stim_file": event.stim_file, "trial_type": event.trial_type})
    return np.stack(responses), pd.DataFrame(trials)


def test_responses_tell_faces_from_places(written, measured):
    responses, trials = read_trials(measured)
    direction = written[1].projection[:, 0]
    is_face = trials["trial_type"] == "face"
    assert roc_auc_score(is_face, responses @ direction) > 0.9
    assert 0.45 < roc_auc_score(shuffled(is_face), responses @ direction) < 0.55


@pytest.mark.parametrize("across", [False, True])
def test_responses_tell_which_image_was_seen(written, measured, across):
    folder, cohort = written
    responses, trials = read_trials(measured)
    images = read_image_embeddings(folder / "stimuli" / "embeddings.tsv")
    np.testing.assert_allclose(images, cohort.images[AXES])
    is_training = (trials["session"] == "ses-1").to_numpy()
    results = {}
    for name in ("planted", "shuffled"):
        if name == "shuffled":
            in_run = trials.groupby(["participant_id", "session"])["stim_file"]
            trials["stim_file"] = in_run.transform(np.random.default_rng(1).permutation)
        results[name] = retrieve_images(
            responses,
            trials,
            images,
            is_training=is_training,
            across=across,
            generator=np.random.default_rng(0),
        )
    for direction in ("forward", "backward"):
        score = getattr(results["planted"], direction)["rank1"]
        assert score.value > 4 * score.chance
        control = getattr(results["shuffled"], direction)["rank1"]
        assert control.low <= control.chance <= control.high
    assert (results["planted"].n_images, results["planted"].n_seen) == (12, 0)


def test_the_tree_is_discovered_with_masks_confounds_and_events(written):
    folder, cohort = written
    found = find_bold_runs(
        find_datasets(folder, {}), Selection(), preferred_spaces=("MNI152NLin6Asym",)
    )
    assert len(found.runs) == 4 * len(cohort.participants)
    assert not found.left_out
    assert not found.unusable
    assert all(run.brain_mask and run.confounds and not run.warnings for run in found.runs)
    assert {run.repetition_time_s for run in found.runs} == {TR_S}
    events = read_events(next(folder.glob("sub-01/ses-1/func/*_events.tsv"))).events
    labels = label_clips(events, np.arange(0, 200, 8.0), 8.0)
    assert {"face", "place"} <= set(labels)


def test_a_seed_makes_the_same_files_and_another_makes_others(tmp_path):
    contents = []
    for index, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(index)
        write_cohort(folder, CohortPlan(n_participants=3, n_sessions=1, seed=seed))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert contents[0].keys() == contents[2].keys()
    differ = {p for p in contents[0] if contents[0][p] != contents[2][p]}
    assert all(p in differ for p in contents[0] if p.name.endswith("_bold.nii.gz"))


@pytest.mark.parametrize("count", [12, 40])
def test_no_two_columns_of_the_people_go_together(count):
    people = draw_participants(count, generator=np.random.default_rng(3))
    assert find_largest_correlation(people) < (0.5 if count == 12 else 0.25)
    for column, n_values in (("sex", 2), ("site", 3), ("diagnosis", 2)):
        counts = people[column].value_counts()
        assert len(counts) == n_values
        assert counts.max() - counts.min() <= 1
