"""Where the time of the backbone goes on a CPU, part by part, and where it went before.

    python benchmarks/stages.py [--threads 1] [--rounds 5]

Patch embedding, and of every stage the embedding of positions, the blocks and the merging, each by
itself on what the part before it gave: a forward, and a training step, which is forward and
backward. Side by side in one process and in turns: all by PyTorch's operations; only the selective
scan in C, as training was before blocks had a gradient there; and blocks in C.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from backbone import Stopwatch, make_model
from machine import describe_machine

from neurostorm_bids.model.operations import COMPILED, TORCH, Operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from neurostorm_bids.model.backbone import Backbone

    Part = Callable[[Tensor, Operations], Tensor]

logger = logging.getLogger(__name__)

WAYS = {
    "pytorch": TORCH,
    "scan_compiled": COMPILED._replace(update=None, embed=None),
    "compiled": COMPILED,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="Backbone: where time goes, part by part.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stages.json"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    backbone, clip = make_model()
    results = {
        "what": "encoder of the published base model, one clip of 96 x 96 x 96 x 20, float32",
        "machine": describe_machine(),
        "threads": options.threads,
        "rounds": options.rounds,
        "median_ms": measure_parts(backbone, clip, rounds=options.rounds),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    logger.info("%s\nWritten to %s", json.dumps(results, indent=2), options.out)


def list_parts(backbone: Backbone) -> dict[str, Part]:
    """Return the parts of a forward by name, in order."""
    parts: dict[str, Part] = {"patches": lambda x, ops: backbone.patch_embed(x, ops=ops)}
    for number, (positions, stage) in enumerate(
        zip(backbone.pos_embeds, backbone.layers, strict=True)
    ):
        merging = stage.downsample

        def update(x: Tensor, ops: Operations, blocks: Any = stage.blocks) -> Tensor:  # noqa: ANN401
            for block in blocks:
                x = block(x, ops=ops)
            return x

        parts[f"stage {number}: positions"] = lambda x, _ops, add=positions: add(x)
        parts[f"stage {number}: blocks"] = update
        if merging is not None:
            parts[f"stage {number}: merging"] = lambda x, ops, merge=merging: merge(x, ops=ops)
    return parts


def measure_parts(backbone: Backbone, clip: Tensor, *, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each part, and their sum, on each way."""
    parts = list_parts(backbone)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in (*parts, "all")}
    for number in range(rounds + 1):
        for way, ops in WAYS.items():
            found = time_parts(parts, clip, ops)
            if number == 0:  # the first round finds kernels and memory
                continue
            for kind, values in found.items():
                for part, ms in (*values.items(), ("all", sum(values.values()))):
                    times[part].setdefault(f"{kind}, {way}", []).append(ms)
    return {
        part: {name: round(statistics.median(values), 1) for name, values in measured.items()}
        for part, measured in times.items()
    }


def time_parts(
    parts: dict[str, Part], clip: Tensor, ops: Operations
) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each part, in a forward and in a training step."""
    found: dict[str, dict[str, float]] = {"forward": {}, "training step": {}}
    x = clip
    for name, run in parts.items():
        watch = Stopwatch("wall")
        leaf = x.detach().requires_grad_(x is not clip)  # no gradient of the clip is asked for
        with watch:
            out = run(leaf, ops)
            out.backward(torch.ones_like(out))
        found["training step"][name] = watch.ms
        with torch.no_grad(), watch:
            x = run(x, ops)
        found["forward"][name] = watch.ms
    return found


if __name__ == "__main__":
    main()
