"""``product.json``: what Brainlife shows of a task, and keeps for queries over many."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import TYPE_CHECKING, Any

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import write_text
from neurostorm_bids.derivatives.conceal import conceal_paths, list_known_folders
from neurostorm_bids.derivatives.results import (
    list_tables,
    name_outputs,
    read_prediction,
    read_result,
)
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import UserError
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.inputs.scan import list_participants

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.results import Result

MAX_MESSAGE = 600
MAX_MESSAGES = 10
MAX_IMAGE_BYTES = 100_000
_WIDTHS_PX = (800, 640, 480, 320)
_EMBEDDED = re.compile(r'href="data:image/png;base64,([A-Za-z0-9+/=\s]+)"')
_MAX_FIGURE_BYTES = 20_000_000


def compose_product(
    output_dir: Path,
    *,
    status: int,
    message: str,
    warnings: Sequence[str],
    earlier: Collection[Path] = (),
) -> dict[str, Any]:
    """Return the contents of ``product.json``.

    Parameters
    ----------
    output_dir : what the participant level wrote; need not be there.
    status : exit status of the command.
    message : the last that it said.
    warnings : of what was staged.
    earlier : status files of calls before this one, which do not count.
    """
    runs = _list_runs(set(list_statuses(output_dir)) - set(earlier))
    failed = [f"{run.get('Run')}: {run.get('Message')}" for run in runs if "Error" in run]
    noted = [str(text) for run in runs for text in run.get("Warnings") or []]
    if status == 0:
        first = [("success", f"{len(runs) or 'All'} run(s) done by neurostorm-bids {__version__}.")]
    else:
        reasons = failed or [message or "The command ended without a word."]
        first = [("error", f"{text} (exit status {status})") for text in reasons]
    said = [*first, *(("warning", text) for text in dict.fromkeys([*warnings, *noted]))]
    known = list_known_folders(output_dir, output_dir.parent / "work" / "fmriprep", [])
    shown: list[dict[str, Any]] = [
        {"type": kind, "msg": _shorten(conceal_paths(text, known))}
        for kind, text in said[:MAX_MESSAGES]
    ]
    picture = _find_picture(output_dir) if status == 0 else None
    if picture is not None:
        shown.append(picture)
    return {
        "brainlife": shown,
        "tags": ["neurostorm"] if status == 0 else [],
        "neurostorm": {
            "version": __version__,
            "exit_status": status,
            "predictions": list(_list_predictions(output_dir)) if status == 0 else [],
        },
    }


def write_product(task_dir: Path, product: dict[str, Any]) -> None:
    """Write ``product.json`` into the task's folder."""
    write_text(task_dir / "product.json", format_json(product))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 3]}..."


def list_statuses(output_dir: Path) -> list[Path]:
    """List the files in which calls told of participants; none if nothing was written yet."""
    folders = list_participants(output_dir).values() if output_dir.is_dir() else ()
    return [path for folder in folders for path in folder.glob("log/*/status.json")]


def _list_runs(paths: Collection[Path]) -> list[dict[str, Any]]:
    """Return the runs that status files tell of; what cannot be read is left out."""
    runs: list[dict[str, Any]] = []
    for path in sorted(paths):
        try:
            told = read_json_object(path).get("Runs")
        except UserError:
            continue
        runs += [run for run in told if isinstance(run, dict)] if isinstance(told, list) else []
    return runs


def _list_predictions(output_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield what each model predicts for each run."""
    for folder in list_participants(output_dir).values():
        for table, name in list_tables(folder):
            if name is None or name.suffix != "predictions":
                continue
            try:
                yield _describe(read_result(table, name, root=output_dir))
            except UserError:
                continue


def _describe(result: Result) -> dict[str, Any]:
    prediction = read_prediction(result)
    target = result.target
    assert target is not None  # noqa: S101 - a table of predictions has one
    values = [round(float(value), 4) for value in prediction.values]
    described: dict[str, Any] = {
        "run": result.run,
        "model": result.model.name,
        "model_sha256": result.model.sha256,
        "target": target.name,
        **dict(zip(name_outputs(target), values, strict=True)),
    }
    if target.unit:
        described["unit"] = target.unit
    if all(math.isfinite(end) for end in prediction.interval):
        described["interval"] = [round(float(end), 4) for end in prediction.interval]
    return described


def _find_picture(output_dir: Path) -> dict[str, Any] | None:
    """Return the first mosaic of a report as Brainlife shows it; None if there is none."""
    for path in sorted(output_dir.glob("sub-*/figures/*desc-*osaic*.svg")):
        if path.stat().st_size > _MAX_FIGURE_BYTES:
            continue
        match = _EMBEDDED.search(path.read_text(encoding="utf-8", errors="replace"))
        content = _shrink(base64.b64decode(match[1])) if match else None
        if content is not None:
            return {
                "type": "image/png",
                "name": "The run on the model's grid",
                "desc": "Mean over time, as the model saw it. The whole report is in output/.",
                "base64": base64.b64encode(content).decode("ascii"),
            }
    return None


def _shrink(png: bytes) -> bytes | None:
    """Return a picture as PNG of 256 shades in at most 100 kB of base64; None if it is none."""
    # Pillow is needed for the one picture only.
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        with Image.open(io.BytesIO(png)) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    for width in _WIDTHS_PX:
        scaled = image
        if image.width > width:
            scaled = image.resize((width, max(1, round(image.height * width / image.width))))
        file = io.BytesIO()
        scaled.quantize(64).save(file, format="PNG", optimize=True)
        if len(file.getvalue()) * 4 / 3 <= MAX_IMAGE_BYTES:
            return file.getvalue()
    return None
