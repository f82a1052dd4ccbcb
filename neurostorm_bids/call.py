"""A call of the command, as it is told of in the logs: its name and the options in effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping


def make_run_uuid() -> str:
    """Return a name for this call that no other call has, and that sorts by time (UTC)."""
    return f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}_{uuid4()}"


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the logs say of a call.

    Attributes
    ----------
    run_uuid : the call's name, that of its folders of logs.
    levels : the analysis levels asked for, in order.
    configuration : the options in effect by the names they have on the command line; texts,
        numbers, booleans and lists of texts. ``--config-file`` reads them back.
    """

    run_uuid: str = field(default_factory=make_run_uuid)
    levels: tuple[str, ...] = ()
    configuration: Mapping[str, object] = field(default_factory=dict)
