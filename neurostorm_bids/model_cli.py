"""The command ``neurostorm-model``: show a model, convert it, compare two that were fine-tuned."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurostorm_bids import __version__
from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs.files import read_json_object
from neurostorm_bids.invoke import invoke

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurostorm_bids.model.config import ModelConfig, TargetSpec
    from neurostorm_bids.model.weights import Checkpoint


def run() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; expected mistakes are printed in a sentence."""
    return invoke(commands, argv, name="neurostorm-model")


@click.group(context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="neurostorm-model")
def commands() -> None:
    """Say what a NeuroSTORM model file is, convert it, or compare two fine-tuned models.

    MODEL is a published .ckpt file, a model folder, a name in the catalogue, or
    hf://owner/repository/file@revision. Nothing in a model file is ever executed.
    """


_config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="JSON with the sizes of the backbone (img_size, embed_dim, depths, window_size, "
    "first_window_size, patch_size, last_layer_full_msa, ...), for a file that does not say them.",
)


@commands.command()
@click.argument("model", required=False)
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(model: str | None, config_file: Path | None, *, as_json: bool) -> None:
    """Print what MODEL is: sizes, grid, target, source, and what had to be assumed.

    Without MODEL, list the catalogue.
    """
    if model is None:
        _print_catalogue(as_json=as_json)
        return
    from neurostorm_bids.model.card import describe_checkpoint, name_kind
    from neurostorm_bids.pretrained import open_checkpoint

    checkpoint = open_checkpoint(model, config=_read_config(config_file))
    about = describe_checkpoint(checkpoint)
    if as_json:
        click.echo(json.dumps(about, indent=2))
        return
    click.echo(f"{about.pop('name')}: {name_kind(checkpoint)}")
    for title, value in about.items():
        _print(title, value)


@commands.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@_config_option
@click.option("--target-name", help="What the head predicts, for example age.")
@click.option("--target-kind", type=click.Choice(["classification", "regression"]))
@click.option("--classes", metavar="NAME,NAME,...", help="Names of the classes, in order.")
@click.option("--mean", type=float, help="Mean of a regression target in training.")
@click.option("--sd", type=float, help="Its standard deviation there.")
@click.option("--unit", help="Its unit, for example years.")
@click.option("--clip-length", type=click.IntRange(min=1), help="Volumes per clip, if others.")
@click.option("--overwrite", is_flag=True, help="Replace a model folder that is there already.")
def convert(
    model: str,
    folder: Path,
    config_file: Path | None,
    clip_length: int | None,
    *,
    overwrite: bool,
    **target_options: Any,  # noqa: ANN401 - click's parameters
) -> None:
    """Write MODEL as a model folder: model.safetensors, config.json and MODEL.md.

    The options on the target add to, or replace, what the file says of it.
    """
    from neurostorm_bids.model.checkpoints import fit_clip_length, write_model_folder
    from neurostorm_bids.pretrained import open_checkpoint

    config = _read_config(config_file)
    if target_options["target_kind"] is None:
        checkpoint = _amend_target(open_checkpoint(model, config=config), target_options)
    else:
        target = _make_target(target_options)
        checkpoint = open_checkpoint(model, config=config, target=target)
    if clip_length is not None:
        checkpoint = fit_clip_length(checkpoint, clip_length)
    write_model_folder(folder, checkpoint, overwrite=overwrite)
    click.echo(f"Wrote {folder}")


@commands.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--permutations",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Of the paired test: exchanges of the two predictions of a participant.",
)
@click.option("--random-seed", type=click.IntRange(min=0), default=0, show_default=True)
def compare(first: Path, second: Path, permutations: int, random_seed: int) -> None:
    """Print a table (TSV) that compares two fine-tunings of one target in the same splits.

    FIRST and SECOND are folders with predictions.tsv and split.tsv, such as
    OUTPUT_DIR/finetune/age_linear. The difference is the first minus the second; its 95 % interval
    is that of a bootstrap over participants, its p-value is two-sided.
    """
    from neurostorm_bids.train.paired import compare_finetunings, format_comparison
    from neurostorm_bids.train.resampling import Resampling

    resampling = Resampling(n_permutations=permutations, seed=random_seed)
    pairs = compare_finetunings(first, second, resampling=resampling)
    click.echo(format_comparison(pairs), nl=False)


def _print_catalogue(*, as_json: bool) -> None:
    """Print the published files that are known by name."""
    from neurostorm_bids.model.hub import read_catalogue

    entries = read_catalogue().values()
    if as_json:
        about = {e.name: {"source": str(e.address), "description": e.description} for e in entries}
        click.echo(json.dumps(about, indent=2))
        return
    for entry in entries:
        click.echo(f"{entry.name}\n  {entry.description}\n  {entry.address}")


def _read_config(path: Path | None) -> ModelConfig | None:
    """Read the sizes of a backbone from a JSON file."""
    from neurostorm_bids.model.config import ModelConfig

    if path is None:
        return None
    return ModelConfig.from_dict(read_json_object(path))


def _target_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a target that were given as options."""
    classes = options["classes"]
    given = {
        "name": options["target_name"],
        "kind": options["target_kind"],
        "classes": classes and tuple(name.strip() for name in classes.split(",")),
        "unit": options["unit"],
        "mean": options["mean"],
        "sd": options["sd"],
    }
    return {name: value for name, value in given.items() if value is not None}


def _make_target(options: dict[str, Any]) -> TargetSpec:
    """Make a target of options alone."""
    from neurostorm_bids.model.config import TargetSpec

    if options["target_name"] is None:
        raise UsageError("--target-kind goes with --target-name.")
    return TargetSpec(**_target_fields(options))


def _amend_target(checkpoint: Checkpoint, options: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint with what was given of its target in place of what it says."""
    given = _target_fields(options)
    if not given:
        return checkpoint
    if checkpoint.target is None:
        raise UsageError(
            f"{checkpoint.provenance.name} has no head, so options on its target have no meaning."
        )
    from neurostorm_bids.model.weights import change_target

    return change_target(checkpoint, replace(checkpoint.target, **given))


def _print(title: str, value: Any, *, indent: int = 0) -> None:  # noqa: ANN401 - any JSON value
    """Print a JSON value as readable lines."""
    start = " " * indent + f"{title}:"
    if isinstance(value, dict):
        click.echo(start)
        for name, inner in value.items():
            _print(name, inner, indent=indent + 2)
    elif isinstance(value, list) and value and isinstance(value[0], str):
        click.echo(start)
        for line in value:
            click.echo(" " * indent + f"  - {line}")
    else:
        click.echo(f"{start} {'none' if value in (None, [], '') else value}")


if __name__ == "__main__":
    run()
