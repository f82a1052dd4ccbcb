from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).resolve().parents[2] / "docker"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_bill_of_an_image_names_every_locked_package_with_its_hashes(kind):
    lock = DOCKER / f"requirements-{kind}.txt"
    done = subprocess.run(
        [sys.executable, DOCKER / "sbom.py", lock], capture_output=True, check=True
    )
    bill = json.loads(done.stdout)
    text = lock.read_text()
    assert bill["bomFormat"] == "CycloneDX"
    assert [one["bom-ref"] for one in bill["components"]] == [
        line.split(" ")[0].lower() for line in text.splitlines() if "==" in line
    ]
    hashes = [one["value"] for c in bill["components"] for one in c["properties"]]
    assert len(hashes) == text.count("sha256:")
    assert "torch" in {one["name"] for one in bill["components"]}
