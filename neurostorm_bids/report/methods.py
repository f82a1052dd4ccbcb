"""What was done to runs, as the methods section of a paper would tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from neurostorm_bids.derivatives.description import NAME
from neurostorm_bids.report.references import Citations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.report.procedures import Procedure
    from neurostorm_bids.report.references import Reference

_PIPELINES = {"fmriprep": "fmriprep", "xcp_d": "xcpd", "xcp-d": "xcpd", "xcpd": "xcpd"}
_PACKAGES = {
    "torch": ("PyTorch", "torch"),
    "numpy": ("NumPy", "numpy"),
    "scipy": ("SciPy", "scipy"),
    "nibabel": ("NiBabel", "nibabel"),
}
_ATTRIBUTIONS = {
    "occlusion": ("occlusion of regions", ("occlusion",)),
    "ig": ("integrated gradients", ("ig", "captum")),
    "reconstruction": ("the reconstruction error of regions", ()),
}


class Methods(NamedTuple):
    """A text and what it cites."""

    paragraphs: list[str]
    references: list[Reference]


def tell_methods(
    procedures: Sequence[Procedure], generators: Sequence[Mapping[str, Any]]
) -> Methods:
    """Tell what was done.

    Parameters
    ----------
    generators : GeneratedBy of the output's description: what made it, and what made its sources.
    """
    citations = Citations()
    versions = _list(sorted({one.version for one in procedures}))
    about = (
        f"Preprocessed functional MRI was read by {NAME} {versions}, a BIDS App"
        f"{citations.cite('bids', 'bidsapps')} that runs NeuroSTORM{citations.cite('neurostorm')}, "
        "a foundation model of 4D fMRI built of shifted windows and selective state spaces"
        f"{citations.cite('mamba')}."
    )
    paragraphs = [about, _tell_sources(procedures, generators, citations)]
    told: set[str] = set()
    for one in procedures:
        text = _tell_preparation(one, citations)
        if text not in told:
            paragraphs.append(text)
            told.add(text)
    paragraphs += [_tell_model(one, citations) for one in procedures]
    paragraphs += [_tell_attributions(one, citations) for one in procedures if one.attributions]
    control = (
        "For quality control, framewise displacement and DVARS"
        f"{citations.cite('displacement')} were drawn above carpet plots"
        f"{citations.cite('carpet')} with Matplotlib{citations.cite('matplotlib')}."
    )
    paragraphs += [control, *_tell_environment(procedures, citations)]
    return Methods([text for text in paragraphs if text], citations.list_used())


def list_generators(description: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what made a dataset and its sources, from its description."""
    generators = description.get("GeneratedBy")
    return [g for g in generators if isinstance(g, dict)] if isinstance(generators, list) else []


def _tell_sources(
    procedures: Sequence[Procedure], generators: Sequence[Mapping[str, Any]], citations: Citations
) -> str:
    datasets = _list(sorted({name for one in procedures for name in one.datasets}))
    spaces = sorted({name for one in procedures for name in one.spaces})
    named = _list([f"{space}{citations.cite(space)}" for space in spaces])
    programs = []
    for generator in generators:
        name, version = str(generator.get("Name", "")), str(generator.get("Version", ""))
        if name and name != NAME:
            key = _PIPELINES.get(name.casefold(), "")
            programs.append(f"{name} {version}".strip() + citations.cite(key))
    made = f", made by {_list(programs)}" if programs else ""
    where = f" of the dataset {datasets}" if datasets else ""
    return (
        f"The runs{where}{made}, were used in the standard space {named}. How they were "
        "preprocessed is told by the text that the preprocessing wrote."
        if named
        else ""
    )


def _tell_preparation(one: Procedure, citations: Citations) -> str:
    if not one.steps:
        return ""
    text = "Each run was prepared as follows, a range standing for what differs between runs. "
    text += " ".join(step.tell() for step in one.steps)
    used = [key for key in ("templateflow", "nilearn") if key in text.casefold()]
    return text + (f" Tools:{citations.cite(*used)}." if used else "")


def _tell_model(one: Procedure, citations: Citations) -> str:
    name, source, sha256, kind = one.model
    n_volumes, seconds = one.clip
    where = "a file published for NeuroSTORM" if kind == "published" else "a model folder"
    text = (
        f"The model {name} ({where}, {source}, SHA-256 {sha256}) read clips of {n_volumes} volumes "
        f"({seconds:g} s) that stand back to back, the last aligned to the end of the run. The "
        "embedding of a clip is the mean over all tokens of the backbone's output, that of the "
        "run the mean over clips in which every volume counts once."
    )
    for target in one.targets.values():
        text += " " + _tell_target(target)
    if "interval_low" in one.bounds or "prediction_set" in one.bounds:
        what = "an interval" if "interval_low" in one.bounds else "a set of classes"
        text += (
            f" Around it stands {what} by split conformal prediction{citations.cite('conformal')}, "
            "from participants from whom it had not learnt."
        )
    if "prediction_set" in one.bounds:
        text += f" Probabilities were calibrated by a temperature{citations.cite('temperature')}."
    if "novelty" in one.bounds:
        text += (
            " The novelty of a run is the Mahalanobis distance of its embedding from those of the "
            "training runs."
        )
    return text


def _tell_target(target: Mapping[str, Any]) -> str:
    name = target.get("name")
    if target.get("kind") == "classification":
        classes = ", ".join(map(str, target.get("classes", ())))
        return (
            f"Its head predicts {name} ({classes}): the probabilities of the run are the mean over "
            "its clips, and the spread is their standard deviation over clips."
        )
    unit = (
        "as a z-score" if target.get("mean") is None else f"in {target.get('unit') or 'its unit'}"
    )
    return (
        f"Its head predicts {name}, {unit}: the value of the run is the mean over its clips, and "
        "the spread is their standard deviation over clips."
    )


def _tell_attributions(one: Procedure, citations: Citations) -> str:
    told = []
    for method, atlas in one.attributions:
        words, keys = _ATTRIBUTIONS.get(method, (method, ()))
        told.append(f"by {words}{citations.cite(*keys)} with the atlas {atlas}")
    return f"What drove the output of {one.model[0]} was found {_list(told)}."


def _tell_environment(procedures: Sequence[Procedure], citations: Citations) -> list[str]:
    versions: dict[str, set[str]] = {}
    for one in procedures:
        for name, version in one.environment.items():
            versions.setdefault(name, set()).add(version)
    if not versions:
        return []
    told = [f"Python {_list(sorted(versions.get('python', {'of an unknown version'})))}"]
    for name, (shown, key) in _PACKAGES.items():
        if name in versions:
            told.append(f"{shown} {_list(sorted(versions[name]))}{citations.cite(key)}")
    return [f"The computations used {_list(told)}."]


def _list(words: Sequence[str]) -> str:
    """Return words as they stand in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
