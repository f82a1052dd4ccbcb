from __future__ import annotations

import pytest
import torch

from neurostorm_bids.errors import ReadError
from neurostorm_bids.train.clips import Batch, ClipDataset


def test_samples_come_in_turn_with_the_clips_of_their_run(tiny):
    dataset = tiny.make_dataset(tiny.make_runs([1, 2]), clips_per_sample=2)
    loaded = list(dataset.stream([3, 0, 11], workers=2))
    assert [one.sample.position for one in loaded] == [3, 0, 11]
    for sample, clips in loaded:
        run = tiny.FakeRun(sample.run.path)
        for start, clip in zip(sample.starts, clips, strict=True):
            expected = torch.from_numpy(run.read_clip(start, tiny.CLIP_LENGTH))
            assert torch.equal(clip, expected.unsqueeze(0))


def test_the_number_of_readers_changes_nothing(tiny):
    dataset = tiny.make_dataset(tiny.make_runs([1, 2]))
    one, many = (list(dataset.stream(range(9), workers=n)) for n in (1, 4))
    assert all(torch.equal(a.clips[0], b.clips[0]) for a, b in zip(one, many, strict=True))


def test_a_batch_keeps_the_views_of_a_sample_apart(tiny):
    dataset = tiny.make_dataset(tiny.make_runs([1, 2]), clips_per_sample=2)
    loaded = list(dataset.stream(range(3), workers=1))
    batch = Batch.join(loaded, torch.device("cpu"))
    assert [tuple(view.shape) for view in batch.clips] == [(3, 1, *tiny.SHAPE, 5)] * 2
    assert torch.equal(batch.clips[1][2], loaded[2].clips[1])


def test_a_run_that_cannot_be_read_says_so_itself(tiny):
    def fail(path):
        raise ReadError(f"Reading {path} broke off.")

    order = tiny.make_dataset(tiny.make_runs([1])).order
    dataset = ClipDataset(order, clip_length=5, open_run=fail)
    with pytest.raises(ReadError, match="Reading 1 broke off"):
        list(dataset.stream(range(3), workers=2))
