"""What is asked of Slurm, as users write it."""

from __future__ import annotations

import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.executor.options import SlurmOptions, parse_sbatch_option, parse_time


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:00", 90),
        ("0:30", 1),
        ("4:00:00", 240),
        ("1-12", 36 * 60),
        ("1-12:30", 36 * 60 + 30),
        ("2-00:00:01", 2 * 24 * 60 + 1),
    ],
)
def test_a_time_limit_reads_as_slurm_reads_it(text, minutes):
    assert parse_time(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "4h", "1:2:3:4", "-1", "infinite", "1-", "1 "])
def test_other_time_limits_are_refused(text):
    with pytest.raises(UsageError, match="--slurm-time"):
        parse_time(text)


def test_the_default_time_limit_is_one():
    assert SlurmOptions().minutes == 240


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("partition=gpu", ("partition", "gpu")),
        ("gres=gpu:a100:1", ("gres", "gpu:a100:1")),
        ("mail_type=FAIL,END", ("mail-type", "FAIL,END")),
        ("--mem-per-cpu=4G", ("mem-per-cpu", "4G")),
        ("comment=a=b", ("comment", "a=b")),
    ],
)
def test_an_option_of_sbatch_is_a_name_and_a_value(text, option):
    assert parse_sbatch_option(text) == option


@pytest.mark.parametrize("text", ["partition", "=gpu", "partition=", "a b=c", "comment=x\ny"])
def test_what_is_no_option_of_sbatch_is_refused(text):
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_sbatch_option(text)


@pytest.mark.parametrize("text", ["array=0-3", "--output=x", "ntasks=4", "cpus-per-task=2"])
def test_what_would_break_the_array_is_refused(text):
    with pytest.raises(UsageError, match="set by neurostorm itself"):
        parse_sbatch_option(text)
