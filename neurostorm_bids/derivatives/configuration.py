"""The options in effect, as a file that ``--config-file`` reads back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.atomic import remove_leftovers, write_text
from neurostorm_bids.derivatives.conceal import conceal_options, list_known_folders
from neurostorm_bids.derivatives.texts import format_toml, to_plain

if TYPE_CHECKING:
    from pathlib import Path

    from neurostorm_bids.call import Call

CONFIGURATION = "config.toml"
LEFT_OUT = ".../"
"""What stands in place of folders that are nobody's business."""

_FOLDER_NAME = re.compile(r"(?<![\w/.-])(<\w+>|~)(?=/|$)")


def write_configuration(output_dir: Path, call: Call, *, bids_dir: Path, debug: bool) -> None:
    """Write ``logs/<run_uuid>/config.toml``: the options of a call, and how to use them again.

    Parameters
    ----------
    debug : keep absolute paths; otherwise known folders are named and others cut.
    """
    options = conceal_configuration(call, output_dir=output_dir, bids_dir=bids_dir, debug=debug)
    logs = output_dir / "logs"
    remove_leftovers(logs)
    path = logs / call.run_uuid / CONFIGURATION
    # No later call looks into this one's folder: what a kill leaves has to lie above it.
    write_text(path, format_configuration(call, options), scratch=logs)


def conceal_configuration(
    call: Call, *, output_dir: Path, bids_dir: Path, debug: bool
) -> dict[str, Any]:
    """Return the options of a call as they may be shown.

    Folders get names that `restore_paths` understands: ``<bids>``, ``<output>``, ``~``.
    """
    plain = to_plain(call.configuration)
    return plain if debug else conceal_options(plain, list_known_folders(output_dir, bids_dir, ()))


def format_configuration(call: Call, options: dict[str, Any]) -> str:
    """Return the text of config.toml."""
    levels = " ".join(call.levels) or "LEVEL"
    return (
        f"# The options in effect in a call of neurostorm-bids {__version__}. To use them again:\n"
        f"# neurostorm BIDS_DIR OUTPUT_DIR {levels} --config-file {CONFIGURATION}\n"
        f"\n{format_toml(options)}"
    )


def restore_paths(text: str, *, output_dir: Path, bids_dir: Path) -> str:
    """Put the folders of this machine in place of the names that they have in shared files."""
    folders: dict[str, str] = {}
    for folder, name in list_known_folders(output_dir, bids_dir, ()).items():
        folders.setdefault(name, folder)
    return _FOLDER_NAME.sub(lambda match: folders.get(match[1], match[1]), text)
