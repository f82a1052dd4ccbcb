"""dataset_description.json: what made the dataset, and from what."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.texts import make_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from neurostorm_bids.inputs import SourceDataset

Item = TypeVar("Item")

NAME = "neurostorm-bids"
BIDS_VERSION = "1.10.1"
AUTHORS = "The neurostorm-bids developers"
ACKNOWLEDGEMENT = (
    "Please cite NeuroSTORM (https://doi.org/10.1038/s41551-026-01666-y), neurostorm-bids, and the "
    "software and the data under GeneratedBy and SourceDatasets: see logs/CITATION.md."
)


def describe_dataset(
    existing: Mapping[str, Any], *, output_dir: Path, datasets: Sequence[SourceDataset]
) -> dict[str, Any]:
    """Return the description of the output dataset.

    Parameters
    ----------
    existing : the description that is there, empty if there is none. What it says stays, but for
        the entry of this program, the BIDS version and the places of `datasets`.
    datasets : where BOLD runs were read.
    """
    links = {dataset.name: link_dataset(dataset.path, output_dir) for dataset in datasets}
    others = [one for one in _list_generators(existing) if one["Name"] != NAME]
    chain = [one for dataset in datasets for one in _list_generators(dataset.description)]
    sources = [
        source
        for dataset in datasets
        for source in (
            _describe_source(dataset, links[dataset.name]),
            *_list_sources(dataset.description),
        )
    ]
    told = existing.get("SourceDatasets")
    known_links = existing.get("DatasetLinks")
    description = {
        "Name": "neurostorm-bids: embeddings and predictions of the NeuroSTORM model",
        "HowToAcknowledge": ACKNOWLEDGEMENT,
        **_inherit_license(datasets),
        "Authors": _list_authors(datasets),
        **existing,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": _without_repeats([_describe_program(), *others, *chain]),
        "SourceDatasets": _without_repeats([*(told if isinstance(told, list) else []), *sources]),
        "DatasetLinks": {**(known_links if isinstance(known_links, dict) else {}), **links},
    }
    return {key: make_writable(value) for key, value in description.items()}


def link_dataset(path: Path, output_dir: Path) -> str:
    """Return a URI for a source dataset.

    Relative to the output folder where the two have a folder in common, so that they can move
    together and nothing above that folder is told; ``file://`` where they share only the root, as
    mounts in a container do.
    """
    source, output = path.resolve(), output_dir.resolve()
    if Path(os.path.commonpath([source, output])) == Path(source.anchor):
        return source.as_uri()
    return quote(Path(os.path.relpath(source, output)).as_posix())


def describe_container(environ: Mapping[str, str]) -> dict[str, str] | None:
    """Return the container this runs in as BIDS describes it; None outside of one.

    The image's name comes from ``NEUROSTORM_CONTAINER``, which our images set; Apptainer and
    Singularity say by themselves that they run, and from which file.
    """
    image = environ.get("NEUROSTORM_CONTAINER", "")
    file = environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER") or ""
    if not (image or file):
        return None
    container = {"Type": "apptainer" if file else "docker", "Tag": image or Path(file).name}
    if image:
        container["URI"] = f"docker://{image}"
    return container


def _describe_program() -> dict[str, Any]:
    program: dict[str, Any] = {"Name": NAME, "Version": __version__}
    code_url = _find_code_url()
    if code_url:
        program["CodeURL"] = code_url
    container = describe_container(os.environ)
    if container is not None:
        program["Container"] = container
    return program


def _find_code_url() -> str | None:
    """Return the home of the source code, as the installed package's metadata have it."""
    try:
        urls = metadata(NAME).get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    by_label = {label.lower(): url for label, _, url in (one.partition(", ") for one in urls)}
    return by_label.get("source") or by_label.get("homepage")


def _list_generators(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what made a source dataset; before BIDS 1.4 that was PipelineDescription."""
    generators = description.get("GeneratedBy") or [description.get("PipelineDescription")]
    if not isinstance(generators, list):
        return []
    return [one for one in generators if isinstance(one, dict) and one.get("Name")]


def _describe_source(dataset: SourceDataset, link: str) -> dict[str, str]:
    source = {"URL": link}
    doi = dataset.description.get("DatasetDOI")
    if isinstance(doi, str) and doi:
        source["DOI"] = doi
    return source


def _list_sources(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a source dataset was made from, without the blanks that some programs leave."""
    sources = description.get("SourceDatasets")
    filled = [
        {key: value for key, value in source.items() if value and value != "https://doi.org/"}
        for source in (sources if isinstance(sources, list) else [])
        if isinstance(source, dict)
    ]
    return [source for source in filled if source]


def _inherit_license(datasets: Sequence[SourceDataset]) -> dict[str, str]:
    """Return the license that all source datasets have in common, if there is one."""
    licenses = _without_repeats(dataset.description.get("License") for dataset in datasets)
    if len(licenses) == 1 and isinstance(licenses[0], str) and licenses[0]:
        return {"License": licenses[0]}
    return {}


def _list_authors(datasets: Sequence[SourceDataset]) -> list[str]:
    """Return the source datasets' authors, or a pointer to them, and those of this program."""
    authors: list[str] = []
    for dataset in datasets:
        named = dataset.description.get("Authors")
        if isinstance(named, list) and named:
            authors += [str(author) for author in named]
        else:
            authors.append(f"The authors of the source dataset {dataset.name}")
    return _without_repeats([*authors, AUTHORS])


def _without_repeats(items: Iterable[Item]) -> list[Item]:
    kept: list[Item] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return kept
