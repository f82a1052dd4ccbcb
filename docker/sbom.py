"""Print the bill of materials (CycloneDX, JSON) of a lock file: ``python docker/sbom.py FILE``.

It is made from the lock file alone: the same file gives the same bill, without a network.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def read_lock(text: str) -> list[dict[str, Any]]:
    """Return the components of a lock file: names, versions, and the SHA-256 of their archives."""
    components: list[dict[str, Any]] = []
    for line in text.splitlines():
        if pin := _PIN.match(line):
            name, version = pin["name"].lower().replace("_", "-"), pin["version"]
            components.append(
                {
                    "type": "library",
                    "name": name,
                    "version": version,
                    "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
                    "bom-ref": f"{name}=={version}",
                    "properties": [],
                }
            )
        for digest in _HASH.findall(line):
            components[-1]["properties"].append({"name": "sha256 of an archive", "value": digest})
    return components


def make_bill(components: list[dict[str, Any]], *, version: str, kind: str) -> dict[str, Any]:
    """Return a bill of materials of the image of some kind."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": f"neurostorm-bids-{kind}",
                "version": version,
                "bom-ref": "image",
            }
        },
        "components": components,
    }


def main(path: Path) -> None:
    """Print the bill of a lock file, which is named requirements-KIND.txt."""
    package = Path(__file__).parents[1] / "neurostorm_bids" / "__init__.py"
    (version,) = re.findall(r'^__version__ = "(.*)"', package.read_text("utf-8"), re.MULTILINE)
    kind = path.stem.removeprefix("requirements-")
    bill = make_bill(read_lock(path.read_text("utf-8")), version=version, kind=kind)
    sys.stdout.write(json.dumps(bill, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
