"""Options that know the levels they belong to, and help that lists them by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from neurostorm_bids.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    """A command whose help lists the options by level."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per level, those of all levels first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):
                continue
            levels = getattr(param, "levels", ())
            title = f"Options of {' and '.join(levels)}" if levels else "Options"
            sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def keep_those_of(level: str, ctx: click.Context) -> dict[str, Any]:
    """Return the options that belong to a level.

    Raises
    ------
    UsageError
        If one of another level was typed: it would have no effect.
    """
    kept = {}
    for param in ctx.command.params:
        levels = getattr(param, "levels", ())
        name = str(param.name)
        if not levels or level in levels:
            if param.expose_value and name in ctx.params:
                kept[name] = ctx.params[name]
        elif ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{param.opts[0]} belongs to the level {' and '.join(levels)}, not to {level}. "
                "Leave it out, or choose that level."
            )
    return kept
