"""Start the command in processes that have its libraries in memory already.

Importing PyTorch takes longer than the small jobs of these tests. This program imports everything
once, reads a line of JSON for each call, and forks: the child becomes the command, in a group of
its own, and answers to signals as any other process does.

A call may be watched: every step in the file system (a file opened to write, renamed, removed, a
folder made) and every attempt at the network is written down. It may be killed or stopped right
before its n-th step, which hits the moments between two steps that no clock hits. And it may find
itself on a machine of another name, or on a file system without locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import platform
import socket
import sys

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
STEPS |= {"os.chmod", "os.chown", "os.utime", "os.setxattr"}
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def import_everything() -> None:
    """Import the package, and what it imports only when it needs it."""
    import neurostorm_bids

    for module in pkgutil.walk_packages(neurostorm_bids.__path__, "neurostorm_bids."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in (
        *(
            "matplotlib.pyplot",
            "matplotlib.backends.backend_svg",
            "matplotlib.backends.backend_agg",
        ),
        *("sklearn.linear_model", "nilearn.signal", "plotly", "torch.utils.tensorboard"),
    ):
        importlib.import_module(name)


def watch(below: str, *, kill_at: int | None, number: int, log: str | None) -> None:
    """Count the steps in the file system below a folder; write them down, take a signal at one."""
    count = 0
    file = open(log, "w") if log else None

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if event in NETWORK and file is not None:
            file.write(f"{event}\t{args[1:]}\n")
            file.flush()
        is_open = event == "open" and isinstance(args[2], int) and args[2] & WRITING
        if not (is_open or event in STEPS) or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if not path.startswith(below):
            return
        if count == kill_at:
            os.killpg(os.getpid(), number)
        count += 1
        if file is not None:
            file.write(f"{event}\t{path}\n")
            file.flush()

    sys.addaudithook(hook)


def become(call: dict) -> None:
    """Turn this process into the command, up to its arguments, streams and surroundings."""
    os.environ.update(call["env"])
    with open(call["log"], "wb") as log, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["neurostorm", *call["argv"]]
    if call["host"] is not None:
        socket.gethostname = platform.node = lambda: call["host"]
    if call["flock"] is not None:
        fcntl.flock = _make_flock(call["flock"])
    if call["steps"] is not None:
        watch(
            call["below"],
            kill_at=call["kill_at"],
            number=call["signal"],
            log=call["steps"] or None,
        )


def _make_flock(how: str):
    """Return a lock that does nothing, or fails as file systems without locks do."""

    def flock(*_: object) -> None:
        if how != "nothing":
            number = getattr(errno, how)
            raise OSError(number, os.strerror(number))

    return flock


def serve() -> None:
    """Fork for each call; return in the child only, and end with the input."""
    for line in sys.stdin.buffer:
        call = json.loads(line)
        if "wait" in call:
            _, status = os.waitpid(call["wait"], 0)
            print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)
            continue
        pid = os.fork()
        with contextlib.suppress(OSError):  # both do it, so that it is done when either goes on
            os.setpgid(pid, pid or 0)
        if pid == 0:
            become(call)
            return
        print(json.dumps({"pid": pid}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    import_everything()
    # A child that ends would look through all of it once more, and copy each page for that.
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    serve()
    from neurostorm_bids.cli import run

    run()
