"""Many runs into a store: what is done stays, what fails is told, the others go on."""

import json
import sys
from subprocess import PIPE, Popen

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import DataError, OutputError, TemporaryError
from neurostorm_bids.grid.prepare import call_each, find_stored_path, prepare_runs
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.store import StoredRun, StoreSettings
from neurostorm_bids.inputs.records import BoldRun, SourceDataset

SPEC = GridSpec(
    space="MNI152NLin6Asym",
    shape=(6, 6, 6),
    affine=((-2, 0, 0, 10), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 1)),
    repetition_time_s=0.8,
)


def write_image(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, np.diag([2, 2, 2, 1]))
    image.set_sform(image.affine, code=4)
    nib.save(image, path)
    return path


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a participant's run and its mask."""
    dataset = SourceDataset(name="fmriprep", path=tmp_path / "fmriprep")

    def make_run(participant, *, seed=0):
        entities = {"sub": participant, "task": "rest", "space": SPEC.space, "desc": "preproc"}
        stem = "_".join(f"{key}-{value}" for key, value in entities.items())
        folder = dataset.path / f"sub-{participant}" / "func"
        noise = np.random.default_rng(seed).standard_normal((6, 6, 6, 12))
        bold = (1000 + 10 * noise).astype(np.float32)
        return BoldRun(
            path=write_image(folder / f"{stem}_bold.nii.gz", bold),
            entities=entities,
            space=SPEC.space,
            repetition_time_s=2.0,
            brain_mask=write_image(folder / f"{stem}_mask.nii.gz", np.ones((6, 6, 6), np.uint8)),
            confounds=None,
            dataset=dataset,
        )

    return make_run


@pytest.fixture
def store(tmp_path):
    """Return the folder of a store that is not there yet."""
    return tmp_path / "work" / "store"


def test_a_store_holds_what_gridding_gives_and_failing_runs_are_told(make_run, store):
    runs = [make_run("01"), make_run("02", seed=2), make_run("03", seed=3)]
    runs[1].path.write_bytes(runs[1].path.read_bytes()[:-500])

    preparation = prepare_runs(runs, SPEC, store, n_workers=2)

    assert [prepared.run for prepared in preparation.prepared] == [runs[0], runs[2]]
    for run, path in preparation.prepared:
        series = grid_run(run.path, SPEC, repetition_time_s=2.0, brain_mask=run.brain_mask)
        step_in_sd = np.ptp(series.frames, axis=0).max() / 255 / series.statistics.sd
        stored = StoredRun.open(path).read_all()
        np.testing.assert_allclose(stored, series.read_all(), atol=0.51 * step_in_sd)
    [(run, error)] = preparation.failed
    assert run is runs[1]
    assert isinstance(error, DataError)
    assert "damaged or cut short" in str(error)


def test_what_is_done_stays_and_what_is_damaged_is_made_again(make_run, store):
    runs = [make_run("01"), make_run("02", seed=2)]
    done, damaged = (p.path for p in prepare_runs(runs, SPEC, store).prepared)
    content, before = damaged.read_bytes(), done.stat()
    damaged.write_bytes(content[:-10])

    again = prepare_runs(runs, SPEC, store)

    assert [prepared.path for prepared in again.prepared] == [done, damaged]
    assert damaged.read_bytes() == content
    assert (done.stat().st_ino, done.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_store_that_cannot_be_written_ends_the_preparation(make_run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        prepare_runs([make_run("01")], SPEC, tmp_path / "file")


def test_the_name_of_a_stored_run_tells_dataset_participant_and_run(make_run, store):
    path = find_stored_path(make_run("01"), SPEC, store)
    assert path.parent == store / "fmriprep" / "sub-01"
    stem, key = path.stem.rsplit("_", 1)
    assert stem == "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc"
    assert len(bytes.fromhex(key)) == 8


def test_another_source_or_configuration_has_another_file(make_run, store):
    run = make_run("01")
    other_grid = GridSpec.published(24)
    settings = StoreSettings(n_bits=16)
    paths = [
        find_stored_path(run, SPEC, store),
        find_stored_path(run, other_grid, store),
        find_stored_path(run, SPEC, store, settings),
    ]
    write_image(run.brain_mask, np.eye(6, dtype=np.uint8)[..., None] * np.ones(6, np.uint8))
    paths.append(find_stored_path(run, SPEC, store))
    paths.append(find_stored_path(make_run("01", seed=5), SPEC, store))
    assert len(set(paths)) == 5


def test_a_copy_of_a_source_has_the_same_file(make_run, store):
    run = make_run("01")
    before = find_stored_path(run, SPEC, store)
    content = run.path.read_bytes()
    run.path.unlink()
    run.path.write_bytes(content)
    assert find_stored_path(run, SPEC, store) == before


def test_the_file_says_what_it_was_made_from(make_run, store):
    run = make_run("01")
    [(_, path)] = prepare_runs([run], SPEC, store).prepared
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    source = json.loads(header["__metadata__"]["run"])["source"]
    assert source["bold"]["name"] == run.path.name
    assert source["repetition_time_s"] == 2.0


def test_a_killed_worker_takes_no_other_call_with_it():
    kill = "__import__('os')._exit(9)"
    calls = ["1 + 1", kill, "2 + 2", "1 / 0", "3 + 3"]
    outcomes = {outcome.number: outcome for outcome in call_each(eval, calls, n_workers=2)}
    assert {number: outcomes[number].value for number in (0, 2, 4)} == {0: 2, 2: 4, 4: 6}
    assert isinstance(outcomes[1].error, TemporaryError)
    assert "want of memory" in str(outcomes[1].error)
    assert isinstance(outcomes[3].error, ZeroDivisionError)


def test_workers_end_when_the_process_that_started_them_is_killed():
    work = "print('at work', flush=True) or __import__('time').sleep(300)"
    script = (
        "from neurostorm_bids.grid.prepare import call_each\n"
        f"list(call_each(eval, [{work!r}], n_workers=1))"
    )
    with Popen([sys.executable, "-c", script], stdout=PIPE) as parent:
        assert parent.stdout.readline() == b"at work\n"
        parent.kill()
        # A worker that lived on would hold the pipe open.
        assert parent.communicate(timeout=100)[0] == b""


def test_no_calls_have_no_outcomes():
    assert list(call_each(eval, [], n_workers=2)) == []
