from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np

from neurostorm_bids.report.signals import choose_rows, measure_signals


def test_the_numbers_are_those_of_the_whole_series_at_once(series):
    found = measure_signals(series)
    frames = series.frames.astype("f8")
    time = np.arange(len(frames))
    trend = np.polynomial.polynomial.polyfit(time, frames, 1)
    rest = frames - np.polynomial.polynomial.polyval(time, trend).T
    change = np.sqrt((np.diff(frames, axis=0) ** 2).mean(axis=1))
    assert np.allclose(found.mean, frames.mean(axis=0), rtol=1e-5)
    assert np.allclose(found.sd, np.sqrt((rest**2).sum(axis=0) / (len(frames) - 2)), rtol=1e-3)
    assert np.allclose(found.global_signal, frames.mean(axis=1))
    assert np.isnan(found.dvars[0])
    assert np.allclose(found.dvars[1:], change / np.median(change), rtol=1e-4)


def test_the_series_is_not_copied(series):
    long = replace(series, frames=np.repeat(series.frames, 20, axis=0))
    tracemalloc.start()
    measure_signals(long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert long.frames.shape[1] < 8192  # one part: a copy of it, its changes and its squares
    wide = replace(
        series,
        frames=np.repeat(series.frames, 8, axis=1),
        brain_mask=np.repeat(series.brain_mask, 8, axis=0),
    )
    tracemalloc.start()
    measure_signals(wide)
    assert tracemalloc.get_traced_memory()[1] < 8 * wide.frames.nbytes
    tracemalloc.stop()
    assert peak < 5 * long.frames.nbytes


def test_a_constant_voxel_has_no_tsnr_and_gives_no_warning(series):
    frames = series.frames.copy()
    frames[:, 0] = 7
    found = measure_signals(replace(series, frames=frames))
    assert np.isnan(found.tsnr[0])
    assert np.isfinite(found.tsnr[1:]).all()
    assert np.isfinite(found.carpet).all()


def test_a_run_without_its_mean_is_known(series):
    assert not measure_signals(series).is_demeaned
    frames = series.frames - series.frames.mean(axis=0)
    assert measure_signals(replace(series, frames=frames)).is_demeaned


def test_rows_of_the_carpet_go_from_the_edge_to_the_core(series):
    rows = choose_rows(series.brain_mask)
    voxels = np.argwhere(series.brain_mask)[rows]
    from_centre = np.linalg.norm(voxels - voxels.mean(axis=0), axis=1)
    assert len(set(rows.tolist())) == len(rows) == 300
    assert from_centre[:50].mean() > from_centre[-50:].mean()


def test_a_tiny_brain_has_a_row_for_each_voxel():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1:3, 1:3, 1:3] = True
    assert sorted(choose_rows(mask)) == list(range(8))
