"""Keep the paths of this machine, and the user names in them, out of files that are shared."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neurostorm_bids.inputs import SourceDataset

# The folders of a path from the root, or from above here, but not the rest of a URI or of a name.
_FOLDERS = re.compile(r"""(?<![\w/:.~>-])(?:\.\.)?/(?:[^\s/"'`,;()<>]+/)+""")


def list_known_folders(
    output_dir: Path, bids_dir: Path, datasets: Iterable[SourceDataset]
) -> dict[str, str]:
    """Return the folders that have a name of their own in shared files: name by path."""
    folders = {
        Path(__file__).parents[1]: "<neurostorm_bids>",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
        Path(os.environ.get("HOME") or "/"): "~",
        bids_dir: "<bids>",
        **{dataset.path: f"<{dataset.name}>" for dataset in datasets},
        output_dir: "<output>",
    }
    known = {}
    for folder, name in folders.items():
        known[str(folder.absolute())] = name
        known[str(folder.resolve())] = name
    known.pop("/", None)
    return known


def conceal_paths(text: str, known_folders: Mapping[str, str]) -> str:
    """Name known folders, and cut every other path from the root to its last part."""
    for folder in sorted(known_folders, key=len, reverse=True):
        text = re.sub(rf"(?<![\w/.~-]){re.escape(folder)}(?![\w.-])", known_folders[folder], text)
    return _FOLDERS.sub(".../", text)


def shorten_path(value: object) -> object:
    """Return the last part of an absolute path; anything else as it is."""
    is_path = isinstance(value, str | Path) and Path(value).is_absolute()
    return Path(str(value)).name if is_path else value


def conceal_options(options: Mapping[str, Any], known_folders: Mapping[str, str]) -> dict[str, Any]:
    """Conceal the paths in every text of nested mappings and lists."""

    def conceal(value: object) -> object:
        if isinstance(value, str):
            return conceal_paths(value, known_folders)
        if isinstance(value, Mapping):
            return {key: conceal(item) for key, item in value.items()}
        return [conceal(item) for item in value] if isinstance(value, list) else value

    return {key: conceal(value) for key, value in options.items()}
