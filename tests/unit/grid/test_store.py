"""A run goes into a file and comes out again, in part and as a whole, whatever befalls it."""

import errno
import fcntl
import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neurostorm_bids.errors import (
    DataError,
    MissingFileError,
    OutputError,
    TemporaryError,
    UsageError,
)
from neurostorm_bids.grid.normalise import find_statistics
from neurostorm_bids.grid.quantise import Quantisation
from neurostorm_bids.grid.resample import find_clock
from neurostorm_bids.grid.series import Series
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.store import StoredRun, StoreSettings, write_run

SHAPE = (7, 8, 9)


def make_series(*, n_volumes=30, repetition_time_s=2.0, seed=0):
    rng = np.random.default_rng(seed)
    brain_mask = rng.random(SHAPE) < 0.4
    base = 1000 + 100 * rng.standard_normal(brain_mask.sum())
    noise = rng.standard_normal((n_volumes, len(base)))
    frames = (base * (1 + 0.005 * noise)).astype(np.float32)
    spec = GridSpec.published(SHAPE)
    clock = find_clock(
        n_volumes,
        source_repetition_time_s=repetition_time_s,
        repetition_time_s=spec.repetition_time_s,
    )
    return Series(
        spec=spec,
        brain_mask=brain_mask,
        frames=frames,
        clock=clock,
        statistics=find_statistics(frames, clock, clip_negatives=False, name="a test"),
        source_affine=np.diag([2.5, 2.5, 3, 1]),
        source_repetition_time_s=repetition_time_s,
        brain_coverage=0.97,
        steps=("Made up.", "Not resampled — µ."),
        warnings=("It is no brain.",),
    )


@pytest.fixture
def series():
    return make_series()


@pytest.fixture
def path(series, tmp_path):
    """Return the file of the series."""
    path = tmp_path / "sub-01" / "run.safetensors"
    write_run(series, path, source={"bold": "run_bold.nii.gz"})
    return path


@pytest.fixture
def rewrite(path):
    """Return a function that writes the file again with other tensors and facts."""

    def rewrite(change_tensors=lambda _: None, change_facts=lambda _: None):
        tensors = load_file(path)
        content = path.read_bytes()
        n_header = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + n_header])["__metadata__"]["run"])
        change_tensors(tensors)
        change_facts(facts)
        save_file(tensors, path, metadata={"run": json.dumps(facts)})
        return path

    return rewrite


def half_a_step(series):
    """Return the largest rounding error, in units of the z-score."""
    extent = series.frames.max(axis=0) - series.frames.min(axis=0)
    return 0.5001 * extent.max() / 255 / series.statistics.sd


@pytest.mark.parametrize("repetition_time_s", [0.5, 0.72, 0.8, 2.0])
@pytest.mark.parametrize("length", [1, 5, 12])
def test_clips_of_a_stored_run_are_those_of_the_series(tmp_path, repetition_time_s, length):
    series = make_series(repetition_time_s=repetition_time_s)
    write_run(series, tmp_path / "run.safetensors")
    stored = StoredRun.open(tmp_path / "run.safetensors")
    assert stored.n_volumes == series.n_volumes
    for start in (0, 3, series.n_volumes - length):
        clip, expected = stored.read_clip(start, length), series.read_clip(start, length)
        assert clip.dtype == np.float32
        np.testing.assert_allclose(clip, expected, rtol=0, atol=half_a_step(series))
        np.testing.assert_array_equal(clip[~series.brain_mask], expected[~series.brain_mask])


def test_a_run_shorter_than_a_clip_is_padded_like_the_series(tmp_path):
    series = make_series(n_volumes=4, repetition_time_s=0.8)
    write_run(series, tmp_path / "run.safetensors")
    clip = StoredRun.open(tmp_path / "run.safetensors").read_clip(0, 20)
    np.testing.assert_allclose(clip, series.read_clip(0, 20), rtol=0, atol=half_a_step(series))


def test_all_of_a_run_is_its_clips_side_by_side(path):
    stored = StoredRun.open(path)
    clips = [stored.read_clip(start, 5) for start in range(0, stored.n_volumes, 5)]
    np.testing.assert_array_equal(stored.read_all(), np.concatenate(clips, axis=-1))


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (71, 5), (75, 1), (1, 100), (0, 0)])
def test_clips_outside_of_the_run_are_refused_like_those_of_the_series(path, start, length):
    with pytest.raises(UsageError, match=f"start {start} and length {length}"):
        StoredRun.open(path).read_clip(start, length)


def test_everything_but_the_rounding_comes_back(series, path):
    loaded = StoredRun.open(path).load()
    exact = {field.name for field in fields(Series)} - {"frames", "clock", "steps"}
    for name in exact:
        np.testing.assert_equal(getattr(loaded, name), getattr(series, name))
    for name in ("before", "after", "weight"):
        np.testing.assert_array_equal(getattr(loaded.clock, name), getattr(series.clock, name))
    assert loaded.steps[:-1] == series.steps
    assert loaded.steps[-1].startswith("Stored in 8 bits per value; in 0 of ")


@pytest.mark.parametrize(("n_bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_a_value_takes_the_bits_that_were_asked_for(series, tmp_path, n_bits, dtype):
    path = tmp_path / "run.safetensors"
    write_run(series, path, settings=StoreSettings(n_bits=n_bits))
    frames = load_file(path)["frames"]
    assert frames.dtype == dtype
    assert frames.shape == series.frames.shape
    per_voxel_and_rest = 8 * series.frames.shape[1] + 8000
    assert path.stat().st_size <= frames.nbytes + per_voxel_and_rest
    np.testing.assert_allclose(
        StoredRun.open(path).load().frames, series.frames, rtol=0, atol=40 / (2**n_bits - 1)
    )


def test_a_run_full_of_spikes_is_stored_in_16_bits_and_says_so(series, tmp_path):
    series.frames[10] += 5000
    write_run(series, tmp_path / "run.safetensors")
    loaded = StoredRun.open(tmp_path / "run.safetensors").load()
    assert "Stored in 16 bits" in loaded.steps[-1]
    calm = np.arange(len(series.frames)) != 10
    noise = (loaded.frames - series.frames)[calm].std(axis=0)
    assert np.all(noise < 0.02 * series.frames[calm].std(axis=0))


def test_a_spiky_voxel_leaves_a_run_in_8_bits_and_is_counted(series, tmp_path):
    series.frames[10, 0] += 5000
    write_run(series, tmp_path / "run.safetensors")
    step = StoredRun.open(tmp_path / "run.safetensors").load().steps[-1]
    assert step.startswith(f"Stored in 8 bits per value; in 1 of {series.frames.shape[1]} voxels")


@pytest.mark.parametrize(
    "settings", [{"n_bits": 12}, {"max_coarse_share": 1.5}, {"max_coarse_share": np.nan}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UsageError, match="8 or 16 bits"):
        StoreSettings(**settings)


def test_an_open_run_is_small_to_send_and_reads_in_other_processes(path):
    stored = StoredRun.open(path)
    assert len(pickle.dumps(stored)) < 2000
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        clips = [pool.submit(stored.read_clip, start, 5) for start in (0, 40)]
        for start, clip in zip((0, 40), clips, strict=True):
            np.testing.assert_array_equal(clip.result(), stored.read_clip(start, 5))


def test_the_rights_of_a_file_follow_the_umask(path):
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_tensors_begin_at_multiples_of_their_numbers(path):
    content = path.read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + n_header])
    assert n_header % 8 == 0
    assert all(entries[name]["data_offsets"][0] % 4 == 0 for name in ("offset", "step", "frames"))


@pytest.fixture
def broken_off(monkeypatch):
    """Break writing off in the middle of the frames."""

    def encode(self, frames):
        yield np.zeros(frames.shape[1], dtype=self.dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(Quantisation, "encode", encode)


@pytest.mark.usefixtures("broken_off")
def test_a_write_that_breaks_off_leaves_nothing(series, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_run(series, tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_breaks_off_leaves_the_file_before_it(series, path, request):
    before = path.read_bytes()
    request.getfixturevalue("broken_off")
    with pytest.raises(KeyboardInterrupt):
        write_run(series, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_written_over(series, path):
    before = path.read_bytes()
    (path.parent / f".{path.name}.tmp").write_bytes(b"half" * 100_000)
    write_run(series, path, source={"bold": "run_bold.nii.gz"})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_processes_do_not_write_the_same_run(series, path):
    before = path.read_bytes()
    hidden = path.parent / f".{path.name}.tmp"
    with hidden.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TemporaryError, match="Another process is writing"):
            write_run(series, path)
        assert hidden.exists()
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_an_error_of_the_output(series, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write .*choose another work folder"):
        write_run(series, tmp_path / "file" / "run.safetensors")


def test_a_full_disk_is_an_error_of_the_output(series, tmp_path, monkeypatch):
    def fill_up(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OutputError, match="No space left on device"):
        write_run(series, tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.safetensors"):
        StoredRun.open(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("n_bytes", [0, 5, 8, 100, 2000, -1])
def test_a_file_cut_short_is_refused_and_says_what_to_do(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(DataError, match="Delete it and prepare the run again"):
        StoredRun.open(path)


@pytest.mark.parametrize("content", [b"\xff" * 500, b"not a store" * 50])
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a stored run"):
        StoredRun.open(path)


def test_weights_of_a_model_are_no_run(path):
    save_file({"weight": np.zeros(3, dtype=np.float32)}, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match="not a stored run"):
        StoredRun.open(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "another"),
        ("format_version", 99),
        ("grid", {}),
        ("statistics", {"mean": "a lot"}),
        ("statistics", None),
        ("source_affine", [1, 2, 3]),
        ("source_repetition_time_s", -2.0),
        ("source_repetition_time_s", 1e300),
        ("source_repetition_time_s", "2"),
        ("steps", None),
        ("start_s", None),
        ("start_s", float("nan")),
    ],
)
def test_a_front_that_makes_no_sense_is_refused(rewrite, name, value):
    path = rewrite(change_facts=lambda facts: facts.update({name: value}))
    with pytest.raises(DataError, match="Delete it and prepare the run again"):
        StoredRun.open(path)


@pytest.mark.parametrize("name", ["start_s", "censoring", "statistics", "steps"])
def test_a_front_that_lacks_something_is_refused(rewrite, name):
    path = rewrite(change_facts=lambda facts: facts.pop(name))
    with pytest.raises(DataError, match=f"{name}.*Delete it and prepare the run again"):
        StoredRun.open(path)


def test_a_run_without_end_takes_no_memory(rewrite):
    nothing = {name: np.zeros(0, dtype=np.float32) for name in ("offset", "step")}
    endless = {**nothing, "frames": np.zeros((10**12, 0), dtype=np.uint8)}
    path = rewrite(lambda tensors: tensors.update(endless))
    with pytest.raises(DataError, match=r"1000000000000 volumes of 2\.0 s at 0\.8 s are no run"):
        StoredRun.open(path)


@pytest.mark.parametrize("name", ["offset", "step", "frames", "brain_mask"])
def test_tensors_that_do_not_fit_together_are_refused(rewrite, name):
    path = rewrite(lambda tensors: tensors.update({name: tensors[name][..., :-1].copy()}))
    with pytest.raises(DataError, match="expected tensors of shapes"):
        StoredRun.open(path)


def test_a_mask_of_another_size_is_refused_on_reading(rewrite):
    path = rewrite(lambda tensors: tensors["brain_mask"].fill(255))
    with pytest.raises(DataError, match="its mask has 504 voxels"):
        StoredRun.open(path).read_clip(0, 5)


def test_facts_that_a_series_does_not_have_are_refused_on_reading(rewrite):
    path = rewrite(change_facts=lambda facts: facts.update(favourite_colour="red"))
    with pytest.raises(DataError, match="favourite_colour"):
        StoredRun.open(path).load()
