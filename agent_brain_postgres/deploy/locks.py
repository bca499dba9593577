"""Exclusive use of something by one process of this user, for a moment."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agent_brain_postgres.errors import DeployError

PATIENCE = 30.0  # seconds


def user_directory() -> Path:
    """Give the directory that holds what concerns all projects of this user.

    Where the home directory cannot be written, it is one of the user's own under the system's
    temporary directory.
    """
    for candidate in _candidates():
        with contextlib.suppress(OSError):
            candidate.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(candidate, os.W_OK | os.X_OK):
                return candidate
    raise DeployError("neither the home directory nor the temporary directory can be written")


def _candidates() -> Iterator[Path]:
    home = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    with contextlib.suppress(RuntimeError):
        yield (Path(home) if home else Path.home() / ".local" / "state") / "agent-brain-postgres"
    user = os.getuid() if sys.platform != "win32" else "user"
    yield Path(tempfile.gettempdir()) / f"agent-brain-postgres-{user}"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock of this user; it ends with the process, however that ends."""
    path = user_directory() / f"{name}.lock"
    with path.open("a+b") as stream:
        _wait(stream, name)
        yield


def _wait(stream: IO[bytes], name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _acquired(stream):
        if time.monotonic() > deadline:
            raise DeployError(f"another process has held the lock {name!r} for {PATIENCE:.0f} s")
        time.sleep(0.05)


if sys.platform == "win32":
    import msvcrt

    def _acquired(stream: IO[bytes]) -> bool:
        stream.seek(0)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _acquired(stream: IO[bytes]) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
