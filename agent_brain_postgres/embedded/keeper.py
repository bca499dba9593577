"""Stops the server when its users were killed and none could do it.

A small process of its own, started with the server. It needs the standard library only, so it is
run as a file, not as a module of the package: it stays small and starts at once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_SECONDS = 1.0
_STOP_SECONDS = 60.0


def watch(directory: Path, server: int) -> None:
    """Start a keeper for the server with this process id."""
    if not sys.executable:  # embedded interpreters
        return
    # As in `cluster`: through a shell, so that it is not our child.
    subprocess.run(  # noqa: S603
        [
            *("/bin/sh", "-c", '"$@" >/dev/null 2>&1 </dev/null &', "sh"),
            *(sys.executable, "-I", "-S", __file__, os.fspath(directory), str(server)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        check=False,
    )


def keep(directory: Path, server: int) -> None:
    """Wait until the server ends, or nobody uses it, or its directory is gone; then stop it."""
    socket_directory = _socket_directory(directory)
    while _alive(server):
        try:
            if _stop_if_unused(directory, server):
                break
        except FileNotFoundError:
            os.kill(server, signal.SIGQUIT)  # nothing is left to save
            break
        time.sleep(_SECONDS)
    if socket_directory is not None:
        shutil.rmtree(socket_directory, ignore_errors=True)


def _stop_if_unused(directory: Path, server: int) -> bool:
    with (directory / "lock").open("rb") as lock, (directory / "users").open("rb") as users:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not _alive(server) or not _serves(server, directory):
            return True
        os.kill(server, signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        while _alive(server) and time.monotonic() < deadline:  # a newcomer waits for the lock
            time.sleep(0.05)
        return True


def _postmaster_lines(directory: Path) -> list[str]:
    return os.fsdecode((directory / "data" / "postmaster.pid").read_bytes()).splitlines()


def _serves(server: int, directory: Path) -> bool:
    try:
        return _postmaster_lines(directory)[:1] == [str(server)]
    except FileNotFoundError:
        return False


def _socket_directory(directory: Path) -> Path | None:
    """Give the socket's directory when it was made for this server alone."""
    found = Path(_postmaster_lines(directory)[4])
    return found if found.name.startswith("agent-brain-postgres-") else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # the id belongs to someone else by now
    return True


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
