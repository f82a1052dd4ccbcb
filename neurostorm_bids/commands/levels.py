"""Options that know the levels they belong to, and help that lists them by level."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from neurostorm_bids.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

PIPE_WIDTH = 100
"""Columns of a help text that goes to no terminal."""


class LevelOption(click.Option):
    """An option that belongs to some analysis levels, or to all.

    Parameters
    ----------
    levels : names of the levels; empty for all.
    """

    def __init__(self, *args: Any, levels: Sequence[str] = (), **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.levels = tuple(levels)


class LevelCommand(click.Command):
    """A command whose help lists the options by level.

    Parameters
    ----------
    examples : calls and what they do, for the end of the help.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401
        """Make the context; where the help goes to a file or a pipe, no line is cut to 80."""
        if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
            kwargs.setdefault("terminal_width", PIPE_WIDTH)
        return super().make_context(*args, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per level, those of all levels first."""
        sections: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            sections.setdefault(getattr(param, "levels", ()), []).append(record)
        for levels, records in sections.items():
            with formatter.section(name_section(levels)):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit statuses, then the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for call, meaning in self.examples:
                formatter.write_text(meaning)
                with formatter.indentation():
                    formatter.write(f"{'':>{formatter.current_indent}}{call}\n")


def name_section(levels: Sequence[str]) -> str:
    """Return the title of the options of some levels."""
    if not levels:
        return "Options of every level"
    *others, last = levels
    return f"Options of {', '.join(others)}{' and ' if others else ''}{last}"


def belongs_to(param: click.Parameter, levels: Sequence[str]) -> bool:
    """Return whether a parameter belongs to one of some levels."""
    own = getattr(param, "levels", ())
    return not own or not set(own).isdisjoint(levels)


def is_given(ctx: click.Context, param: click.Parameter) -> bool:
    """Return whether an option was typed, or a file says other than its default."""
    name = str(param.name)
    source = ctx.get_parameter_source(name)
    if source != ParameterSource.DEFAULT_MAP:
        return source == ParameterSource.COMMANDLINE
    defaults = click.Context(ctx.command, resilient_parsing=True)
    ctx.command.parse_args(defaults, [])
    return bool(ctx.params[name] != defaults.params[name])


def check_levels(levels: Sequence[str], ctx: click.Context) -> None:
    """Check that every option given belongs to one of the levels asked for.

    What a file says of other levels is passed over, so that calls can share the file.

    Raises
    ------
    UsageError
        If one of another level was typed: it would have no effect.
    """
    for param in ctx.command.params:
        if belongs_to(param, levels) or not is_given(ctx, param):
            continue
        belongs = name_section(getattr(param, "levels", ())).removeprefix("Options of ")
        if ctx.get_parameter_source(str(param.name)) == ParameterSource.DEFAULT_MAP:
            logger.info("%s of the configuration file is for %s", param.opts[0], belongs)
            continue
        raise UsageError(
            f"{param.opts[0]} belongs to the level {belongs}, not to {' or '.join(levels)}. "
            "Leave it out, or choose that level."
        )


def keep_those_of(level: str, ctx: click.Context) -> dict[str, Any]:
    """Return the options that belong to a level."""
    return {
        str(param.name): ctx.params[str(param.name)]
        for param in ctx.command.params
        if belongs_to(param, [level]) and param.expose_value and param.name in ctx.params
    }
