from __future__ import annotations

import pytest

from neurostorm_bids.errors import UsageError
from neurostorm_bids.train.devices import find_layout, start_fabric
from neurostorm_bids.train.options import TrainOptions


def test_the_launcher_says_how_many_processes_there_are():
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
    assert find_layout(torchrun) == (4, 2)
    assert find_layout({"SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "3"}) == (4, 3)
    assert find_layout({}) == (None, None)


def test_one_device_needs_no_other_process():
    fabric = start_fabric(TrainOptions(accelerator="cpu", devices=1))
    assert (fabric.world_size, fabric.device.type) == (1, "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(accelerator="cpu", strategy="fsdp"), "FSDP is only available on GPU"),
        (TrainOptions(accelerator="abacus"), "abacus"),
    ],
)
def test_what_does_not_fit_the_machine_is_a_mistake_of_usage(options, message):
    with pytest.raises(UsageError, match=message):
        start_fabric(options)
