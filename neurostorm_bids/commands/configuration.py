"""Options from a TOML file, below those that are typed, and the options in effect for the log."""

from __future__ import annotations

import logging
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from neurostorm_bids.commands.levels import belongs_to
from neurostorm_bids.errors import DataError, MissingFileError, ReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
_MAX_BITS = 64
ONLY_TYPED = {"config_file", "dry_run"}
"""Options, by parameter, that a file may not hold: they say what to do with the others."""


def read_config_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Take the defaults of the options from a file, before click reads the others.

    Raises
    ------
    MissingFileError, ReadError
        If there is no such file, or it cannot be read.
    DataError
        If it is not TOML.
    UsageError
        If a key is no option, or a value does not fit its option.
    """
    if path is None or ctx.resilient_parsing:
        return path
    options = _list_options(ctx.command)
    values: dict[str, object] = {}
    for key, value in _read_toml(path).items():
        name = key.replace("_", "-")
        if name not in options:
            raise UsageError(
                f"{path}: {key} is not an option that a file may hold. {_suggest(name, options)}"
            )
        param = options[name]
        if param.name in values:
            raise UsageError(f"{path}: {key} is there twice, in two spellings. Keep one.")
        values[str(param.name)] = _check(ctx, param, value, where=f"{path}: {key}")
    ctx.default_map = values
    return path


def restore_folders(ctx: click.Context) -> None:
    """Put folders in place of the names that the options' logs have for them.

    Raises
    ------
    UsageError
        If a folder was left out of the log and nothing was typed in place of the option.
    """
    from neurostorm_bids.derivatives.configuration import LEFT_OUT, restore_paths

    def restore(value: object, name: str) -> object:
        if isinstance(value, tuple):
            return tuple(restore(item, name) for item in value)
        if not isinstance(value, str | Path):
            return value
        if LEFT_OUT in str(value):
            raise UsageError(
                f"{ctx.params['config_file']}: {name} is {str(value)!r}. Its folder was left out "
                "because logs are shared. Write the whole path there, or give the option on the "
                "command line, which wins."
            )
        restored = restore_paths(
            str(value), output_dir=ctx.params["output_dir"], bids_dir=ctx.params["bids_dir"]
        )
        return type(value)(restored)

    for param in ctx.command.params:
        name = str(param.name)
        if ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP and name in ctx.params:
            ctx.params[name] = restore(ctx.params[name], name_option(param))


def list_configuration(ctx: click.Context, levels: Sequence[str]) -> dict[str, object]:
    """Return the options in effect for some levels, by the names that a file has for them.

    What is not given and has no default is left out.
    """
    configuration: dict[str, object] = {}
    for param in _list_options(ctx.command).values():
        value = ctx.params.get(str(param.name))
        if belongs_to(param, levels) and value is not None and value != ():
            configuration[name_option(param)] = _to_plain(value)
    return configuration


def name_option(param: click.Parameter) -> str:
    """Return the name of an option in a file: its first long spelling, without dashes."""
    return next(name for name in param.opts if name.startswith("--")).removeprefix("--")


def _list_options(command: click.Command) -> dict[str, click.Option]:
    """Return the options that a file may hold, by every long spelling."""
    return {
        name.removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option) and param.expose_value and param.name not in ONLY_TYPED
        for name in param.opts
        if name.startswith("--")
    }


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as err:
        raise MissingFileError(f"--config-file: there is no file {path}.") from err
    except OSError as err:
        raise ReadError(f"--config-file {path} cannot be read: {err.strerror}.") from err
    if len(content) > MAX_BYTES:
        raise DataError(
            f"--config-file {path} is larger than {MAX_BYTES} bytes: no list of options."
        )
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as err:
        raise DataError(
            f"--config-file {path} is not TOML: {err}. A line reads like nprocs = 4 or "
            'participant-label = ["01", "02"].'
        ) from err


def _suggest(name: str, options: dict[str, click.Option]) -> str:
    close = get_close_matches(name, options, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return "Expected the long name of an option without its dashes, as in nprocs = 4."


def _check(ctx: click.Context, param: click.Option, value: object, *, where: str) -> object:
    """Return a value of a file as click takes it; refuse what does not fit the option."""
    if not _is_sound(value):
        raise UsageError(
            f"{where}: expected numbers of at most 64 bits, as TOML has them, and texts without "
            "control characters."
        )
    expected, fits = _expect(param, value)
    if not fits:
        raise UsageError(f"{where}: expected {expected}; found {value!r:.200}.")
    if isinstance(value, int) and not isinstance(value, bool) and _takes_text(param):
        value = str(value)
    try:
        param.type_cast_value(ctx, value)
    except click.BadParameter as err:
        raise UsageError(f"{where}: {err.message}") from err
    return value


def _is_sound(value: object) -> bool:
    """Tell whether a value holds nothing that neither an option nor TOML knows."""
    if isinstance(value, list):
        return all(_is_sound(item) for item in value)
    if isinstance(value, dict):
        return all(_is_sound(item) for pair in value.items() for item in pair)
    if isinstance(value, str):
        return "\x00" not in value
    return not isinstance(value, int) or value.bit_length() <= _MAX_BITS


def _expect(param: click.Option, value: object) -> tuple[str, bool]:
    """Say what a value of an option looks like in TOML, and whether this one does."""
    is_bool = isinstance(value, bool)
    if param.multiple:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return 'a list of texts, such as ["01", "02"]', fits
    if param.is_flag:
        return "true or false", is_bool
    if param.count or isinstance(param.type, click.types.IntParamType):
        return "a whole number", isinstance(value, int) and not is_bool
    if isinstance(param.type, click.types.FloatParamType):
        return "a number", isinstance(value, int | float) and not is_bool
    return "a text in quotes", isinstance(value, str | int) and not is_bool


def _takes_text(param: click.Option) -> bool:
    numbers = click.types.IntParamType | click.types.FloatParamType
    return not (param.count or isinstance(param.type, numbers))


def _to_plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value if isinstance(value, bool | int | float) else str(value)
