"""The processes and devices of a training, as the options and the launcher want them."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from filelock import Timeout
from lightning_fabric import Fabric
from lightning_fabric.strategies.fsdp import FSDPStrategy
from lightning_fabric.strategies.parallel import ParallelStrategy

from neurostorm_bids.derivatives.locks import hold_lock
from neurostorm_bids.errors import TemporaryError, UsageError
from neurostorm_bids.model.block import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from neurostorm_bids.train.options import TrainOptions


class Layout(NamedTuple):
    """Devices per node and nodes, as a launcher started them; None where it does not say."""

    devices: int | None
    num_nodes: int | None


def start_fabric(options: TrainOptions) -> Fabric:
    """Join the processes of a training, and seed PyTorch's global generators.

    torchrun and srun start one process per device. Without them, the first process starts those of
    the other devices here, with the same command line: whatever stands before this call runs in
    each of them.

    Raises
    ------
    UsageError
        If devices, launcher and options do not fit together.
    """
    layout = find_layout(os.environ)
    try:
        fabric = Fabric(
            accelerator=options.accelerator,
            devices=options.devices or layout.devices or "auto",
            num_nodes=options.num_nodes or layout.num_nodes or 1,
            strategy=_make_fsdp() if options.strategy == "fsdp" else options.strategy,
            precision=options.precision,
        )
        fabric.launch()
    except (RuntimeError, ValueError) as err:
        raise UsageError(
            f"The training cannot start on these devices: {err} "
            "Check devices, num_nodes, accelerator and strategy."
        ) from err
    # The threads of a process group that is still there when Python ends abort the process.
    atexit.register(_leave_process_group)
    fabric.seed_everything(options.seed, verbose=False)
    if fabric.device.type == "cuda":
        _choose_deterministic_kernels()
    return fabric


def _leave_process_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def find_layout(environment: Mapping[str, str]) -> Layout:
    """Read from the environment how many processes torchrun or srun started."""
    if "TORCHELASTIC_RUN_ID" in environment:
        devices = int(environment["LOCAL_WORLD_SIZE"])
        return Layout(devices, int(environment["WORLD_SIZE"]) // devices)
    if "SLURM_NTASKS_PER_NODE" in environment:
        return Layout(
            int(environment["SLURM_NTASKS_PER_NODE"]), int(environment.get("SLURM_NNODES", "1"))
        )
    return Layout(None, None)


def is_sharded(fabric: Fabric) -> bool:
    """Return whether devices share out the model, so that each pass needs all of them."""
    return isinstance(fabric.strategy, FSDPStrategy)


def is_on_any(fabric: Fabric, *, value: bool) -> bool:
    """Return whether the value is true in any of the processes; all of them have to ask."""
    if fabric.world_size == 1:
        return value
    flag = torch.tensor(float(value), device=fabric.device)
    return bool(torch.as_tensor(fabric.all_reduce(flag, reduce_op="sum")) > 0)


def gather_rows(fabric: Fabric, rows: Tensor) -> Tensor:
    """Join the rows of all processes, in the order of their ranks; all of them have to take part.

    Gradients flow back to each process's own rows, summed over processes.
    """
    if fabric.world_size == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, fabric.global_rank, fabric.world_size)  # type: ignore[no-untyped-call]
    return gathered


@contextmanager
def hold_folder(fabric: Fabric, folder: Path) -> Iterator[None]:
    """Keep other trainings out of a folder; the system lets go of it when the process dies.

    Every process of the training has to call this.

    Raises
    ------
    TemporaryError
        If another training works in this folder.
    """
    with ExitStack() as stack:
        is_free = True
        if fabric.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold_lock(folder / ".lock", timeout_s=0))
            except Timeout:
                is_free = False
        if not fabric.broadcast(is_free):
            end_helper(fabric)
            raise TemporaryError(
                f"Another training works in {folder}. Wait until it ends; or give this one another "
                "work folder."
            )
        yield


def end_helper(fabric: Fabric) -> None:
    """End this process, if the first process of this machine started it to help; else do nothing.

    To be called before an error that all processes raise alike: the first one reports it. It would
    be killed before it can, if it found that a process it started ended with another status than 0.
    """
    strategy = fabric.strategy
    if fabric.local_rank > 0 and isinstance(strategy, ParallelStrategy):
        environment = strategy.cluster_environment
        if environment is not None and not environment.creates_processes_externally:
            raise SystemExit(0)


class _GatherRows(torch.autograd.Function):
    """An all-gather along the first axis; backwards, an all-reduce of which each keeps its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, n_processes: int) -> Tensor:  # noqa: ANN401
        ctx.own = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(n_processes)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total[ctx.own], None, None


def _make_fsdp() -> FSDPStrategy:
    return FSDPStrategy(auto_wrap_policy={Block}, state_dict_type="full")


def _choose_deterministic_kernels() -> None:
    """Prefer kernels that give the same numbers each time; others warn when they are used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
