"""Where the figures of a run lie, and whether they are all there; nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.names import derive_path
from neurostorm_bids.report.picture import FOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from neurostorm_bids.derivatives.names import OutputNames
    from neurostorm_bids.inputs import BoldRun


def locate_figure(
    output_dir: Path, run: BoldRun, names: OutputNames, *, kind: str, extension: str
) -> Path:
    """Name a figure of a run and a model."""
    label = names.scan.removeprefix("scan")  # tells the models of a call apart; else empty
    path = derive_path(
        output_dir, run, suffix="bold", extension=extension, entities={"desc": kind + label}
    )
    return output_dir / f"sub-{run.participant}" / FOLDER / path.name


def locate_seal(output_dir: Path, run: BoldRun, names: OutputNames) -> Path:
    """Name the file that tells of the figures, and whose presence says that they are there."""
    return locate_figure(output_dir, run, names, kind=FOLDER, extension=".json")
