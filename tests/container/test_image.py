"""An image that was built from docker/Dockerfile, run as a cautious cluster runs it.

Needs an engine and an image, so it is not in the default run: see `make containers`, which builds
the image and sets NEUROSTORM_RUN (the words that run a container, such as ``docker run``) and
NEUROSTORM_IMAGE. With NEUROSTORM_APPTAINER (the words before ``run``, such as ``apptainer``) and
NEUROSTORM_SIF (the image) Apptainer is tested too. NEUROSTORM_SHARE names a folder that these can
mount, when they cannot mount pytest's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_dataset, write_models

pytestmark = pytest.mark.container
UID = 12345


def words(variable: str) -> list[str]:
    """Return the words of an environment variable, or skip."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set; see make containers")
    return shlex.split(value)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder that containers can mount."""
    share = os.environ.get("NEUROSTORM_SHARE")
    if share is None:
        return tmp_path_factory.mktemp("container")
    folder = Path(share) / f"container-{os.getpid()}"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def inputs(place):
    """Write a small dataset with its models, which a container sees as /data."""
    folder = place / "data"
    write_dataset(folder / "fmriprep")
    write_models(folder / "models")
    make_readable(folder)
    return folder


def make_readable(folder: Path) -> None:
    """Let everybody read a folder, the container's user too."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="module")
def plain(place, inputs):
    """Return the results of the same call without a container."""
    out = place / "plain"
    models = [str(path) for path in sorted((inputs / "models").iterdir())]
    assert main([str(inputs / "fmriprep"), str(out), "participant", "--model", *models]) == 0
    return out


def run_cautiously(data: Path, out: Path, *arguments: str, options: tuple[str, ...] = ()):
    """Run the image with a read-only root, no network, no privileges and a user without a name."""
    out.mkdir(exist_ok=True)
    out.chmod(0o777)
    return subprocess.run(
        [
            *words("NEUROSTORM_RUN"),
            *("--rm", "--network", "none", "--read-only"),
            *("--tmpfs", "/tmp:rw,mode=1777,size=64m"),
            *("--user", f"{UID}:{UID}", "--cap-drop", "all"),
            *("--security-opt", "no-new-privileges", "--workdir", "/"),
            *("-v", f"{data}:/data:ro", "-v", f"{out}:/out", *options),
            *words("NEUROSTORM_IMAGE"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def run_shell(inputs: Path, place: Path, script: str) -> str:
    result = run_cautiously(
        inputs, place / "shell", "-c", script, options=("--entrypoint", "/bin/sh")
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def list_models(inputs: Path) -> list[str]:
    return [f"/data/models/{path.name}" for path in sorted((inputs / "models").iterdir())]


def compare_tables(found: Path, expected: Path) -> None:
    """Check that two outputs hold the same results: the same tables, number for number."""
    names = {p.relative_to(expected) for p in expected.glob("sub-*/**/func/*.tsv")}
    assert names
    assert {p.relative_to(found) for p in found.glob("sub-*/**/func/*.tsv")} == names
    for name in names:
        pd.testing.assert_frame_equal(
            pd.read_csv(found / name, sep="\t"),
            pd.read_csv(expected / name, sep="\t"),
            rtol=1e-5,
            atol=1e-6,
            obj=str(name),
        )


def test_a_cautious_cluster_gets_the_results_of_a_plain_run(place, inputs, plain):
    out = place / "out"
    call = ("/data/fmriprep", "/out", "participant", "--model", *list_models(inputs))
    result = run_cautiously(inputs, out, *call)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    compare_tables(out, plain)
    again = run_cautiously(inputs, out, *call)
    assert "Nothing to do" in again.stderr
    group = run_cautiously(inputs, out, "/data/fmriprep", "/out", "group")
    assert group.returncode == 0, group.stderr
    assert (out / "group.html").exists()


def test_a_real_dataset_gives_the_results_of_a_plain_run(place, inputs, shared):
    shutil.copytree(shared / "realdata" / "fmriprep-semireal", inputs / "real")
    make_readable(inputs / "real")
    models = sorted((inputs / "models").iterdir())
    plain = place / "plain-real"
    call = [str(inputs / "real"), str(plain), "participant", "--model", *map(str, models)]
    assert main(call) == 0
    out = place / "out-real"
    call = ["/data/real", "/out", "participant", "--model", *list_models(inputs)]
    result = run_cautiously(inputs, out, *call)
    assert result.returncode == 0, result.stderr
    compare_tables(out, plain)


def test_the_compiled_kernels_compute_unless_told_otherwise(place, inputs):
    call = ("/data/fmriprep", "/out", "participant", "--model", list_models(inputs)[0], "-v")
    result = run_cautiously(inputs, place / "kernels", *call)
    assert result.returncode == 0, result.stderr
    assert "Compiled kernels: this processor has" in result.stderr


def test_the_results_name_the_image(place, inputs):
    out = place / "named"
    call = ("/data/fmriprep", "/out", "participant", "--model", list_models(inputs)[0])
    assert run_cautiously(inputs, out, *call).returncode == 0
    description = (out / "dataset_description.json").read_text()
    assert '"Container"' in description
    assert "neurostorm-bids:" in description


def test_a_mistake_has_the_exit_status_of_the_command(place, inputs):
    result = run_cautiously(inputs, place / "wrong", "/data/nowhere", "/out", "participant")
    assert result.returncode in {2, 16}
    assert "Traceback" not in result.stderr


def test_the_home_may_be_missing(place, inputs):
    out = place / "homeless"
    call = ("/data/fmriprep", "/out", "participant", "--model", list_models(inputs)[0])
    result = run_cautiously(inputs, out, *call, options=("--env", "HOME=/nonexistent"))
    assert result.returncode == 0, result.stderr


def test_nothing_compiles_or_installs_in_the_image(place, inputs):
    assert run_shell(inputs, place, "command -v gcc cc pip make || echo none") == "none"


def test_a_login_shell_finds_the_commands(place, inputs):
    """Boutiques starts one, which sets PATH as the distribution has it."""
    call = "/bin/sh -lc 'command -v neurostorm && neurostorm --version'"
    assert run_shell(inputs, place, call).startswith("/usr/local/bin/neurostorm")


def test_all_of_it_may_be_read_by_anybody(place, inputs):
    unreadable = "find /opt/neurostorm ! -perm -o=r -o -type d ! -perm -o=x | head"
    assert run_shell(inputs, place, unreadable) == ""


def test_the_version_lies_where_platforms_look(place, inputs):
    version = run_shell(inputs, place, "cat /version; neurostorm --version")
    assert version.split()[0] == version.split()[-1]


def test_apptainer_gives_the_same_results(place, inputs, plain):
    out = place / "apptainer"
    out.mkdir()
    out.chmod(0o777)
    result = subprocess.run(
        [
            *words("NEUROSTORM_APPTAINER"),
            *("run", "--containall", "--cleanenv", "--no-home"),
            *("-B", f"{inputs}:/data:ro", "-B", f"{out}:/out"),
            *words("NEUROSTORM_SIF"),
            *("/data/fmriprep", "/out", "participant", "--model", *list_models(inputs)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    compare_tables(out, plain)
    assert '"apptainer"' in (out / "dataset_description.json").read_text()
