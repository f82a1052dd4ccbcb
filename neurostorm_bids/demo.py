"""The app run over small datasets and models that are made on the spot.

``python -m neurostorm_bids.demo FOLDER`` is what ``make demo`` calls: three participants and two
models, then a model that is taught a target, asked about people whom it has not seen, and reported
on. The data are made up and the weights random: the demo shows what goes in and what comes out,
not what the numbers mean.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pandas as pd

from neurostorm_bids.demo_data import write_cohort, write_dataset, write_encoder, write_models

if TYPE_CHECKING:
    from collections.abc import Sequence

N_TAUGHT, N_HELD_BACK = 16, 6
"""People whom a model learns from, and those it is then asked about."""


def run(folder: Path) -> int:
    """Make data and models below `folder`, run the app over them, say what lies where.

    Returns
    -------
    int
        Exit status of the first command that failed, or 0.
    """
    status = _predict(folder)
    if status == 0:
        _describe(folder / "neurostorm")
        status = _teach(folder)
    if status == 0:
        _describe_teaching(folder / "taught")
        click.echo(
            "\nThe data are made up and the weights random: these numbers show the form of the "
            "results and mean nothing about brains."
        )
    return status


def _predict(folder: Path) -> int:
    """Run two models over three participants; return the exit status."""
    click.echo(f"1. Three participants and two small models, made below {folder} ...")
    write_dataset(folder / "fmriprep")
    models = write_models(folder / "models")
    return _call(folder / "fmriprep", folder / "neurostorm", "participant", "--model", *models)


def _teach(folder: Path) -> int:
    """Fine-tune a model, predict people whom it has not seen, and report on these."""
    click.echo(
        f"\n2. {N_TAUGHT + N_HELD_BACK} people, in whom fluctuations grow with age; a tiny model "
        f"learns from {N_TAUGHT}, and is then asked about the others ..."
    )
    data, output = folder / "cohort", folder / "taught"
    atlas = write_cohort(data, n_people=N_TAUGHT + N_HELD_BACK)
    encoder = write_encoder(folder / "models")
    others = [f"{N_TAUGHT + number:02d}" for number in range(1, N_HELD_BACK + 1)]
    taught: list[Path | str] = ["--target", "age", "--model", encoder, "--adapt", "linear"]
    calls: list[list[Path | str]] = [
        ["finetune", *taught, "--atlas", atlas, "--exclude-participant-label", *others],
        ["participant", "--model", output / "models" / "age_linear"],
        ["group"],
    ]
    for call in calls[1:]:
        call += ["--participant-label", *others]
    return next((status for call in calls if (status := _call(data, output, *call))), 0)


def _call(*arguments: Path | str) -> int:
    """Run the app in a process of its own, as a user would; return the exit status."""
    call = [str(argument) for argument in arguments]
    click.echo("neurostorm " + " ".join(call))
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "neurostorm_bids", *call], check=False
    ).returncode


def _describe(output_dir: Path) -> None:
    """Print what the output folder holds, with one table of each kind."""
    click.echo(f"\nResults: {output_dir}  (a BIDS derivatives dataset; start with its README.md)")
    kinds = (
        ("desc-scan*_embedding.tsv", "one row per run: the embedding"),
        ("desc-clip*_embedding.tsv", "one row per clip of 8 s: onset, duration, the embedding"),
        ("desc-*_predictions.tsv", "clips and the whole run: class or value, and its spread"),
    )
    for pattern, meaning in kinds:
        paths = sorted(output_dir.rglob(f"sub-*_{pattern}"))
        click.echo(f"\n{len(paths)} x {pattern}: {meaning}")
        _show(paths[0], output_dir)


def _describe_teaching(output_dir: Path) -> None:
    """Print where the fine-tuned model, its scores, its predictions and the report lie."""
    click.echo(f"\nResults: {output_dir}")
    for name, meaning in (
        ("models/age_linear/", "the fine-tuned model; --model takes this folder"),
        ("finetune.html", "its scores beside baselines, from people whom it had not seen"),
        ("finetune/age_linear/", "the split, predictions and scores of that as tables"),
        ("group.html", f"the {N_HELD_BACK} people that were held back, and how well it knew them"),
        ("phenotype/neurostorm_age.tsv", "a row for each of them: the age that it predicts"),
        ("group/scores.tsv", "how far that is from the truth"),
    ):
        click.echo(f"  {name:30}{meaning}")
    click.echo()
    _show(output_dir / "phenotype" / "neurostorm_age.tsv", output_dir, n_rows=N_HELD_BACK)
    click.echo()
    shown = ["target", "measure", "value", "low", "high", "chance"]
    _show(output_dir / "group" / "scores.tsv", output_dir, n_rows=N_HELD_BACK, columns=shown)


def _show(
    path: Path, output_dir: Path, *, n_rows: int = 3, columns: Sequence[str] | None = None
) -> None:
    """Print the last rows of a table; the first six columns, if none are named."""
    table = pd.read_csv(path, sep="\t")
    click.echo(f"{path.relative_to(output_dir)}, {table.shape[0]} x {table.shape[1]}:")
    chosen = table.iloc[:, :6] if columns is None else table[list(columns)]
    click.echo(chosen.tail(n_rows).to_string(index=False))


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")))
