"""A clip that is restored on a device is the one that would have been read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.grid.normalise import find_statistics
from neurostorm_bids.grid.resample import find_clock
from neurostorm_bids.grid.series import Series
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.store import StoredRun, StoreSettings, write_run
from neurostorm_bids.train.clips import Batch, ClipDataset
from neurostorm_bids.train.loop import Training
from neurostorm_bids.train.restore import restore_clip

CPU = torch.device("cpu")
SHAPE = (7, 6, 9)  # 378 voxels, which is no multiple of eight


def make_run(path, *, n_volumes=30, repetition_time_s=2.0, n_bits=8, clip_negatives=False):
    rng = np.random.default_rng(5)
    mask = rng.random(SHAPE) < 0.4
    frames = (100 + 60 * rng.standard_normal((n_volumes, mask.sum()))).astype(np.float32)
    spec = GridSpec.published(SHAPE)
    clock = find_clock(n_volumes, source_repetition_time_s=repetition_time_s, repetition_time_s=0.8)
    series = Series(
        spec=spec,
        brain_mask=mask,
        frames=frames,
        clock=clock,
        statistics=find_statistics(frames, clock, clip_negatives=clip_negatives, name="a test"),
        source_affine=np.eye(4),
        source_repetition_time_s=repetition_time_s,
        brain_coverage=1.0,
        steps=(),
        warnings=(),
        clip_negatives=clip_negatives,
    )
    write_run(series, path, settings=StoreSettings(n_bits=n_bits))
    return StoredRun.open(path)


@pytest.mark.parametrize("clip_negatives", [False, True])
@pytest.mark.parametrize("n_bits", [8, 16])
@pytest.mark.parametrize("repetition_time_s", [0.5, 0.8, 2.0])
def test_every_number_is_that_of_the_clip_that_is_read(
    tmp_path, repetition_time_s, n_bits, clip_negatives
):
    run = make_run(
        tmp_path / "run.safetensors",
        repetition_time_s=repetition_time_s,
        n_bits=n_bits,
        clip_negatives=clip_negatives,
    )
    for start in (0, 3, run.n_volumes - 12):
        restored = restore_clip(run.read_stored_clip(start, 12), CPU)
        assert restored.dtype == torch.float32
        np.testing.assert_array_equal(restored.numpy(), run.read_clip(start, 12))


def test_a_short_run_is_padded_alike(tmp_path):
    run = make_run(tmp_path / "run.safetensors", n_volumes=4, repetition_time_s=0.8)
    restored = restore_clip(run.read_stored_clip(0, 20), CPU)
    np.testing.assert_array_equal(restored.numpy(), run.read_clip(0, 20))


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (71, 5), (0, 0)])
def test_clips_outside_of_the_run_are_refused(tmp_path, start, length):
    run = make_run(tmp_path / "run.safetensors")
    with pytest.raises(UsageError, match=f"start {start} and length {length}"):
        run.read_stored_clip(start, length)


def test_what_is_sent_is_much_less_than_the_clip(tmp_path):
    run = make_run(tmp_path / "run.safetensors")
    clip = run.read_stored_clip(0, 20)
    sent = (clip.codes, *clip.quantisation[:2], clip.mask_bits, clip.before, clip.weight)
    assert sum(array.nbytes for array in sent) * 8 < run.read_clip(0, 20).nbytes


def test_batches_are_the_same_either_way(tmp_path):
    path = tmp_path / "run.safetensors"
    make_run(path)
    order = [SimpleNamespace(run=SimpleNamespace(path=path), starts=(at, at + 7)) for at in (0, 40)]
    dataset = ClipDataset(order, clip_length=6, open_run=StoredRun.open)
    one, other = (
        Batch.join(list(dataset.stream([1, 0], workers=2, as_stored=as_stored)), CPU)
        for as_stored in (False, True)
    )
    assert one.samples == other.samples == (order[1], order[0])
    assert [view.shape for view in other.clips] == [(2, 1, *SHAPE, 6)] * 2
    assert all(torch.equal(a, b) for a, b in zip(one.clips, other.clips, strict=True))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_clips_are_sent_as_stored_to_a_gpu_only(device):
    class Dataset:
        def stream(self, positions, *, workers, as_stored):
            asked.append((list(positions), workers, as_stored))
            yield from "ab"

    asked = []
    fabric = SimpleNamespace(device=torch.device(device), world_size=1, global_rank=0)
    options = SimpleNamespace(batch_size=2, workers=3, find_share=lambda _: 2)
    training = SimpleNamespace(fabric=fabric, options=options)
    assert list(Training._stream(training, Dataset(), range(1))) == [["a", "b"]]
    assert asked == [([0, 1], 3, device == "cuda")]
