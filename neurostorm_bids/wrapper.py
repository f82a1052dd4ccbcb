"""The command ``neurostorm-docker``: the same call as ``neurostorm``, run in a container.

It finds the paths among the arguments, makes them visible in the container, and hands everything
else on as it was typed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from neurostorm_bids import __version__
from neurostorm_bids.arguments import spread_lists
from neurostorm_bids.errors import DatasetError, MissingFileError, OutputError, UsageError
from neurostorm_bids.invoke import invoke

if TYPE_CHECKING:
    from collections.abc import Sequence

ENGINES = ("docker", "podman", "apptainer")
DEFAULT_IMAGE = f"neurostorm-bids:{__version__}-cpu"
DEFAULT_GPU_IMAGE = f"neurostorm-bids:{__version__}-gpu"
WRITTEN = {"work_dir"}
"""Options, by parameter, that name a folder to write to."""
FOLDERS = {"models", "derivatives"}
"""Options whose value, or what stands behind ``NAME=``, may be a folder."""
WITH_NEIGHBOURS = {"atlas", "connectivity", "stimuli"}
"""Options that name a file beside which others are read: names of regions, of images."""
TABLES = {".tsv", ".csv", ".txt"}
"""Endings of these others."""
IN_IMAGE = "/opt/neurostorm/"
"""Where an image keeps its models; a path below is handed on as it is."""
NOT_STARTED = {"docker": 125, "podman": 125, "apptainer": 255}
"""Exit statuses of an engine that could not start a container."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or folder of this machine, and where it appears in the container."""

    source: Path
    target: str
    is_written: bool = False


@dataclass(kw_only=True)
class Mounts:
    """The mounts of a call; one path is mounted once."""

    mounts: list[Mount] = field(default_factory=list)

    def add(self, path: Path, name: str, *, is_written: bool = False) -> str:
        """Return the path in the container of a path of this machine."""
        source = path.resolve()
        for mount in self.mounts:
            if mount.source == source and (mount.is_written or not is_written):
                return mount.target
        # The name of a file stays, also of a link: what it is may be told by its ending.
        own = Path(os.path.abspath(path)).name  # noqa: PTH100 - resolve() would follow a link
        target = f"/{name}" if name in {"data", "out", "work"} else f"/inputs/{name}/{own}"
        self.mounts.append(Mount(source=source, target=target, is_written=is_written))
        return target

    def add_with_neighbours(self, path: Path, name: str) -> str:
        """Make the folder of a file visible; return the file's path in the container."""
        folder = path.parent.resolve()
        if path.resolve().is_relative_to(folder):
            return f"{self.add(folder, name)}/{path.name}"
        # A link, as DataLad has them, would lead nowhere there: one by one.
        for other in folder.iterdir():
            if other.suffix in TABLES and other.is_file():
                self.add(other, name)
        return self.add(path, name)


class Call(NamedTuple):
    """What is run in the container: the app's arguments and what must be visible to them."""

    arguments: list[str]
    mounts: list[Mount]


def run() -> None:
    """Run the command with the arguments of this process, and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command and return the container's exit status."""
    return invoke(command, argv, name="neurostorm-docker")


@click.command(
    context_settings={"ignore_unknown_options": True, "max_content_width": 100},
    epilog="Everything else is handed to neurostorm in the container: see neurostorm --help.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="What runs the container.  [default: the first of these that is installed]",
)
@click.option(
    "--image",
    help=f"Image, or the .sif file or folder of Apptainer.  [default: {DEFAULT_IMAGE}]",
)
@click.option("--gpus", is_flag=True, help="Make the GPUs visible, and take the image for them.")
@click.option("--user", "user", help="UID[:GID] to run as.  [default: yours]")
@click.option(
    "--network",
    is_flag=True,
    help="Let the container reach the network, to fetch what is named.  [default: no; Apptainer's "
    "is always that of this machine]",
)
@click.option("--print-command", is_flag=True, help="Print the command and do not run it.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    *,
    engine: str | None,
    image: str | None,
    gpus: bool,
    user: str | None,
    network: bool,
    print_command: bool,
    arguments: tuple[str, ...],
) -> int:
    """Run neurostorm in a container, with the paths of this machine.

    ARGUMENTS are those of neurostorm: BIDS_DIR OUTPUT_DIR LEVEL [options]. Inputs are mounted
    read-only. The command that runs is printed first, and its exit status is that of neurostorm.
    """
    if not arguments:
        raise UsageError(
            "Expected the arguments of neurostorm: BIDS_DIR OUTPUT_DIR LEVEL [options]. "
            "See neurostorm-docker --help."
        )
    call = translate(arguments)
    engine = engine or find_engine()
    words = compose(
        call,
        engine=engine,
        image=image or (DEFAULT_GPU_IMAGE if gpus else DEFAULT_IMAGE),
        gpus=gpus,
        user=user or f"{os.getuid()}:{os.getgid()}",
        network=network,
    )
    click.echo(f"RUNNING: {shlex.join(words)}", err=True)
    if print_command:
        return 0
    if shutil.which(words[0]) is None:
        raise MissingFileError(
            f"{words[0]} is not installed, or not on PATH. Install it, or choose another --engine."
        )
    status = subprocess.run(words, check=False).returncode  # noqa: S603 - a list, never a shell
    if status == NOT_STARTED[engine]:
        click.echo(
            f"neurostorm-docker: {engine} could not start the container, for the reason above. "
            "If the image is not there, build it (docs/docker.md) or name another with --image.",
            err=True,
        )
    return status


def find_engine() -> str:
    """Return the first engine that is installed."""
    found = next((engine for engine in ENGINES if shutil.which(engine)), None)
    if found is None:
        raise MissingFileError(
            f"None of {', '.join(ENGINES)} is installed, or on PATH. Install one, or install "
            "neurostorm-bids itself, which needs none."
        )
    return found


def translate(arguments: Sequence[str]) -> Call:
    """Replace the paths of this machine among the app's arguments by those in the container.

    Raises
    ------
    DatasetError, MissingFileError
        If the dataset or another input is not there.
    OutputError
        If a folder that is written to cannot be made.
    """
    from neurostorm_bids.cli import LEVELS  # noqa: PLC0415 - only for its options
    from neurostorm_bids.cli import command as app  # noqa: PLC0415

    options = {
        name: param
        for param in app.params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }
    words = spread_lists(arguments, app, levels=LEVELS)
    # What is not an option stands behind "--" now.
    n_options = words.index("--") if "--" in words else len(words)
    mounts = Mounts()
    positionals = _translate_positionals(words[n_options + 1 :], mounts)
    words = words[:n_options]
    translated: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None or option.is_flag or option.count:
            translated.append(word)
            continue
        value = value if equals else (words.pop(0) if words else "")
        translated += [name, _translate_value(option, value, mounts, index=len(translated))]
    return Call([*positionals, *translated], mounts.mounts)


def _translate_positionals(positionals: Sequence[str], mounts: Mounts) -> list[str]:
    if len(positionals) < 2:  # noqa: PLR2004 - --help and --version stand alone
        return list(positionals)
    source, output, *levels = positionals
    if not Path(source).is_dir():
        raise DatasetError(
            f"BIDS_DIR {source!r} is no folder. Give the dataset's folder; none is fetched in a "
            "container."
        )
    return [
        mounts.add(Path(source), "data"),
        mounts.add(_make_folder(Path(output)), "out", is_written=True),
        *levels,
    ]


def _translate_value(option: click.Option, value: str, mounts: Mounts, *, index: int) -> str:
    """Return an option's value with a path in it replaced."""
    if option.name in WRITTEN:
        return mounts.add(_make_folder(Path(value)), "work", is_written=True)
    if isinstance(option.type, click.Path):
        if not Path(value).exists():
            raise MissingFileError(f"{option.opts[0]} {value!r}: there is no such file.")
        return _mount(option, Path(value), mounts, index=index)
    if takes_path(option) and value:
        name, equals, path = value.partition("=") if option.name == "derivatives" else ("", "", "")
        path = path if equals else value
        source = Path(path)
        # A folder that is called as an atlas, or a strategy, is not meant.
        if source.exists() if option.name in FOLDERS else source.is_file():
            return f"{name}{equals}{_mount(option, source, mounts, index=index)}"
        if _must_be_path(path):
            raise MissingFileError(
                f"{option.opts[0]} {value!r}: there is no such file or folder, and names hold no "
                f"slash. Give a path of this machine, a name, or a path in the image ({IN_IMAGE})."
            )
    return value


def takes_path(option: click.Option) -> bool:
    """Tell whether an option's value is a path where something lies there, and else a name."""
    words = re.findall(r"[A-Z]+", option.metavar or "")
    return not {"MODEL", "PATH"}.isdisjoint(words)


def _must_be_path(value: str) -> bool:
    """Tell a mistyped path from a name or an address, which the app in the container knows."""
    return "/" in value and "://" not in value and not value.startswith((IN_IMAGE, "{"))


def _mount(option: click.Option, path: Path, mounts: Mounts, *, index: int) -> str:
    add = mounts.add_with_neighbours if option.name in WITH_NEIGHBOURS else mounts.add
    return add(path, str(index))


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(f"{path} cannot be made: {err.strerror}. Choose another folder.") from err
    return path


def compose(
    call: Call, *, engine: str, image: str, gpus: bool, user: str, network: bool
) -> list[str]:
    """Return the words of the command that runs the container; works without a terminal."""
    if engine == "apptainer":
        # Apptainer runs as whoever calls it; shutting off its network would need more rights.
        words = ["apptainer", "run", "--containall", "--cleanenv", "--no-home"]
        words += ["--nv"] if gpus else []
        for mount in call.mounts:
            access = "rw" if mount.is_written else "ro"
            words += ["--bind", f"{_check_colon(mount.source)}:{mount.target}:{access}"]
        return [*words, image, *call.arguments]
    words = [engine, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--user", user]  # noqa: S108
    if engine == "podman" and os.getuid():  # root keeps its number without being asked
        words += ["--userns", "keep-id"]
    if gpus:
        words += ["--gpus", "all"] if engine == "docker" else ["--device", "nvidia.com/gpu=all"]
    # Told that there is no network, the Hub's client does not try six times.
    words += [] if network else ["--network", "none", "--env", "HF_HUB_OFFLINE=1"]
    for mount in call.mounts:
        access = "rw" if mount.is_written else "ro"
        words += ["--volume", f"{_check_colon(mount.source)}:{mount.target}:{access}"]
    return [*words, image, *call.arguments]


def _check_colon(path: Path) -> Path:
    if ":" in str(path):
        raise UsageError(f"{path} holds a colon, which separates mounts. Use a path without one.")
    return path
