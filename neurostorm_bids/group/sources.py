"""Where the runs came from: their datasets, the tables of these, and the runs' confounds."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from neurostorm_bids.errors import DatasetError, MissingFileError, UserError
from neurostorm_bids.inputs import SourceDataset, find_datasets
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import read_name
from neurostorm_bids.inputs.scan import Candidate
from neurostorm_bids.inputs.tables import list_table_roots
from neurostorm_bids.train.nuisance import read_mean_displacement

if TYPE_CHECKING:
    from neurostorm_bids.derivatives.results import Result
    from neurostorm_bids.group.options import GroupOptions

logger = logging.getLogger(__name__)

_DESCRIPTION = "dataset_description.json"


class Sources(NamedTuple):
    """The datasets that results were made from, as far as they are at hand.

    Attributes
    ----------
    named : by the name in BIDS URIs.
    table_roots : folders whose tables may hold the truth, in the order to look.
    """

    named: dict[str, SourceDataset]
    table_roots: list[Path]


def find_sources(options: GroupOptions) -> Sources:
    """Find the source datasets: those of the call first, then those that the output links to.

    The input folder may be a raw dataset without derivatives: its tables are all that is needed.

    Raises
    ------
    DatasetError
        If the input folder is not there, or a folder that was named is no dataset.
    """
    bids_dir = options.bids_dir
    try:
        # Only tables are read here, whatever the datasets' descriptions are like.
        found = find_datasets(bids_dir, dict(options.derivatives), is_checked=False)
    except (DatasetError, MissingFileError):
        if options.derivatives or not bids_dir.is_dir():
            raise
        found = []
    named = _follow_links(options.output_dir) | {dataset.name: dataset for dataset in found}
    folders = [bids_dir, *(dataset.path for dataset in found)]
    folders += [one.path for one in named.values()]
    return Sources(named, list_table_roots(dict.fromkeys(folders)))


def find_confounds(result: Result, sources: Sources) -> Path | None:
    """Find the table of confounds beside the BOLD file that a result was made from."""
    dataset = sources.named.get(result.dataset)
    if dataset is None or result.source is None:
        return None
    path = PurePosixPath(result.source.path)
    name = read_name(path.name)
    if name is None or path.is_absolute() or ".." in path.parts:
        return None
    folder = dataset.path / path.parent
    if not folder.is_dir():
        return None
    siblings = frozenset(list_names(folder))
    return Candidate(folder / path.name, name, dataset, siblings).find_confounds()


def read_motion(result: Result, sources: Sources) -> float | None:
    """Return the mean framewise displacement of a run, mm; None where it is not at hand."""
    try:
        confounds = find_confounds(result, sources)
        return None if confounds is None else read_mean_displacement(confounds)
    except UserError as err:
        logger.warning("The confounds of %s cannot be read. %s", result.run, err)
        return None


def _follow_links(output_dir: Path) -> dict[str, SourceDataset]:
    """Return the datasets that the output's description links to and that are there."""
    path = output_dir / _DESCRIPTION
    if not path.is_file():
        return {}
    links = read_json_object(path).get("DatasetLinks")
    found = {}
    for name, link in (links if isinstance(links, dict) else {}).items():
        parts = urlsplit(str(link))
        if parts.scheme not in {"", "file"}:
            continue
        folder = (output_dir.resolve() / unquote(parts.path)).resolve()
        if folder.is_dir():
            found[name] = SourceDataset(name=name, path=folder)
    return found
