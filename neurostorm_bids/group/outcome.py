"""All that a call of the group level found out, for the tables and the report to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.conceal import conceal_paths, list_known_folders
from neurostorm_bids.page.html import Link

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neurostorm_bids.derivatives.tables import Column
    from neurostorm_bids.group.collect import Collection
    from neurostorm_bids.group.images import ImagesFound
    from neurostorm_bids.group.options import GroupOptions
    from neurostorm_bids.group.people import PeopleFound
    from neurostorm_bids.group.truth import Assessment


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """All that a call of the group level found out.

    Attributes
    ----------
    options : of the call.
    collection : what was read.
    table_roots : folders whose tables hold the columns of the map.
    assessments : predictions beside the truth.
    people : re-identification with each model.
    images : image retrieval with each model; empty if it was not asked for.
    quality : a row for each run and model, in the order of ``collection.results``.
    """

    options: GroupOptions
    collection: Collection
    table_roots: Sequence[Path]
    assessments: Sequence[Assessment]
    people: Sequence[PeopleFound]
    quality: Sequence[Column]
    images: Sequence[ImagesFound] = ()

    def link(self, participant: str) -> Link | str:
        """Return a participant with a link to their report, if it is there."""
        name = f"sub-{participant}"
        page = f"{name}.html"
        return Link(name, page) if (self.options.output_dir / page).is_file() else name

    def conceal(self, text: str) -> str:
        """Keep this machine's paths out of a text."""
        options = self.options
        folders = list_known_folders(options.output_dir, options.bids_dir, ())
        return text if options.debug else conceal_paths(text, folders)
