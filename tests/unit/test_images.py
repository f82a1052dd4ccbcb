"""What the images are built from fits what the package asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neurostorm_bids import __version__

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


def test_what_runs_holds_no_compiler_and_no_package_manager_for_python_and_starts_the_command():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert dockerfile.count('ENTRYPOINT ["neurostorm"]') == 2
    for name in ("base-cpu", "base-gpu", "cpu", "gpu"):
        stage = dockerfile.partition(f" AS {name}\n")[2].partition("\nFROM ")[0]
        assert stage
        words = set(re.findall(r"[\w.+-]+", stage))
        assert not words & {"pip", "gcc", "g++", "clang", "libc6-dev", "build-essential"}, name


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("docker/Dockerfile", "ARG VERSION={}\n"),
        ("singularity/neurostorm.def", "IMAGE=neurostorm-bids:{}-cpu\n"),
        ("brainlife/main", "docker://neurostorm-bids:{}-cpu"),
    ],
)
def test_images_are_named_by_the_version_of_the_package(file, place):
    assert place.format(__version__) in (ROOT / file).read_text()


@pytest.mark.parametrize("name", ["base", "build", ""])
def test_both_images_are_made_alike(name):
    """Everything but the base, the lock file, the label and what NVIDIA's runtime reads."""
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    stages = {}
    for kind in ("cpu", "gpu"):
        head = f" AS {name}-{kind}\n" if name else f" AS {kind}\n"
        stage = dockerfile.partition(head)[2].partition("\nFROM ")[0].partition("\n# ----")[0]
        stage = re.sub(r" \\\n +NVIDIA_\w+=\S+", "", stage)
        stage = re.sub(r"^ARG TORCH_INDEX=.*\n", "", stage, flags=re.MULTILINE)
        stage = stage.replace('--extra-index-url "${TORCH_INDEX}" ', "").replace(", with CUDA", "")
        stages[kind] = stage.replace(f"-{kind}", "-KIND").strip()
    assert stages["cpu"] == stages["gpu"]
