"""A real Slurm of one node, in a folder of the tests' own and on ports of the loopback device."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
START_S = 60
CONFIGURATION = """\
ClusterName=neurostorm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,bf_interval=5
KillWait=5
ReturnToService=2
JobRequeue=1
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=600 State=UP
PartitionName=crowd Nodes=ALL MaxTime=600 State=UP OverSubscribe=FORCE:8
"""
"""Two CPUs; in the partition "crowd" eight tasks share each of them."""


class Cluster(NamedTuple):
    """A running Slurm; its commands find it by SLURM_CONF, which the fixture sets."""

    folder: Path

    def ask(self, *words: str) -> str:
        """Return what one of Slurm's commands says."""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def wait_until(self, what, *, seconds: float = 300.0) -> None:
        """Wait until something is true; a test that waits in vain fails."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.ask("squeue", "--long")
            time.sleep(0.25)

    def wait_for_jobs(self) -> None:
        """Wait until nothing waits or runs."""
        self.wait_until(lambda: not self.ask("squeue", "--noheader"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Start Slurm, and stop it after the tests."""
    missing = [name for name in PROGRAMS if find_program(name) is None]
    if missing:
        pytest.skip(f"needs Slurm and munge (slurm-wlm, munge); there is no {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(write_configuration(folder)))
        # Tasks compute with one thread each, as the plain run that they are compared with.
        patch.setenv("OMP_NUM_THREADS", "1")
        cluster = Cluster(folder)
        try:
            start(cluster)
            yield cluster
        finally:
            stop(folder)


def find_program(name: str) -> str | None:
    """Return the path of a program; daemons lie where not every user's PATH leads."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def write_configuration(folder: Path) -> Path:
    """Make the folders, and write munge's key and slurm.conf; return the path of the latter."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700 if name == "munge" else 0o755)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge" / "key").chmod(0o600)
    controller_port, node_port = find_ports(2)
    path = folder / "slurm.conf"
    path.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
        )
    )
    return path


def find_ports(number: int) -> list[int]:
    """Return ports of the loopback device that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(cluster: Cluster) -> None:
    """Start munge and Slurm's daemons, and wait until the node takes jobs."""
    folder = cluster.folder
    munge = folder / "munge"
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid"}
    files |= {"log-file": "log", "seed-file": "seed"}
    words = [f"--{option}={munge / name}" for option, name in files.items()]
    configuration = os.environ["SLURM_CONF"]
    for program, *arguments in (
        ("munged", "--force", *words),
        ("slurmctld", "-f", configuration),
        ("slurmd", "-f", configuration),
    ):
        subprocess.run([str(find_program(program)), *arguments], check=True, capture_output=True)
    cluster.wait_until(
        lambda: "idle" in cluster.ask("sinfo", "--noheader", "--format=%T"), seconds=START_S
    )


def stop(folder: Path) -> None:
    """End what was started, by the numbers that the daemons wrote down."""
    subprocess.run(["scancel", "--user", str(os.getuid())], check=False, capture_output=True)
    for path in (folder / "slurmd.pid", folder / "slurmctld.pid", folder / "munge" / "pid"):
        if path.exists():
            os.kill(int(path.read_text()), signal.SIGTERM)
