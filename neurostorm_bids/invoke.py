"""How a command is run: expected mistakes end in a sentence and an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from neurostorm_bids.errors import UserError
from neurostorm_bids.printable import make_printable

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130


def invoke(
    command: click.Command, words: Sequence[str], *, name: str, interrupted: str = "Interrupted."
) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    command : may return its exit status; anything else counts as 0.
    words : its arguments.
    name : what it is called in what is printed.
    interrupted : what to print after Ctrl-C.
    """
    try:
        status = command.main(args=list(words), prog_name=name, standalone_mode=False)
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(interrupted, err=True)
        return INTERRUPTED
    except UserError as err:
        click.echo(make_printable(f"{name}: {err}", keep="\n"), err=True)
        return err.exit_status
    return status if isinstance(status, int) else 0
