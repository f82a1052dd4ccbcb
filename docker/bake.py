"""Put templates and models into the folder that becomes /opt/neurostorm; run by the Dockerfile."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from neurostorm_bids.model_cli import main as run_model_command

# What the commands ask of TemplateFlow unless told otherwise: regions for connectivity and
# attributions, and the transforms between the two spaces that fMRIPrep's users have.
TEMPLATES = (
    ("MNI152NLin6Asym", {"resolution": 2, "desc": "brain", "suffix": "mask"}),
    (
        "MNI152NLin6Asym",
        {"resolution": 2, "atlas": "Schaefer2018", "desc": "200Parcels7Networks", "suffix": "dseg"},
    ),
    ("MNI152NLin6Asym", {"from": "MNI152NLin2009cAsym", "suffix": "xfm"}),
    ("MNI152NLin2009cAsym", {"from": "MNI152NLin6Asym", "suffix": "xfm"}),
)


def main() -> int:
    """Read the arguments, fetch what they name and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--templates", choices=("all", "none"), default="all")
    parser.add_argument("--models", default="", help="names or hf:// addresses, blanks between")
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="local models")
    parser.add_argument("destination", type=Path)
    options = parser.parse_args()
    home = options.destination / "templateflow"
    home.mkdir(parents=True)
    if options.templates == "all":
        fetch_templates(home)
    local = [p for p in sorted(options.folder.iterdir()) if p.is_dir() or p.suffix == ".ckpt"]
    return convert_models(
        [*options.models.split(), *map(str, local)], options.destination / "models"
    )


def fetch_templates(home: Path) -> None:
    """Fetch the templates into a folder of its own, from TemplateFlow's store."""
    os.environ["TEMPLATEFLOW_HOME"] = str(home)
    from templateflow import api  # noqa: PLC0415 - reads its home when imported

    for template, query in TEMPLATES:
        sys.stdout.write(f"{api.get(template, raise_empty=True, **query)}\n")


def convert_models(models: list[str], destination: Path) -> int:
    """Write every model as a model folder, named as it is asked for later."""
    destination.mkdir(parents=True)
    for model in models:
        name = model.partition("@")[0].rstrip("/").rpartition("/")[2].removesuffix(".ckpt")
        status = run_model_command(["convert", model, str(destination / name)])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
