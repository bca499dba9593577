"""Stops the server when its users were killed and none could do it.

A small process of its own, one a directory. It needs the standard library only, so it is run as a
file, not as a module of the package: it stays small and starts at once.
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
from typing import BinaryIO

LOCK, USERS, KEEPER = "lock", "users", "keeper"
SOCKET_PREFIX = "agent-brain-postgres-"

_SECONDS = 1.0
_STOP_SECONDS = 60.0


def watch(directory: Path, server: int) -> None:
    """Start a keeper for `directory`, where the process `server` runs; a second one ends at once."""
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


class Keeper:
    """Watches until no server runs, stopping the one that nobody uses."""

    def __init__(self, directory: Path, server: int) -> None:
        self._directory = directory
        self._server: int | None = server
        self._socket_directory: Path | None = None

    def keep(self) -> None:
        """Return when there is nothing left to keep."""
        try:
            with (self._directory / KEEPER).open("rb") as own_lock:
                if not _locked(own_lock):  # another one keeps it
                    return
                while not self._is_over(own_lock):
                    time.sleep(_SECONDS)
        except FileNotFoundError:  # the directory was removed: nothing is left to save
            if self._server is not None and _alive(self._server):
                os.kill(self._server, signal.SIGQUIT)
            self._remove_socket_directory()

    def _is_over(self, own_lock: BinaryIO) -> bool:
        with (self._directory / LOCK).open("rb") as lock:
            if not _locked(lock):  # somebody is starting or stopping the server
                return False
            here = (self._directory / KEEPER).stat()
            if not os.path.samestat(os.fstat(own_lock.fileno()), here):
                raise FileNotFoundError  # removed and made anew
            self._look()
            if self._server is not None and not self._stop_if_unused():
                return False
            # While we hold the lock: who starts a server next must see that it has no keeper.
            fcntl.flock(own_lock, fcntl.LOCK_UN)
            return True

    def _look(self) -> None:
        self._server = None
        try:
            raw = (self._directory / "data" / "postmaster.pid").read_bytes()
        except FileNotFoundError:
            return
        lines = os.fsdecode(raw).splitlines()
        if len(lines) > 4 and _alive(int(lines[0])):
            self._server, self._socket_directory = int(lines[0]), Path(lines[4])

    def _stop_if_unused(self) -> bool:
        assert self._server is not None
        with (self._directory / USERS).open("rb") as users:
            if not _locked(users):
                return False
            os.kill(self._server, signal.SIGINT)
            deadline = time.monotonic() + _STOP_SECONDS
            while _alive(self._server) and time.monotonic() < deadline:
                time.sleep(0.05)
            self._remove_socket_directory()
            return True

    def _remove_socket_directory(self) -> None:
        directory = self._socket_directory
        if directory is not None and directory.name.startswith(SOCKET_PREFIX):
            shutil.rmtree(directory, ignore_errors=True)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    """Say whether the process is there and, where that can be told, is PostgreSQL."""
    try:
        os.kill(pid, 0)
        if sys.platform == "linux":
            state, name = _status(pid)
            return name == b"postgres" and state != b"Z"
    except (ProcessLookupError, PermissionError, FileNotFoundError):
        return False
    return True


def _status(pid: int) -> tuple[bytes, bytes]:
    head, _, tail = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
    return tail.split()[0], head.partition(b"(")[2]


if __name__ == "__main__":
    Keeper(Path(sys.argv[1]), int(sys.argv[2])).keep()
