"""What the images are built from fits what the package asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements-cpu.txt", "requirements-gpu.txt")


def read_pins(path: Path) -> dict[str, str]:
    """Return the versions in a lock file or in the constraints, by normalised name."""
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_the_versions_that_tests_run_with(lock):
    constraints = read_pins(ROOT / "constraints.txt")
    for name, version in read_pins(ROOT / "docker" / lock).items():
        if name in constraints:
            assert version.removesuffix("+cpu") == constraints[name], name


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_every_dependency_with_hashes(lock):
    text = (ROOT / "docker" / lock).read_text()
    pins = read_pins(ROOT / "docker" / lock)
    setup = (ROOT / "setup.cfg").read_text()
    block = setup.partition("install_requires =\n")[2].partition("\n\n")[0]
    asked = {re.match(r"\s*([A-Za-z0-9_.-]+)", line)[1] for line in block.splitlines()}
    missing = {re.sub(r"[-_.]+", "-", name).lower() for name in asked} - pins.keys()
    assert not missing, "make locks brings the lock files up to date"
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)


def test_the_final_stages_hold_no_package_manager_for_python_and_start_the_command():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert dockerfile.count('ENTRYPOINT ["neurostorm"]') == 2
    for target in ("cpu", "gpu"):
        stage = dockerfile.partition(f" AS {target}\n")[2].partition("\nFROM ")[0]
        assert "pip install" not in stage
        assert "gcc" not in stage
