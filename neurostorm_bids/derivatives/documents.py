"""Small files of the dataset that are only added to: the old text in, the new text out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.errors import OutputError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from neurostorm_bids.pretrained import Model

# Data and sidecars together, because a sidecar without its data is an error. No slash after a
# folder's name: the validator does not recognise the folder then.
IGNORED = (
    "*.html",
    "figures",
    "finetune",
    "group",
    "log",
    "models",
    "*_embedding.*",
    "*_predictions.*",
    "*_attribution.*",
    "*_relmat.*",
)

PARTICIPANTS_DECLARED = {
    "Description": "Participants that neurostorm-bids was asked to read.",
    "participant_id": {"Description": "The participant's label, as in the source dataset."},
}

README = """\
# Embeddings and predictions of the NeuroSTORM model

These files were made by neurostorm-bids from preprocessed BOLD series (see SourceDatasets and
GeneratedBy in `dataset_description.json`). Each file's name begins with that of its source, all
entities included; the sidecar next to it (`.json`) names the source, the model with its checksum,
the grid, the preparation step by step, and declares every column.

| file | rows | columns |
|---|---|---|
| `*_desc-scan_embedding.tsv` | 1, the run | one per feature: `dim000`, `dim001`, ... |
| `*_desc-clip_embedding.tsv` | one per clip | `onset`, `duration`, then the features |
| `*_desc-<target>_predictions.tsv` | one per clip, then the run's (`level` is `clip` or `run`) | \
`onset`, `duration`, `level`, then `label` and `probability_<class>`, or `value`; `spread`; of a \
calibrated model `prediction_set`, or `interval_low` and `interval_high`, and `novelty` |

With `--attribution`, `*_desc-<target>_attribution.tsv` tells which regions drove a prediction, a
row for each, and `*_desc-<target>Attribution_bold.nii.gz` the same as a map on the run's own
voxels (`desc-<target><Atlas>Attribution` for further atlases); of a pretrained model they hold
reconstruction errors (`desc-reconstruction`). With `--write-resampled`,
`*_desc-resampled_bold.nii.gz` is the run on the model's grid and clock, before the z-score.

With `--connectivity`, `*_seg-<regions>_stat-pearsoncorrelation_relmat.tsv` holds the correlations
between regions: a row and a column for each, by name. No model is needed for it; it is what the
group level compares re-identification with.

Where several models were run in one call, `scan` and `clip` carry the model's label
(`desc-scanBase`). Where the source is not `desc-preproc`, its own `desc` comes first
(`desc-denoisedScan`). Where a model's file does not say the unit of its target, `value` is called
`zscore`. Onsets and durations are in seconds, from the first volume of the
source; what is missing is written `n/a`. Where volumes were censored for motion, rows of clips say
how many of theirs are (`censored_volumes`) and whether the model read the clip (`used`).

## Reading them

```python
from pathlib import Path

import pandas as pd

paths = sorted(Path(".").glob("sub-*/**/*_desc-scan*_embedding.tsv"))
embeddings = pd.concat({path.name: pd.read_csv(path, sep="\\t") for path in paths})

paths = sorted(Path(".").glob("sub-*/**/*_predictions.tsv"))
predictions = pd.concat({path.name: pd.read_csv(path, sep="\\t") for path in paths})
runs = predictions[predictions["level"] == "run"]
```

`sub-*.html` is the report of a participant; the methods in words, to be cited from, are in
`logs/CITATION.md`. Which calls were made, and what became of each run, is in `logs/`.

After the group level, `phenotype/neurostorm_*.tsv` has a row per participant, `group/` has tables
of all runs (embeddings also as Parquet), and `group.html` is the report.
"""
MODELS_HEADING = "## Models"


def add_models(readme: str | None, models: Sequence[Model]) -> str:
    """Add a line for each model that the README does not name yet."""
    text = README if readme is None else readme
    if MODELS_HEADING not in text.splitlines():
        text = _append_lines(text, ["", MODELS_HEADING, ""])
    for model in models:
        name, source = (
            " ".join(part.replace("`", "'").split())
            for part in (model.provenance.name, model.provenance.source)
        )
        line = f"- `{name}` from `{source}`, SHA-256 `{model.provenance.sha256}`"
        if line not in text.splitlines():
            text = _append_lines(text, [line])
    return text


def add_change(changes: str | None, *, today: dt.date) -> str:
    """Add an entry, in the CPAN form that BIDS wants, the first time a version writes here.

    Newer entries stand above older ones.
    """
    old = changes or ""
    if any(line.split()[:1] == [__version__] for line in old.splitlines()):
        return old
    entry = f"{__version__} {today.isoformat()}\n  - Written by neurostorm-bids {__version__}.\n"
    return f"{entry}\n{old}" if old else entry


def add_ignored(bidsignore: str | None) -> str:
    """Add the patterns of files that BIDS does not know yet."""
    old = bidsignore or ""
    return _append_lines(old, [line for line in IGNORED if line not in old.splitlines()])


def add_participants(table: str | None, participants: Iterable[str]) -> str:
    """Add a row for each participant that is not in the table; other columns of it are ``n/a``.

    Parameters
    ----------
    table : the text of participants.tsv, or None.
    participants : labels, with or without ``sub-``.
    """
    text = table.removeprefix("\ufeff") if table else ""
    lines = text.splitlines() or ["participant_id"]
    header = lines[0].split("\t")
    if "participant_id" not in header:
        raise OutputError(
            f"participants.tsv of the output folder has no column participant_id, but {header}. "
            "Mend the file, or move it away and run again."
        )
    position = header.index("participant_id")
    known = {line.split("\t")[position] for line in lines[1:] if line.count("\t") >= position}
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in participants}
    rows = [
        "\t".join(name if column == position else "n/a" for column in range(len(header)))
        for name in sorted(wanted - known)
    ]
    return _append_lines(text, rows if text else [*lines, *rows])


def declare_participants(sidecar: str | None) -> str:
    """Declare the column that `add_participants` writes, unless that is done."""
    try:
        old = dict(json.loads(sidecar)) if sidecar else {}
    except (TypeError, ValueError) as err:
        raise OutputError(
            f"participants.json of the output folder is not a JSON object ({err}). "
            "Mend the file, or move it away and run again."
        ) from err
    new = {**PARTICIPANTS_DECLARED, **old}
    return sidecar if sidecar and new == old else format_json(new)


def _append_lines(text: str, lines: Iterable[str]) -> str:
    """Add lines at the end, with the line ends that the text has."""
    end = "\r\n" if "\r\n" in text else "\n"
    addition = "".join(line + end for line in lines)
    if addition and text and not text.endswith("\n"):
        text += end
    return text + addition
