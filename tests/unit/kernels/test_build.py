from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = Path("neurostorm_bids", "kernels", "src")


@pytest.fixture
def build(tmp_path):
    """Return a function that runs setup.py over a copy of the sources of the kernels."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / SOURCES, tmp_path / SOURCES)

    def build(*arguments, **environment):
        command = [sys.executable, "setup.py", "-q", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return build


def test_without_a_compiler_the_package_is_built_without_kernels(build, tmp_path):
    done = build("bdist_wheel", CC=str(tmp_path / "no-compiler"))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("dist/*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


@pytest.mark.usefixtures("library")
def test_a_wheel_carries_the_kernels_and_serves_every_python(build, tmp_path):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler at hand")
    # The real sources take half a minute; they are compiled where the package is installed.
    (tmp_path / SOURCES / "kernels.c").write_text("int ns_interface(void) { return 0; }\n")
    done = build("bdist_wheel")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("dist/*.whl")
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    assert "neurostorm_bids/kernels/_kernels.so" in zipfile.ZipFile(wheel).namelist()
