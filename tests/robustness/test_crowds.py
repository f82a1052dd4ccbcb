"""Many calls at once, file systems without locks, and trees of many files."""

from __future__ import annotations

import os

import pytest

from neurostorm_bids.inputs.scan import list_participants
from tests.robustness.driver import check_whole, list_leftovers, read_results

IS_LONG = "NEUROSTORM_KILLS" in os.environ
N_CALLS = 16


@pytest.mark.skipif(not IS_LONG, reason="long: make robustness")
def test_calls_on_the_same_participants_at_once_end_with_one_call_s_results(
    ground, nursery, undisturbed, tmp_path
):
    whole, output = undisturbed("participant"), tmp_path / "out"
    logs = [tmp_path / f"log{number}" for number in range(N_CALLS)]
    pids = [nursery.start(ground.words("participant", output), log=log) for log in logs]
    statuses = [nursery.wait(pid) for pid in pids]
    assert statuses == [0] * N_CALLS, [log.read_text() for log in logs]
    assert check_whole(output) > 0
    assert read_results(output) == whole.results
    assert list_leftovers(output) == []


@pytest.mark.skipif(not IS_LONG, reason="long: make robustness")
def test_of_two_trainings_in_one_folder_the_second_says_why_it_does_not(ground, nursery, tmp_path):
    output = tmp_path / "out"
    logs = [tmp_path / f"log{number}" for number in range(2)]
    words = ground.words("pretrain", output)
    pids = [nursery.start(words, log=log) for log in logs]
    statuses = sorted(nursery.wait(pid) for pid in pids)
    assert statuses in ([0, 75], [0, 0]), [log.read_text() for log in logs]
    if 75 in statuses:
        assert any("Another training works in" in log.read_text() for log in logs)
    assert check_whole(output) > 0


@pytest.mark.parametrize(
    "how", ["ENOLCK", "ENOTSUP", "ENOSYS", "nothing"] if IS_LONG else ["ENOLCK"]
)
@pytest.mark.parametrize("level", ["participant", "pretrain", "finetune"])
def test_a_file_system_without_locks_is_warned_of_and_works(
    ground, nursery, undisturbed, tmp_path, level, how
):
    if level != "participant" and not IS_LONG:
        pytest.skip("long: make robustness")
    output, log = tmp_path / "out", tmp_path / "log"
    status = nursery.run(ground.words(level, output), log=log, flock=how)
    assert status == 0, log.read_text()
    if how in {"ENOLCK", "ENOTSUP"}:
        assert "no locks" in log.read_text()
    assert read_results(output) == undisturbed(level).results


@pytest.mark.skipif(not IS_LONG, reason="long: make robustness")
@pytest.mark.parametrize("n_calls", [8])
def test_calls_on_other_participants_without_locks_lose_no_result(
    ground, nursery, tmp_path, n_calls
):
    output = tmp_path / "out"
    pids = [
        nursery.start(
            [*ground.words("participant", output)[:-2], f"{1 + number % 6:02d}"],
            log=tmp_path / f"log{number}",
            flock="nothing",
        )
        for number in range(n_calls)
    ]
    assert [nursery.wait(pid) for pid in pids] == [0] * n_calls
    assert check_whole(output) > 0
    assert len(list(output.glob("sub-*/func/*_desc-scan_embedding.tsv"))) == 6


@pytest.mark.parametrize("n_others", [10, 1000 if IS_LONG else 60])
def test_the_scan_lists_no_folder_of_those_who_were_not_chosen(tmp_path, monkeypatch, n_others):
    """With 100 files for each of 1000 others, so that 100,000 files are passed by."""
    for number in range(n_others):
        func = tmp_path / f"sub-{number:04d}" / "func"
        func.mkdir(parents=True)
        for index in range(100 if IS_LONG else 2):
            (func / f"sub-{number:04d}_task-rest_run-{index}_bold.nii.gz").touch()
    (tmp_path / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')
    listed = []
    for name in ("scandir", "listdir"):
        original = getattr(os, name)

        def count(path=".", original=original):
            listed.append(str(path))
            return original(path)

        monkeypatch.setattr(os, name, count)
    assert len(list_participants(tmp_path)) == n_others
    assert len(listed) <= 2
