"""What `postmaster.pid` says of a server, and whether the process it names is that server.

A process id alone proves nothing: after a crash and a reboot (or in a container, where ids are
small) it may name any process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The contents of `postmaster.pid`."""

    pid: int
    socket_directory: Path | None
    status: str

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


def read_postmaster(data: Path) -> Postmaster | None:
    """Read who serves `data`; None when nobody does, or the file is still being written."""
    try:
        lines = os.fsdecode((data / "postmaster.pid").read_bytes()).splitlines()
    except FileNotFoundError:
        return None
    lines += [""] * (8 - len(lines))
    try:
        pid = int(lines[0])
    except ValueError:
        return None
    return Postmaster(abs(pid), Path(lines[4]) if lines[4] else None, lines[7].strip())


def serves(pid: int, data: Path) -> bool:
    """Say whether the process is a live PostgreSQL server on `data` (a zombie is not)."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cwd").samefile(data) and _is_postgres(pid)
        except OSError:
            return False
    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603
    return b"postgres" in said and os.fsencode(data) in said


def wait_for_end(pid: int, data: Path, seconds: float) -> bool:
    """Wait until the server `pid` on `data` is gone; say whether it is."""
    deadline = time.monotonic() + seconds
    while serves(pid, data):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_for_orphans(data: Path, seconds: float) -> None:
    """Wait for the children of a killed server: they end soon, and must not meet a new server."""
    if sys.platform != "linux":
        return
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(
        serves(int(entry.name), data) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    ):
        time.sleep(0.05)


def _is_postgres(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() == "postgres"
