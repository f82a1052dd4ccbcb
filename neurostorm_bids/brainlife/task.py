"""One task from ``config.json`` to ``product.json``, in the folder that Brainlife made for it."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any, TextIO

from neurostorm_bids.brainlife.product import (
    MAX_MESSAGE,
    compose_product,
    list_statuses,
    write_product,
)
from neurostorm_bids.brainlife.stage import INPUTS, stage_inputs
from neurostorm_bids.cli import main
from neurostorm_bids.errors import UsageError, UserError
from neurostorm_bids.inputs.files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OPTIONS = {
    "attribution": "--attribution",
    "atlas": "--atlas",
    "batch_size": "--batch-size",
    "denoise": "--denoise",
    "device": "--device",
    "dummy_scans": "--dummy-scans",
    "fd_threshold": "--fd-threshold",
    "model": "--model",
    "target_scale": "--target-scale",
    "warp": "--warp",
}
"""Options of a task, and those of the participant level that they become."""

STAGED = "work/fmriprep"
OUTPUT = "output"


class Tee(io.TextIOBase):
    """A stream that passes on what is written, and keeps its end.

    Parameters
    ----------
    stream : where everything goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._end = ""

    def write(self, text: str) -> int:
        """Pass a text on."""
        self._end = (self._end + text)[-2 * MAX_MESSAGE :]
        return self._stream.write(text)

    def flush(self) -> None:
        """Pass on what is held back."""
        self._stream.flush()

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        lines = [line for line in self._end.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def run_task(task_dir: Path) -> int:
    """Run a task, write ``output/`` and ``product.json``, and return the exit status.

    Whatever goes wrong stands in ``product.json`` as well.
    """
    warnings: list[str] = []
    said = Tee(sys.stderr)
    earlier = list_statuses(task_dir / OUTPUT)
    try:
        config = read_json_object(task_dir / "config.json", error=UsageError)
        arguments = list_options(config, warnings)
        warnings += stage_inputs(config, task_dir, task_dir / STAGED)
        folders = [str(task_dir / STAGED), str(task_dir / OUTPUT)]
        with redirect_stderr(said):
            status = main([*folders, "participant", "-w", str(task_dir / "work"), *arguments])
        message = said.last_line
    except UserError as err:
        status, message = err.exit_status, str(err)
        sys.stderr.write(f"{message}\n")
    product = compose_product(
        task_dir / OUTPUT, status=status, message=message, warnings=warnings, earlier=earlier
    )
    write_product(task_dir, product)
    return status


def list_options(config: Mapping[str, Any], warnings: list[str]) -> list[str]:
    """Return the options of the command that the configuration sets; say which are unknown.

    Raises
    ------
    UsageError
        If no model is named, or a value is neither a text nor a number.
    """
    if not config.get("model"):
        raise UsageError(
            'config.json names no model. Set the option "model" to one that is in the image, or to '
            "hf://owner/repo/file@revision."
        )
    arguments = []
    for key, value in config.items():
        # Brainlife's own keys begin with an underscore; an option left empty is one not set.
        if key.startswith("_") or key in {*INPUTS, "space"} or value in (None, ""):
            continue
        if key not in OPTIONS:
            warnings.append(f"The option {key!r} in config.json is unknown and has no effect.")
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"config.json: expected a text or a number for {key!r}: {value!r}.")
        # With an equals sign a value that begins with a dash stays a value.
        arguments.append(f"{OPTIONS[key]}={value}")
    return arguments
