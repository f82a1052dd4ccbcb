"""What fits into the memory that the user gives."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.errors import TemporaryError, UsageError
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.inputs import Cleaning
from neurostorm_bids.options import ParticipantOptions, parse_memory
from neurostorm_bids.participant import memory
from neurostorm_bids.participant.jobs import Job

BASE = 500_000_000
CLIP_BYTES = 48**3 * 10 * 4


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Plan for runs of some lengths with a small model, in processes of a known size."""
    model = SimpleNamespace(
        grid=GridSpec.published(48),
        clip_length=10,
        config=SimpleNamespace(img_size=(48, 48, 48, 10), patch_size=(6, 6, 6, 1), embed_dim=12),
    )
    monkeypatch.setattr(memory, "load_models", lambda _: (model,))
    monkeypatch.setattr(memory, "measure_process_bytes", lambda: BASE)

    def plan(lengths, limit, **options):
        jobs = []
        for i, length in enumerate(lengths):
            path = tmp_path / f"{i}_bold.nii"
            if length:
                nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, length), np.int16), np.eye(4)), path)
            run = SimpleNamespace(path=path, label=str(i), cleaning=Cleaning())
            jobs.append(Job(run, {0: ""}, {}, {}))
        options = {"nprocs": 4, "omp_nthreads": 1, "device": "cpu", **options}
        return memory.plan_memory(
            jobs,
            ParticipantOptions(
                bids_dir=tmp_path, output_dir=tmp_path, memory_bytes=limit, **options
            ),
        )

    return plan


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("16GB", 16_000_000_000),
        ("16g", 16_000_000_000),
        ("1.5 TB", 1_500_000_000_000),
        ("500MB", 500_000_000),
        ("2GiB", 2 * 1024**3),
    ],
)
def test_an_amount_of_memory_has_a_unit(text, n_bytes):
    assert parse_memory(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["16", "16 gigs", "GB", "-1GB", "0GB", "1e3GB", "16B", "", "9" * 400 + "G"]
)
def test_other_amounts_are_refused(text):
    with pytest.raises(UsageError, match="with its unit"):
        parse_memory(text)


def test_without_a_limit_the_cpus_decide(plan):
    found = plan([100] * 8, None)
    assert (len(found.jobs), found.n_workers, found.refused) == (8, 4, [])
    assert all(job.batch_size is None for job in found.jobs)


def test_fewer_runs_at_a_time_hold_less(plan):
    counts = [plan([100] * 8, limit).n_workers for limit in (10**10, 2 * 10**9, 10**9)]
    assert counts[0] == 4
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_the_runs_at_a_time_fit_together(plan):
    limit = 3_000_000_000
    found = plan([100, 100, 3000, 100], limit)
    models = memory.load_models(None)
    needs = [BASE + memory.estimate_run_bytes(job.run, models, batch_size=1) for job in found.jobs]
    n = found.n_workers
    assert BASE + sum(sorted(needs)[-n:]) <= limit
    assert n == 4 or BASE + sum(sorted(needs)[-n - 1 :]) > limit


def test_a_long_run_needs_more_than_a_short_one_and_so_does_a_batch(plan):
    short, long = (job.run for job in plan([10, 1000], None).jobs)
    models = memory.load_models(None)
    one, two = (memory.estimate_run_bytes(run, models, batch_size=1) for run in (short, long))
    n_brain = min(48**3, memory.BRAIN_MM3 / 64)
    assert two - one == pytest.approx(990 * 4 * n_brain, rel=1e-3)
    assert memory.estimate_run_bytes(short, models, batch_size=4) - one >= 3 * 3 * CLIP_BYTES
    assert memory.estimate_run_bytes(short, models, batch_size=1, gradients=True) > one
    cleaned = SimpleNamespace(path=long.path, cleaning=Cleaning(denoise="simple"))
    assert memory.estimate_run_bytes(cleaned, models, batch_size=1) > 1.5 * two


def test_a_run_that_does_not_fit_is_worked_on_in_smaller_batches(plan):
    (job,) = plan([10], BASE + 200_000_000, batch_size=64).jobs
    assert 1 <= job.batch_size < 64
    assert plan([10], 10**10, batch_size=64).jobs[0].batch_size == 64


def test_a_run_that_does_not_fit_at_all_is_refused_alone(plan):
    found = plan([10, 20_000], 2 * 10**9)
    assert [job.run.label for job in found.jobs] == ["0"]
    ((job, error),) = found.refused
    assert job.run.label == "1"
    assert isinstance(error, TemporaryError)
    assert "--mem allows 2.00 GB" in str(error)


def test_a_run_that_cannot_be_read_is_left_to_fail_by_itself(plan):
    assert len(plan([0], 10**9).jobs) == 1


def test_the_next_run_is_read_ahead_where_there_is_a_cpu_for_it(plan):
    assert plan([10] * 3, None, nprocs=2, omp_nthreads=2).looks_ahead
    assert not plan([10] * 3, None, nprocs=1, omp_nthreads=1).looks_ahead


def test_the_next_run_is_read_ahead_only_if_both_fit(plan):
    """A run of 1000 volumes beside one of 2000 needs what both need, with one network."""
    lengths, cpus = [1000, 2000], {"nprocs": 2, "omp_nthreads": 2}
    first, second = (job.run for job in plan(lengths, None).jobs)
    models = memory.load_models(None)
    both = (
        BASE
        + memory.estimate_run_bytes(first, models, batch_size=1)
        + memory.estimate_series_bytes(second, models)
    )
    assert plan(lengths, both, **cpus).looks_ahead
    tight = plan(lengths, both - 1, **cpus)
    assert not tight.looks_ahead
    assert len(tight.jobs) == 2
    assert tight.refused == []


def test_several_runs_at_a_time_are_not_read_ahead_within_a_limit(plan):
    found = plan([10] * 4, 10**11, nprocs=4, omp_nthreads=2)
    assert (found.n_workers, found.looks_ahead) == (2, False)
