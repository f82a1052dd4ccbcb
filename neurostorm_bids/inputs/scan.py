"""A scan of participants' folders for preprocessed BOLD, by names: no file is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from neurostorm_bids.inputs.files import list_names
from neurostorm_bids.inputs.names import (
    PARTICIPANT_FOLDER,
    SESSION_FOLDER,
    BidsName,
    join_entities,
    read_name,
)
from neurostorm_bids.inputs.records import LeftOut

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from neurostorm_bids.inputs.records import SourceDataset

DESCRIPTIONS = ("preproc", "denoised", "denoisedSmoothed")
DENOISED = DESCRIPTIONS[1:]
_IMAGE_ENTITIES = {"space", "cohort", "res", "den", "label", "desc"}
_EXTENSIONS = (".nii.gz", ".nii")


class Candidate(NamedTuple):
    """A preprocessed BOLD file in a standard space, with the names that lie beside it.

    The name is that of today, also where the file has one of fMRIPrep 1.x.
    """

    path: Path
    name: BidsName
    dataset: SourceDataset
    siblings: frozenset[str]

    @property
    def entities(self) -> Mapping[str, str]:
        """The entities of the file name."""
        return self.name.entities

    @property
    def participant(self) -> str:
        """The participant's label, without ``sub-``."""
        return self.name.entities["sub"]

    @property
    def is_denoised(self) -> bool:
        """Whether another program, such as XCP-D, has taken nuisance signals out already."""
        return self.entities.get("desc") in DENOISED

    def find_brain_mask(self) -> Path | None:
        """Find the mask with the same entities; in another space or resolution it is no use."""
        stem = join_entities({**self.entities, "desc": "brain"})
        image = join_entities(self._pick(of_image=True))
        old = f"{join_entities(self._pick(of_image=False))}_bold_{image}_brainmask"
        return self._find_sibling(
            *(f"{name}{extension}" for name in (f"{stem}_mask", old) for extension in _EXTENSIONS)
        )

    def find_confounds(self) -> Path | None:
        """Find the run's table of confounds, under its name of today or an older one.

        Beside a denoised series the table of motion that XCP-D writes comes first.
        """
        stem = join_entities(self._pick(of_image=False))
        motion = (
            f"{stem}_motion.tsv",
            f"{stem}_desc-filtered_motion.tsv",
            f"{stem}_desc-framewisedisplacement_motion.tsv",
        )
        return self._find_sibling(
            *(motion if self.is_denoised else ()),
            f"{stem}_desc-confounds_timeseries.tsv",
            f"{stem}_desc-confounds_regressors.tsv",
            f"{stem}_bold_confounds.tsv",
        )

    def _pick(self, *, of_image: bool) -> dict[str, str]:
        """Return the entities of the image, but for its ``desc-``, or those of the run."""
        return {
            key: label
            for key, label in self.entities.items()
            if (key in _IMAGE_ENTITIES) == of_image and key != "desc"
        }

    def _find_sibling(self, *names: str) -> Path | None:
        return next((self.path.with_name(name) for name in names if name in self.siblings), None)


class Scan(NamedTuple):
    """What lies in one participant's folder."""

    candidates: list[Candidate]
    left_out: list[LeftOut]


def list_participants(root: Path) -> dict[str, Path]:
    """Find the participants' folders by name alone: label without ``sub-`` → folder."""
    matches = (PARTICIPANT_FOLDER.fullmatch(name) for name in list_names(root))
    return {match["label"]: root / match.string for match in matches if match}


def find_func_folders(participant: Path) -> dict[str | None, Path]:
    """Find a participant's ``func`` folders: session without ``ses-``, or None → folder."""
    names = list_names(participant)
    folders: dict[str | None, Path] = {}
    if "func" in names:
        folders[None] = participant / "func"
    for match in filter(None, map(SESSION_FOLDER.fullmatch, names)):
        session = participant / match.string
        if "func" in list_names(session):
            folders[match["label"]] = session / "func"
    return folders


def scan_participant(participant: Path, dataset: SourceDataset) -> Scan:
    """List the preprocessed BOLD files in MNI spaces of one participant.

    A series in such a space that has no ``desc-``, as other pipelines write, is preprocessed too.

    Other BOLD (native, surface, smoothed) is not mentioned; single echoes and files with odd names
    are left out with the reason.

    Raises
    ------
    MissingFileError, ReadError : a folder was not fetched, or cannot be listed.
    """
    scan = Scan([], [])
    for session, folder in find_func_folders(participant).items():
        names = frozenset(list_names(folder))
        for file_name in names:
            if "_bold" not in file_name or ".nii" not in file_name:
                continue
            parts = read_name(file_name)
            path = folder / file_name
            if parts is None:
                if "_bold.nii" not in file_name:
                    continue
                scan.left_out.append(LeftOut(path, "its name is not a BIDS name"))
            elif _is_preprocessed(parts):
                reason = _explain_misfit(parts, participant=participant.name, session=session)
                if reason is None:
                    scan.candidates.append(Candidate(path, parts, dataset, names))
                else:
                    scan.left_out.append(LeftOut(path, reason))
    return scan


def _is_preprocessed(name: BidsName) -> bool:
    entities = name.entities
    return (
        name.suffix == "bold"
        and name.extension in _EXTENSIONS
        and entities.get("desc", "preproc") in DESCRIPTIONS
        and (
            ("echo" in entities and "desc" in entities)
            or entities.get("space", "").startswith("MNI152")
        )
    )


def _explain_misfit(name: BidsName, *, participant: str, session: str | None) -> str | None:
    entities = name.entities
    if f"sub-{entities.get('sub')}" != participant:
        return f"its name belongs to another participant than its folder {participant}"
    if session is not None and entities.get("ses") != session:
        return f"its name belongs to another session than its folder ses-{session}"
    if "echo" in entities:
        return f"echo-{entities['echo']} is a single echo; the combined series is what is read"
    return None
